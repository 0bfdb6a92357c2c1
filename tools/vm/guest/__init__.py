"""Runs in: a guest of `make test-vm`, as its root."""
