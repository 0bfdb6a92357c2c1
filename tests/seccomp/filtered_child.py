"""Runs in: the test process. Filters tried in the kernel: installed in a forked child, which makes harmless calls."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Callable, Sequence

from bunri.seccomp import Program, syscalls_of

Call = tuple[int, Sequence[int]]  # number, arguments
SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER = 1

MACHINE = platform.machine()

# What the child itself needs, beside the call under test, whatever the policy is about.
CHILD_NEEDS = (
    "brk", "mmap", "munmap", "mremap", "madvise", "mprotect", "futex", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "write", "exit_group", "exit", "getrandom",
)  # fmt: skip


def libc_syscall() -> Callable[..., int]:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function


SYSCALL = libc_syscall()


def install(program: bytes) -> None:
    """no_new_privs and the filter, for this process."""
    numbers = syscalls_of(MACHINE)
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(code)), 16)
    one = (ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if SYSCALL(numbers["prctl"], SET_NO_NEW_PRIVS, *one) != 0:
        os._exit(121)
    if SYSCALL(numbers["seccomp"], SET_MODE_FILTER, 0, ctypes.c_void_p(ctypes.addressof(head))) != 0:
        os._exit(122)


def in_child(action: Callable[[], int]) -> int:
    """The wait status of a forked child that runs `action` and exits with its result. No core files."""
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout has one that a stuck child never runs
            signal.alarm(20)
            os._exit(action())
        finally:
            os._exit(120)
    return os.waitpid(child, 0)[1]


def answers(program: Program, calls: Sequence[Call]) -> list[int] | int:
    """errno of each call made under the filter (0: none), or the signal that ended the child."""
    read_end, write_end = os.pipe()
    made = [(number, [ctypes.c_ulong(arg) for arg in args]) for number, args in calls]

    def child() -> int:
        install(program.to_bytes())
        results = bytearray()
        for number, args in made:
            ctypes.set_errno(0)
            results.append(min(ctypes.get_errno(), 255) if SYSCALL(ctypes.c_long(number), *args) == -1 else 0)
        os.write(write_end, bytes(results))
        return 0

    try:
        status = in_child(child)
        os.close(write_end)
        write_end = -1
        results = os.read(read_end, len(calls) + 1)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"the child could not install the filter or failed: exit code {code}"
    return list(results)
