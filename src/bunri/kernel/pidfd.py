"""Runs in: every process. Processes by descriptor: no pid is ever signalled that may have been given to another."""

from __future__ import annotations

import ctypes
import fcntl
import os
from typing import NamedTuple

from bunri.kernel._call import syscall

NONBLOCK = os.O_NONBLOCK
_P_PIDFD = 3
_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info): 64 bytes
INFO_PID, INFO_CREDS, INFO_CGROUP, INFO_EXIT = 1, 2, 4, 8


class _Info(ctypes.Structure):
    _fields_ = [
        ("mask", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
        *[
            (n, ctypes.c_uint32)
            for n in ("pid", "tgid", "ppid", "ruid", "rgid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid")
        ],
        ("exit_code", ctypes.c_int32),
    ]


class Info(NamedTuple):
    """What PIDFD_GET_INFO tells. `status` is a wait status, None while it lives or where the kernel does not keep it
    (before 6.15)."""

    pid: int
    ppid: int
    uid: int
    gid: int
    status: int | None


def open_(pid: int, flags: int = 0) -> int:
    """pidfd_open(2)."""
    return syscall("pidfd_open", pid, flags)


def send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2). ESRCH: it has been reaped."""
    syscall("pidfd_send_signal", pidfd, number, None, 0)


def get_fd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor. Needs ptrace rights over it."""
    return syscall("pidfd_getfd", pidfd, fd, 0)


def wait(pidfd: int, options: int = os.WEXITED) -> os.waitid_result | None:
    """waitid(2) on a pidfd. ECHILD where the process is a child of somebody else; None with WNOHANG while it lives."""
    return os.waitid(_P_PIDFD, pidfd, options)  # type: ignore[arg-type,unused-ignore]


def info(pidfd: int) -> Info:
    """PIDFD_GET_INFO (Linux 6.13). ENOTTY before; ESRCH once reaped, where the kernel does not keep the exit code."""
    found = _Info(mask=INFO_PID | INFO_CREDS | INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, found)
    except OSError as error:
        raise OSError(error.errno, f"ioctl(PIDFD_GET_INFO): {error.strerror}") from None
    status = found.exit_code if found.mask & INFO_EXIT else None
    return Info(found.pid, found.ppid, found.ruid, found.rgid, status)
