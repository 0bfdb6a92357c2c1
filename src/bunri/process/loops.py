"""Runs in: the monitor. Event loops that started workers: a loop that ends takes its workers along (API decision 7).

asyncio tells nobody that a loop is closed. But whatever runs a loop to its end (asyncio.run, uvloop, the servers) closes
first all asynchronous generators that were begun on it. So each loop with workers has one of ours, which waits for that.
A loop that somebody closes by hand is found closed by the next call, or by the next start on another loop.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

CLOSED: Final = "its event loop was closed"


class EndsWithLoop(Protocol):
    """A worker, or a pool."""

    def on_loop_closed(self) -> None:
        """The loop that started it has ended: end."""
        ...


class _Tied:
    """What ends with one loop."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[EndsWithLoop] = weakref.WeakSet()
        self._generator = self._wait_for_the_end()

    def begin(self) -> None:
        """On the loop, which takes note of it."""
        try:
            self._generator.asend(None).send(None)
        except StopIteration:
            return  # it has yielded, and waits

    def add(self, each: EndsWithLoop) -> None:
        self._all.add(each)

    def end(self) -> None:
        for each in list(self._all):
            each.on_loop_closed()

    async def _wait_for_the_end(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self.end()


_tied: dict[asyncio.AbstractEventLoop, _Tied] = {}


def tie(loop: asyncio.AbstractEventLoop, each: EndsWithLoop) -> None:
    """Let it end with the loop, which runs on this thread."""
    tied = _tied.get(loop)
    if tied is None:
        for other in [other for other in _tied if other.is_closed()]:
            _tied.pop(other).end()
        tied = _tied[loop] = _Tied()
        tied.begin()
    tied.add(each)
