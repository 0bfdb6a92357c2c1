"""Runs in: the monitor. A zygote's or a worker's word that it could not go on, as the error of the start."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Generator
from typing import Final

from bunri.errors import BunriError, Denial, Exit, HostError, Observer, Promise, UsageError, Violation
from bunri.policy import Policy
from bunri.policy.words import Profile
from bunri.process.messages import Failed
from bunri.text import printable

CLOSED = "it closed its channel"
NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE})
_MORE_ROOM: Final = "Close what is not needed, or raise RLIMIT_NOFILE before the first start, as with ulimit -n 4096"
_MISSING: Final = "Grant paths that exist; and where one is to lie in another (at=...), make its place there"

# Which promise is not kept when a step fails.
_PROMISES: Final = {
    **dict.fromkeys(("new_root", "mount_in_root", "chroot", "landlock"), Promise.FILES),
    **dict.fromkeys(("set_ids", "set_capabilities", "drop_bounding", "securebits"), Promise.IDENTITY),
    **dict.fromkeys(("filter", "strict_mode"), Promise.SYSCALLS),
    "limits": Promise.MEMORY,
    "label": Promise.LABEL,
}


def start_error(failed: Failed) -> BunriError:
    """The exception for a zygote or a worker that could not go on."""
    text = printable(failed.text)
    if failed.usage:
        text = printable(failed.text, keep_newlines=True)  # it may show lines to write
        trace = f"\n{printable(failed.trace, keep_newlines=True, limit=16384)}" if failed.trace else ""
        return UsageError(text + trace)
    if failed.errno in NO_ROOM:
        return HostError(text, layer=printable(failed.step or "descriptors"), errno=failed.errno, remedy=_MORE_ROOM)
    missing = failed.step == "new_root" and failed.errno == errno.ENOENT
    return HostError(
        text,
        promise=_PROMISES.get(failed.step or ""),
        layer=printable(failed.step) if failed.step else None,
        errno=failed.errno,
        remedy=_MISSING if missing else "See what this host lacks, or name the promise in may_miss",
    )


@contextlib.contextmanager
def no_room_means(what: str) -> Generator[None]:
    """HostError with these words where a table of descriptors is full, that of this process or of all."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in NO_ROOM:
            raise
        text = f"{what}: {os.strerror(fault.errno or 0)}"
        raise HostError(text, layer="descriptors", errno=fault.errno, remedy=_MORE_ROOM) from fault


def killed_by_kernel(who: str, policy: Policy, exit: Exit) -> Violation | None:
    """Why the kernel ended a worker that nobody here ended; None where that is not known."""
    if exit.signal == signal.SIGSYS:
        text = (
            "made a system call that its filter answers with death. "
            "Run with bunri's development mode (python -X dev) to see which"
        )
        return _violation(who, text, "seccomp filter")
    if exit.cause not in (None, CLOSED):  # closing is one of the calls that are death
        return None
    if policy.profile is Profile.STRICT and exit.signal == signal.SIGKILL:
        text = (
            "asked the kernel for something beyond read, write and exit, and in mode 1 that is death: a file, a pid, "
            f"random bytes, or more memory than the {policy.settled().memory} bytes of its policy. {_TWIN}"
        )
        return _violation(who, text, "seccomp mode 1")
    if policy.profile is Profile.STRICT and exit.signal == signal.SIGSEGV:
        text = (
            "looked at a clock, which mode 1 forbids with the time-stamp counter: a lock, an import and a log record do "
            f"so too. {_TWIN}"
        )
        return _violation(who, text, "seccomp mode 1")
    return None


_TWIN: Final = "Do it in warm_up, or use Policy.compute(), where what is refused is an error"


def _violation(who: str, text: str, layer: str) -> Violation:
    return Violation(f"{who} {text}", Denial(layer=layer, observed_by=Observer.KERNEL))


def did_not_wait(who: str) -> HostError:
    """The error for a worker that says it is confined, and could not be looked at when it was due."""
    return HostError(
        f"seen from outside, {who} did not wait at its checkpoint",
        promise=Promise.PROCESSES,
        layer="checkpoint",
        remedy="The worker has been ended. Something interferes with its confinement, or bunri is wrong",
    )
