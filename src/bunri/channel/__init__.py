"""Runs in: monitor and worker. The wire over a Unix socket, with descriptors and an arena for large bytes."""
