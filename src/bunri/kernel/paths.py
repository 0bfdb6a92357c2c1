"""Runs in: every process. openat2(2): a path that cannot lead elsewhere."""

from __future__ import annotations

import ctypes
import os

from bunri.kernel._call import syscall

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT, CACHED = 1, 2, 4, 8, 16, 32


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(path: str | bytes, flags: int, *, dirfd: int = -100, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); always close-on-exec. EAGAIN: the tree changed meanwhile; EXDEV, ELOOP: the path leads out."""
    how = _How(flags | os.O_CLOEXEC, mode, resolve)
    name = path if isinstance(path, bytes) else os.fsencode(path)
    return syscall("openat2", dirfd, name, ctypes.byref(how), ctypes.sizeof(how), path=os.fsdecode(path))
