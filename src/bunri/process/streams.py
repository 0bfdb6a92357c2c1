"""Runs in: the monitor. The taking end of a stream that a worker gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from bunri.channel.conversation import Outgoing
from bunri.wire.frames import FrameKind

if TYPE_CHECKING:
    from bunri.process.serving import MonitorSide

_NO_MORE = object()


class _Taking:
    """The taking end of a stream, whoever waits for its items."""

    def __init__(self, side: MonitorSide, out: Outgoing) -> None:
        assert out.inflow is not None
        self._side = side
        self._out = out
        self._inflow = out.inflow

    def _take(self) -> Any:
        """The item that is there, with credit given back when it is due; `_NO_MORE` at the end."""
        flow = self._inflow
        if flow.items:
            with self._side.state:  # another thread may be putting the next one there
                item, credit = flow.take()
            if credit and not flow.ended:
                self._side.post(FrameKind.CREDIT, method=credit, call=self._out.number)
                self._side.flush()
            return item
        if flow.error is not None:
            raise flow.error
        return _NO_MORE

    def _want_no_more(self) -> None:
        if not self._inflow.ended and self._side.worker.is_ours and not self._side.worker.is_over:
            self._side.post(FrameKind.CLOSE, call=self._out.number)
            self._side.flush()
            self._inflow.ended = True


class Stream(_Taking, Iterator[Any]):
    """The items of a stream, read on the calling thread. It holds its worker until it is exhausted or closed."""

    def __next__(self) -> Any:
        flow = self._inflow
        if not flow.items and not flow.ended:
            self._side.drive_until(lambda: bool(flow.items) or flow.ended)
        item = self._take()
        if item is _NO_MORE:
            raise StopIteration
        return item

    def close(self) -> None:
        """Want no more. The worker closes its generator."""
        self._want_no_more()

    def __del__(self) -> None:
        self.close()


class AsyncStream(_Taking, AsyncIterator[Any]):
    """The items of a stream, read on the loop."""

    def __init__(self, side: MonitorSide, out: Outgoing) -> None:
        super().__init__(side, out)
        import asyncio  # who has a loop has it already

        assert side.loop is not None
        self._news = asyncio.Event()
        self._loop = side.loop
        self._inflow.wake = self._tell

    def _tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def __anext__(self) -> Any:
        flow = self._inflow
        while not flow.items and not flow.ended:
            self._news.clear()
            await self._news.wait()
        item = self._take()
        if item is _NO_MORE:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Want no more. The worker closes its generator."""
        self._want_no_more()
