"""Runs in: the monitor. Who may wait for whom: no wait may hold up an event loop, or be one for itself (API decisions 1, 2)."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from bunri.errors import UsageError

if TYPE_CHECKING:
    from bunri.process.serving import MonitorSide

serving: contextvars.ContextVar[tuple[MonitorSide, ...]] = contextvars.ContextVar("bunri_serving", default=())
"""Workers that are blocked on the service whose code is running: none of them can answer a call."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """That of this thread, or None."""
    return asyncio._get_running_loop()


def refuse_on_loop(name: str) -> None:
    """Before a call of method `name` is waited for on this thread."""
    if running_loop() is not None:
        raise UsageError(
            f"calling {name} here would block the event loop, and with it every other session. "
            f"Write: await bunri.call(worker.{name}, ...)"
        )


def refuse_result_on_loop() -> None:
    """Before a Call's result is waited for on this thread."""
    if running_loop() is not None:
        raise UsageError("result() here would block the event loop. Write: await call")


def refuse_served(side: MonitorSide, name: str) -> None:
    """Before a call of method `name` goes to a worker that may be waiting for the very code that makes it."""
    if side in serving.get():
        raise UsageError(
            f"{side.who()} is blocked in the service call that this code answers: calling its {name} would wait for ever. "
            f"Return the answer first, or make the worker's call with bunri.call"
        )


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
