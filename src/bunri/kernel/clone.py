"""Runs in: zygotes and templates. Making processes and namespaces: unshare(2), setns(2), clone3(2).

`clone_process` is clone3(2) by hand. Between the call and its two returns the interpreter's lock is held (PyDLL), so
in a
process with one thread the child wakes up as the owner of everything it needs. Python's own fork hooks do not run:
that saves a third of the time, and it means that `random`, `threading` and `ssl` are not told. The caller reseeds what
must differ between siblings. A process with a second thread must not use it: that thread's locks would stay locked
in the child for ever.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal

from bunri.kernel import prctl, prepared
from bunri.kernel._call import ARCH, failure, function, syscall_keeping_gil, syscall_keeping_gil_raw

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
FLAGS = {
    "mnt": CLONE_NEWNS,
    "cgroup": CLONE_NEWCGROUP,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
    "time": CLONE_NEWTIME,
}
CLONE_PARENT = 0x00008000
_PIDFD = 0x00001000
_CHILD_CLEARTID, _CHILD_SETTID = 0x00200000, 0x01000000

_unshare = function("unshare", ctypes.c_int)
_setns = function("setns", ctypes.c_int, ctypes.c_int)


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
    ]


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _unshare(flags) != 0:
        raise failure("unshare")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2): into the namespace (or those of the pidfd) that `fd` names."""
    if _setns(fd, flags) != 0:
        raise failure("setns")


def flags_of(namespaces: tuple[str, ...]) -> int:
    """The clone flags of namespaces by name. KeyError for a name that does not exist."""
    mask = 0
    for name in namespaces:
        mask |= FLAGS[name]
    return mask


class Cloner:
    """`clone_process` with the same flags again and again: what it needs is made once, before the first."""

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._pidfd = ctypes.c_int(-1)
        tid = _tid_address()
        self._arguments = _CloneArgs(
            flags=flags | _PIDFD | (_CHILD_SETTID | _CHILD_CLEARTID if tid else 0),
            pidfd=ctypes.addressof(self._pidfd),
            child_tid=tid,
            exit_signal=signal.SIGCHLD,
        )
        self._call = prepared.call("clone3", ctypes.byref(self._arguments), ctypes.sizeof(self._arguments))[0]

    def __call__(self) -> tuple[int, int]:
        """(pid, pidfd) to the parent, (0, -1) to the child."""
        pid: int = syscall_keeping_gil_raw(*self._call)
        if pid == 0:
            return 0, -1
        if pid > 0:
            return pid, self._pidfd.value
        if ctypes.get_errno() == errno.ENOSYS:
            return clone_process(self._flags)
        raise failure("clone3")


def clone_process(flags: int = 0) -> tuple[int, int]:
    """Make a child, in new namespaces as `flags` say. Returns (pid, pidfd) to the parent, (0, -1) to the child.

    By clone3(2), or by clone(2) where a container hides the newer call. The pidfd is close-on-exec, and not in the
    child.
    """
    try:
        return by_clone3(flags)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return by_clone(flags)


def by_clone3(flags: int = 0) -> tuple[int, int]:
    """clone3(2) alone."""
    pidfd = ctypes.c_int(-1)
    tid = _tid_address()
    arguments = _CloneArgs(
        flags=flags | _PIDFD | (_CHILD_SETTID | _CHILD_CLEARTID if tid else 0),
        pidfd=ctypes.addressof(pidfd),
        child_tid=tid,
        exit_signal=signal.SIGCHLD,
    )
    pid = syscall_keeping_gil("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments))
    return (pid, pidfd.value) if pid else (0, -1)


def by_clone(flags: int = 0) -> tuple[int, int]:
    """clone(2) alone. It cannot make a time namespace (EINVAL)."""
    if flags & CLONE_NEWTIME:
        raise OSError(errno.EINVAL, "clone: CLONE_NEWTIME needs clone3")
    pidfd = ctypes.c_int(-1)
    tid = _tid_address()
    flags |= _PIDFD | signal.SIGCHLD | (_CHILD_SETTID | _CHILD_CLEARTID if tid else 0)
    last = (tid, 0) if ARCH == "x86_64" else (0, tid)  # the two architectures order child_tid and tls differently
    pid = syscall_keeping_gil("clone", flags, 0, ctypes.byref(pidfd), *last)
    return (pid, pidfd.value) if pid else (0, -1)


def by_fork() -> tuple[int, int]:
    """os.fork(), with Python's hooks, and a pidfd: where neither call above is to be had, or threads live."""
    pid = os.fork()
    return (pid, os.pidfd_open(pid)) if pid else (0, -1)


def _tid_address() -> int:
    """Where the C library remembers this thread's id: there the kernel is asked to write the child's, as fork(3)
    does."""
    try:
        return prctl.tid_address()
    except OSError:
        return 0  # a kernel without checkpoint/restore: the C library then goes on with the parent's id
