"""Runs in: the developer's machine. What bunri costs, side by side with what it is compared with: `make bench`."""
