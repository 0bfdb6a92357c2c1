"""Runs in: the developer's machine. Boots other kernels under emulation, and runs bunri's own tests in them."""
