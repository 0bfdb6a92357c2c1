"""Runs in: every process. User and group ids of the *calling thread*, by the system calls themselves.

The C library's functions of the same names go round all threads; here a caller with more than one would change one
only.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from bunri.kernel import prctl
from bunri.kernel._call import syscall

_UNCHANGED = -1  # an id that nobody has: setfsuid(2) then only tells the one in use
_one_at_a_time = threading.Lock()


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


@contextmanager
def file_system_ids(uid: int, gid: int) -> Generator[None]:
    """setfsuid(2) and setfsgid(2): what this thread reads in /proc is judged by these ids (ptrace(2), PTRACE_MODE_FSCREDS).

    PermissionError where they may not be taken. Afterwards all is as before, also what the kernel takes at a change of
    ids: being dumpable, and the parent-death signal.
    """
    with _one_at_a_time:
        dumpable, signal = prctl.dumpable(), prctl.parent_death_signal()
        before = _file_system("setfsuid", _UNCHANGED), _file_system("setfsgid", _UNCHANGED)
        try:
            _file_system("setfsgid", gid)
            _file_system("setfsuid", uid)
            if (_file_system("setfsuid", _UNCHANGED), _file_system("setfsgid", _UNCHANGED)) != (uid, gid):
                raise PermissionError(errno.EPERM, f"the file system ids {uid} and {gid} may not be taken")
            yield
        finally:
            _file_system("setfsuid", before[0])
            _file_system("setfsgid", before[1])
            if dumpable == 1:  # 2, where the system says so, cannot be asked for
                prctl.set_dumpable(1)
            prctl.set_parent_death_signal(signal)


def _file_system(name: str, value: int) -> int:
    """They return the id before, whether or not it was changed."""
    return int(syscall(name, value)) & 0xFFFFFFFF
