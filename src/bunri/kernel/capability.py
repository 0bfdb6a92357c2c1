"""Runs in: every process. capget(2), capset(2): capabilities as bit masks (capabilities(7))."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable
from typing import NamedTuple

from bunri.kernel import prctl
from bunri.kernel._call import syscall

NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
SETGID, SETUID, SETPCAP = 6, 7, 8
SYS_CHROOT, SYS_PTRACE, SYS_ADMIN, SYS_RESOURCE = 18, 19, 21, 24

_VERSION_3 = 0x20080522


class Sets(NamedTuple):
    """The three sets that capset(2) changes, as masks."""

    effective: int
    permitted: int
    inheritable: int


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


_Words = ctypes.c_uint32 * 6  # effective, permitted, inheritable: low words, then high words


def mask_of(capabilities: Iterable[int]) -> int:
    """Numbers as a mask."""
    mask = 0
    for number in capabilities:
        mask |= 1 << number
    return mask


def numbers_of(mask: int) -> tuple[int, ...]:
    """A mask as numbers."""
    return tuple(n for n in range(mask.bit_length()) if mask >> n & 1)


def get(pid: int = 0) -> Sets:
    """The sets of a thread; 0 is the calling one."""
    header, words = _Header(_VERSION_3, pid), _Words()
    syscall("capget", ctypes.byref(header), words)
    return Sets(*(words[i] | words[i + 3] << 32 for i in range(3)))


def set_(sets: Sets) -> None:
    """Make the calling thread's sets exactly these."""
    header = _Header(_VERSION_3, 0)
    low = [mask & 0xFFFFFFFF for mask in sets]
    high = [mask >> 32 for mask in sets]
    syscall("capset", ctypes.byref(header), _Words(*low, *high))


def last() -> int:
    """The highest capability that this kernel knows."""
    number = 36  # in every kernel that bunri supports
    while True:
        try:
            prctl.in_bounding_set(number + 1)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return number
            raise
        number += 1


def bounding() -> int:
    """The bounding set as a mask."""
    return mask_of(n for n in range(last() + 1) if prctl.in_bounding_set(n))
