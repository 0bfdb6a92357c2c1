"""Runs in: every process. seccomp(2): filters in, filters never out."""

from __future__ import annotations

import ctypes
import errno

from bunri.kernel import prctl
from bunri.kernel._call import syscall

FLAG_TSYNC, FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_NEW_LISTENER, FLAG_TSYNC_ESRCH, FLAG_WAIT_KILLABLE_RECV = (
    1 << n for n in range(6)
)

RET_KILL_PROCESS = 0x80000000
RET_KILL_THREAD = 0x00000000
RET_TRAP = 0x00030000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000
RET_LOG = 0x7FFC0000
RET_ALLOW = 0x7FFF0000

_SET_MODE_STRICT, _SET_MODE_FILTER, _GET_ACTION_AVAIL, _GET_NOTIF_SIZES = range(4)
_INSTRUCTION = 8  # bytes of a struct sock_filter
LONGEST = 4096  # instructions


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


class CannotFollow(OSError):
    """TSYNC: a thread has a filter that the calling one has not, so no thread was filtered."""

    def __init__(self, thread: int) -> None:
        super().__init__(errno.ESRCH, f"seccomp: thread {thread} has a filter of its own")
        self.thread = thread


def set_filter(program: bytes, flags: int = 0) -> int:
    """Install a filter, an array of struct sock_filter. With FLAG_NEW_LISTENER it returns the notification descriptor.

    Needs no_new_privs or CAP_SYS_ADMIN. EINVAL: the kernel's checker refuses the program; EBUSY: there is a listener
    already; CannotFollow (ESRCH), with FLAG_TSYNC.
    """
    length, rest = divmod(len(program), _INSTRUCTION)
    if rest or not 0 < length <= LONGEST:
        raise OSError(
            errno.EINVAL, f"seccomp: {len(program)} bytes are not 1 to {LONGEST} instructions of {_INSTRUCTION} bytes"
        )
    result = syscall("seccomp", _SET_MODE_FILTER, flags, ctypes.byref(_Program(length, program)))
    if result and not flags & FLAG_NEW_LISTENER:
        raise CannotFollow(result)
    return result


def set_strict() -> None:
    """Mode 1: read, write, rt_sigreturn and exit (not exit_group), and nothing else; the time-stamp counter goes
    too."""
    syscall("seccomp", _SET_MODE_STRICT, 0, None)


def action_available(action: int) -> bool:
    """Whether the kernel knows a return value (RET_...)."""
    try:
        syscall("seccomp", _GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(action)))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise
    return True


def notification_sizes() -> tuple[int, int, int]:
    """Bytes of struct seccomp_notif, seccomp_notif_resp and seccomp_data in this kernel."""
    sizes = (ctypes.c_uint16 * 3)()
    syscall("seccomp", _GET_NOTIF_SIZES, 0, sizes)
    return sizes[0], sizes[1], sizes[2]


def mode() -> int:
    """0 none, 2 filter. In mode 1 asking is death."""
    return prctl.prctl(21, "PR_GET_SECCOMP")
