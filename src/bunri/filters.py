"""Runs in: any process that puts a filter of its own into the kernel, and, to read filters back, the process that asks.

`bunri.seccomp` makes a filter, as a value; this installs it. A worker's own filter is installed by its plan: here are
filters for programs that want nothing else of bunri.

    from bunri import filters, seccomp

    program = seccomp.compile([seccomp.deny("ptrace", reason="debugs nobody")], default=seccomp.Action.ALLOW)
    filters.install(program)

Which threads. A filter binds the thread that installs it, and those that it makes later. A thread that lives already
shares all memory with it and would go on unfiltered, so the filter is given to all of them in one step (TSYNC): to all
or to none. Filters are never taken off again; of several, the strictest answer counts.

Sources: seccomp(2), ptrace(2) PTRACE_SECCOMP_GET_FILTER, Documentation/userspace-api/no_new_privs.rst.
"""

from __future__ import annotations

import errno
import os
import platform
import threading
from enum import Enum
from pathlib import Path

from bunri.errors import HostError, UsageError
from bunri.kernel import prctl, procfs, ptrace
from bunri.kernel import seccomp as _kernel
from bunri.seccomp import Program
from bunri.text import printable

__all__ = ["Threads", "install", "installed"]


class Threads(Enum):
    """Which threads of this process a filter binds."""

    ALL = "all"
    DANGEROUS_ONLY_THIS = "only this"  # the others share its memory, and can do for it what it may not


def install(program: Program, *, threads: Threads = Threads.ALL) -> None:
    """Bind this process to a filter, for ever, with all that it executes or forks later.

    no_new_privs is set first, for the same threads: no program that it executes gains rights by setuid or file
    capabilities. So this needs no root. It stays set when the kernel then refuses the filter.

    Raises UsageError for a filter of another architecture, whose every call would be death, and where another thread
    has a filter that this one has not: it could not follow, so nobody is filtered, and the message names it.
    HostError where the kernel takes no filter, or no more of them (together 32768 instructions of its own inner form,
    where one of ours may be several).
    """
    here = platform.machine()
    if program.arch != here:
        raise UsageError(f"{program!r} kills whoever runs on {here}. Compile it with arch={here!r}")
    code = program.to_bytes()
    prctl.set_no_new_privs()
    try:
        _kernel.set_filter(code, _kernel.FLAG_TSYNC if threads is Threads.ALL else 0)
    except OSError as fault:
        raise _refusal(program, fault) from None


def installed(pid: int) -> tuple[Program, ...]:
    """The filters of another process's first thread, the oldest first, without the rules they were compiled from.

    The process stands still for a moment. HostError where the kernel does not show them: that takes CAP_SYS_ADMIN in
    the first user namespace, no filter of our own, and CONFIG_CHECKPOINT_RESTORE. ProcessLookupError where there is no
    such process.
    """
    if pid == os.getpid():
        raise UsageError("a process cannot read its own filters: ask from another one")
    try:
        if not _has_filters(pid):  # the kernel would say EINVAL, as it does where it has no way to show them
            return ()
        return tuple(Program.from_bytes(code, arch=platform.machine()) for code in ptrace.filters(pid))
    except ProcessLookupError:
        raise
    except OSError as fault:
        raise HostError(
            f"the filters of process {pid} cannot be read", errno=fault.errno, remedy=_UNREADABLE.get(fault.errno or 0)
        ) from None


def _has_filters(pid: int) -> bool:
    try:
        directory = procfs.open_process(pid)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, f"no process {pid}") from None
    try:
        return procfs.status(directory).seccomp_mode == _MODE_FILTER
    finally:
        os.close(directory)


_MODE_FILTER = 2
_UNREADABLE = {
    errno.EPERM: "Ask as root; one that is traced already shows them to its tracer only",
    errno.EACCES: "Ask as root of the host, from a process without a filter of its own",
    errno.EINVAL: "It takes a kernel with CONFIG_CHECKPOINT_RESTORE",
    errno.ETIMEDOUT: "It did not stop within a second",
}
_REMEDIES = {
    errno.ENOMEM: "Filters are never taken off: install one, or shorter ones",
    errno.ENOSYS: "It takes a kernel with CONFIG_SECCOMP_FILTER",
    errno.EINVAL: "It takes a kernel with CONFIG_SECCOMP_FILTER",
}


def _refusal(program: Program, fault: OSError) -> UsageError | HostError:
    if isinstance(fault, _kernel.CannotFollow):
        return UsageError(
            f"thread {fault.thread}{_name(fault.thread)} has a filter that this one has not, and cannot follow: "
            "no thread was filtered. Install filters before other threads install their own"
        )
    return HostError(
        f"{program!r} was not installed", layer="filter", errno=fault.errno, remedy=_REMEDIES.get(fault.errno or 0)
    )


def _name(number: int) -> str:
    """What Python calls the thread, or else the kernel."""
    for thread in threading.enumerate():
        if thread.native_id == number:
            return f" ({thread.name})"
    try:
        return f" ({printable(Path(f'/proc/self/task/{number}/comm').read_text().rstrip())})"
    except OSError:
        return ""
