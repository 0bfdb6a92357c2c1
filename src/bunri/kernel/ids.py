"""Runs in: every process. User and group ids of the *calling thread*, by the system calls themselves.

The C library's functions of the same names go round all threads; here a caller with more than one would change one
only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from bunri.kernel._call import syscall


def set_groups(groups: Sequence[int]) -> None:
    """setgroups(2). EPERM in a user namespace whose setgroups file says deny."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    syscall("setgroups", len(groups), array)


def set_gids(real: int, effective: int, saved: int) -> None:
    """setresgid(2)."""
    syscall("setresgid", real, effective, saved)


def set_uids(real: int, effective: int, saved: int) -> None:
    """setresuid(2). A change makes the process not dumpable, and disarms the parent-death signal."""
    syscall("setresuid", real, effective, saved)
