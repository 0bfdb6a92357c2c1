"""Runs in: every process. Which kind of process of bunri this one is."""

from __future__ import annotations

import os
import sys
import threading
from enum import Enum

from bunri.errors import UsageError


class Kind(Enum):
    """What the running process is."""

    MONITOR = "monitor"
    ZYGOTE = "zygote"
    WORKER = "worker"


_kind = Kind.MONITOR


class _OfThread(threading.local):
    kind: Kind | None = None


_of_thread = _OfThread()


def kind() -> Kind:
    """Of this process; of this thread, where a user's test runs a worker in it."""
    return _of_thread.kind or _kind


def become_zygote() -> None:
    global _kind
    _kind = Kind.ZYGOTE


def become_worker() -> None:
    global _kind
    _kind = Kind.WORKER


def become_worker_in_this_thread() -> None:
    """For `bunri.testing.unconfined()`: this thread takes a worker's part until it ends."""
    _of_thread.kind = Kind.WORKER


_confined = False


def note_confined() -> None:
    """It has confined itself, and ended its zygotes."""
    global _confined
    _confined = True


def refuse_to_start() -> None:
    """UsageError in a zygote or a worker: what starts others is not loaded there, and cannot be loaded in a worker; and
    in a process that has confined itself."""
    if _confined:
        raise UsageError(
            "this process has confined itself, and starts nothing any more. Let another process start it, "
            "or keep the zygotes, with the rights that they have: bunri.confine(..., zygotes=Zygotes.DANGEROUS_KEEP)"
        )
    if _kind is not Kind.MONITOR:
        raise started_in_vain()


def refuse_to_confine() -> None:
    """UsageError in a zygote or a worker, which the program's own process confines."""
    if kind() is not Kind.MONITOR:
        raise UsageError(
            "confine is for a program's own process, and this one is a zygote or a worker: its class's policy confines it"
        )


def started_in_vain() -> UsageError:
    """The error for a start where none can be."""
    if _kind is Kind.WORKER:
        return UsageError(
            "a worker starts no other, and executes no program. Let the program do it: "
            "hand the worker a service, or what was started"
        )
    return UsageError(
        "a worker was started while its module was being imported in a zygote. Put the program's own part under\n"
        '    if __name__ == "__main__":\n'
        "        main()"
    )


def in_development_mode() -> bool:
    """`python -X dev` as it was written. sys.flags.dev_mode is set by an environment variable too, which is inherited."""
    return "dev" in sys._xoptions  # pyright: ignore[reportPrivateUsage]


forks: int = 0  # how many lie between this process and its first; what was made before one is not the child's


def _count_fork() -> None:
    global forks
    forks += 1


os.register_at_fork(after_in_child=_count_fork)
