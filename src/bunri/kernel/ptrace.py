"""Runs in: the command `inspect`, with root's rights. ptrace(2), for one thing only: to read the filters of a process.

The process stands still for as long as that takes. When we end, however we end, it goes on: the kernel detaches it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Generator
from contextlib import contextmanager

from bunri.kernel._call import syscall

_DETACH, _SEIZE, _INTERRUPT, _SECCOMP_GET_FILTER = 17, 0x4206, 0x4207, 0x420C
_WALL = 0x40000000  # wait for threads and processes that are not our children
_MOST = 64  # filters of one process
_STOPS_WITHIN = 1.0  # seconds; a process in an uninterruptible sleep does not
_INSTRUCTION = 8  # bytes


def filters(pid: int) -> tuple[bytes, ...]:
    """The seccomp filters of a process, the oldest first, as arrays of struct sock_filter.

    OSError: EPERM without ptrace rights; EACCES without CAP_SYS_ADMIN, or under a filter ourselves; EINVAL where the
    kernel has no CONFIG_CHECKPOINT_RESTORE; ETIMEDOUT where it does not stop.
    """
    found: list[bytes] = []
    with _stopped(pid):
        for index in range(_MOST):
            try:
                length = syscall("ptrace", _SECCOMP_GET_FILTER, pid, index, None)
            except OSError as fault:
                if fault.errno == errno.ENOENT:
                    break
                raise
            program = ctypes.create_string_buffer(length * _INSTRUCTION)
            syscall("ptrace", _SECCOMP_GET_FILTER, pid, index, program)
            found.append(program.raw)
    return tuple(found)


@contextmanager
def _stopped(pid: int) -> Generator[None]:
    """Hold the process's first thread, and let it go again."""
    syscall("ptrace", _SEIZE, pid, 0, 0)
    syscall("ptrace", _INTERRUPT, pid, 0, 0)
    until = time.monotonic() + _STOPS_WITHIN
    while not os.waitpid(pid, os.WNOHANG | _WALL)[0]:
        if time.monotonic() > until:
            raise OSError(errno.ETIMEDOUT, "ptrace: the process does not stop")
        time.sleep(0.001)
    try:
        yield
    finally:
        syscall("ptrace", _DETACH, pid, 0, 0)
