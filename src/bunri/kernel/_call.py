"""Runs in: every process. How the modules of this folder reach the kernel.

glibc has no wrapper for the younger calls, so they go through syscall(2), with the numbers of both architectures here.
All arguments are declared as pointers: ctypes then takes an int of any size, None, bytes, a buffer or byref(), and
passes the full 64 bits (an undeclared int would be cut to 32).
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

_X86_64 = {
    "mmap": 9,
    "madvise": 28,
    "clone": 56,
    "ptrace": 101,
    "setsid": 112,
    "setgroups": 116,
    "setresuid": 117,
    "setresgid": 119,
    "capget": 125,
    "capset": 126,
    "pivot_root": 155,
    "setfsuid": 122,
    "setfsgid": 123,
    "prctl": 157,
    "keyctl": 250,
    "ppoll": 271,
    "dup3": 292,
    "newfstatat": 262,
    "readlinkat": 267,
    "prlimit64": 302,
    "seccomp": 317,
    "statx": 332,
}
_AARCH64 = {
    "dup3": 24,
    "pivot_root": 41,
    "ppoll": 73,
    "readlinkat": 78,
    "newfstatat": 79,
    "capget": 90,
    "capset": 91,
    "ptrace": 117,
    "setresuid": 147,
    "setresgid": 149,
    "setfsuid": 151,
    "setfsgid": 152,
    "setsid": 157,
    "setgroups": 159,
    "prctl": 167,
    "keyctl": 219,
    "clone": 220,
    "mmap": 222,
    "madvise": 233,
    "prlimit64": 261,
    "seccomp": 277,
    "statx": 291,
}
# Since 5.1 a new call has one number everywhere.
_COMMON = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "faccessat2": 439,
    "process_madvise": 440,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

ARCH = platform.machine()  # "x86_64" or "aarch64", as uname(2) says
NUMBERS: dict[str, int] = {**_COMMON, **{"x86_64": _X86_64, "aarch64": _AARCH64}.get(ARCH, {})}

libc = ctypes.CDLL(None, use_errno=True)
_pylibc = ctypes.PyDLL(None, use_errno=True)

_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 6]

_syscall_keeping_gil = _pylibc.syscall
_syscall_keeping_gil.restype = ctypes.c_long
_syscall_keeping_gil.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 6]

_PADDING = (0, 0, 0, 0, 0, 0)


def failure(name: str, path: str | None = None) -> OSError:
    """The OSError for the call that has just failed."""
    code = ctypes.get_errno()
    return (
        OSError(code, f"{name}: {os.strerror(code)}", path) if path else OSError(code, f"{name}: {os.strerror(code)}")
    )


def syscall(name: str, *arguments: Any, path: str | None = None) -> int:
    """One system call by name. OSError where it fails; KeyError on an architecture that bunri does not know.

    `path` is for the error only.
    """
    result: int = _syscall(NUMBERS[name], *(arguments + _PADDING)[:6])
    if result < 0:
        raise failure(name, path)
    return result


syscall_raw: Any = _syscall
"""syscall(2) itself: its number and six arguments; -1 and ctypes.get_errno() where it is refused."""


syscall_keeping_gil_raw: Any = _syscall_keeping_gil
"""The same without letting go of the interpreter's lock."""


def syscall_keeping_gil(name: str, *arguments: Any) -> int:
    """The same without letting go of the interpreter's lock: for calls that return twice."""
    result: int = _syscall_keeping_gil(NUMBERS[name], *(arguments + _PADDING)[:6])
    if result < 0:
        raise failure(name)
    return result


def function(name: str, *argtypes: Any) -> Any:
    """A function of the C library, with its argument types declared; it returns an int."""
    found = getattr(libc, name)
    found.restype = ctypes.c_int
    found.argtypes = list(argtypes)
    return found
