"""Runs in: every process. openat2(2): a path that cannot lead elsewhere. And what a descriptor names, as the kernel says
it."""

from __future__ import annotations

import ctypes
import os
import struct

from bunri.kernel._call import ARCH, NUMBERS, failure, syscall, syscall_raw

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT, CACHED = 1, 2, 4, 8, 16, 32

_HOW = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_OPENAT2 = NUMBERS["openat2"]


def openat2(path: str | bytes, flags: int, *, dirfd: int = -100, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); always close-on-exec. EAGAIN: the tree changed meanwhile; EXDEV, ELOOP: the path leads out."""
    # In one piece: a broker does this for every call that it answers.
    name = path if isinstance(path, bytes) else os.fsencode(path)
    how = _HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    fd: int = syscall_raw(_OPENAT2, dirfd, name, how, _HOW.size, 0, 0)
    if fd < 0:
        raise failure("openat2", os.fsdecode(path))
    return fd


AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT, AT_EACCESS, AT_STATX_SYNC = 0x1000, 0x100, 0x800, 0x200, 0x6000
_LARGEST_STAT, _SIZE_OF_STATX, _LONGEST_LINK = 256, 256, 4096
_SIZE_OF_STAT = {"x86_64": 144, "aarch64": 128}[ARCH] if ARCH in ("x86_64", "aarch64") else 0


def stat_bytes(fd: int) -> bytes:
    """struct stat of what the descriptor names, as newfstatat(2) writes it."""
    buffer = ctypes.create_string_buffer(_LARGEST_STAT)
    syscall("newfstatat", fd, b"", buffer, AT_EMPTY_PATH)
    return buffer.raw[:_SIZE_OF_STAT]


def statx_bytes(fd: int, flags: int, mask: int) -> bytes:
    """struct statx of what the descriptor names. `flags`: the ones about synchronising only."""
    buffer = ctypes.create_string_buffer(_SIZE_OF_STATX)
    syscall("statx", fd, b"", flags & AT_STATX_SYNC | AT_EMPTY_PATH, mask, buffer)
    return buffer.raw


def may_access(fd: int, mode: int, flags: int) -> None:
    """faccessat2(2) on what the descriptor names. OSError where it is refused."""
    syscall("faccessat2", fd, b"", mode, flags & AT_EACCESS | AT_EMPTY_PATH)


def read_link(fd: int) -> bytes:
    """Where the symbolic link that the descriptor names leads."""
    buffer = ctypes.create_string_buffer(_LONGEST_LINK)
    length = syscall("readlinkat", fd, b"", buffer, _LONGEST_LINK)
    return buffer.raw[:length]
