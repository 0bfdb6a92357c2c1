"""Runs in: the monitor. Who may wait for whom: no wait may hold up an event loop, or be one for itself (API decisions 1, 2)."""

from __future__ import annotations

import contextvars
import sys
from typing import TYPE_CHECKING

from bunri.calls import without_deadline
from bunri.errors import UsageError

if TYPE_CHECKING:
    import asyncio

    from bunri.process.reading import MonitorEnd
    from bunri.process.serving import MonitorSide

serving: contextvars.ContextVar[tuple[MonitorSide, ...]] = contextvars.ContextVar("bunri_serving", default=())
"""Workers that are blocked on the service whose code is running: none of them can answer a call."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """That of this thread, or None. Who runs one has loaded asyncio; a program without one need not wait for its import."""
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)  # not there while it is being imported
    return running() if running is not None else None


def refuse_on_loop(name: str, stub: str = "worker") -> None:
    """Before a call of method `name` is waited for on this thread."""
    if running_loop() is not None:
        raise UsageError(
            f"calling {name} here would block the event loop, and with it every other session. "
            f"Write: await bunri.call({stub}.{name}, ...)"
        )


def refuse_result_on_loop(*_: object) -> None:
    """Before a Call's result is waited for on this thread. It may stand where what drives the Call would."""
    if running_loop() is not None:
        raise UsageError("result() here would block the event loop. Write: await call")


def refuse_served(side: MonitorSide, name: str) -> None:
    """Before a call of method `name` goes to a worker that may be waiting for the very code that makes it."""
    if side in serving.get():
        raise UsageError(
            f"{side.who()} is blocked in the service call that this code answers: calling its {name} would wait for ever. "
            f"Return the answer first, or make the worker's call with bunri.call"
        )


def refuse_unheard(side: MonitorEnd) -> None:
    """Before a Call is waited for on this thread, which may be the one that would hear the answer, and is in a service."""
    if side.services.runs_here:
        raise UsageError(
            f"the thread that would hear {side.worker.describe()} is in this very service, which it calls: in a program without an "
            f"event loop the answer would be waited for for ever. Return first, or start the worker on an event loop"
        )


def context_of_its_own() -> contextvars.Context:
    """For what a loop will call for a new worker: neither the deadline around its start nor a service in which it was
    started is one of its later calls."""
    context = without_deadline()
    context.run(serving.set, ())
    return context


class answering:
    """Around a service's code: whether its caller can answer a call meanwhile is remembered with the context."""

    def __init__(self, side: MonitorSide, blocked: bool) -> None:
        self._side = side if blocked else None

    def __enter__(self) -> None:
        if self._side is not None:
            self._token = serving.set((*serving.get(), self._side))

    def __exit__(self, *fault: object) -> None:
        if self._side is not None:
            serving.reset(self._token)
