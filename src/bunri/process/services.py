"""Runs in: the monitor. The services that one worker was handed: its calls of them, counted and capped.

A worker may call exactly the methods of the interface under which it was handed the object. Counters are taken before
a method's first await (THREATS 10). An `async def` method runs one at a time per object unless `limit(concurrent=)`
says otherwise; what is over that waits its turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bunri.channel import faults
from bunri.channel.handles import IncomingHandles, OutgoingHandles
from bunri.channel.link import close_all
from bunri.channel.streams import Outflow
from bunri.errors import Misbehaved, ProtocolError
from bunri.process.blocking import answering
from bunri.process.output import Share
from bunri.service import Service
from bunri.wire import Contract, Kind, MethodContract
from bunri.wire.frames import BLOCKING, FrameKind, Message
from bunri.wire.tables import ObjectTable

if TYPE_CHECKING:
    from bunri.process.serving import MonitorSide

log = logging.getLogger("bunri.service")

_TRACEBACK = 2000  # bytes, about
MOST_TASKS = 256  # service calls of one worker that run or wait at one time


@dataclass(frozen=True)
class _Request:
    """One admitted call."""

    number: int
    obj: int
    method: MethodContract
    service: Service
    args: tuple[Any, ...]
    blocks: bool


class Services:
    """What one worker may call, and the calls of it that run."""

    def __init__(self, side: MonitorSide) -> None:
        self._side = side
        self._table = ObjectTable()
        self._running: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._queued: defaultdict[tuple[int, int], deque[_Request]] = defaultdict(deque)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._runner: asyncio.Runner | None = None  # of a program without a loop
        self._running_own = threading.Lock()  # held while a thread is inside it
        self._closed = False
        self._share = Share()
        self._is_quiet = False

    def sink(self) -> OutgoingHandles:
        return OutgoingHandles(self._table.add, lambda number: self._table.release(number, 1))

    def source(self, descriptors: list[int]) -> IncomingHandles:
        return IncomingHandles(descriptors, self._original)

    def release(self, obj: int, count: int) -> None:
        self._table.release(obj, count)

    def cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """The worker is over: whatever still runs for it is cancelled, on its loop."""
        loop = self._side.loop
        if loop is not None and self._tasks and not loop.is_closed():
            for task in list(self._tasks.values()):
                loop.call_soon_threadsafe(task.cancel)
        self._closed = True
        self._table = ObjectTable()  # what it was handed is nobody's any more
        self._close_own_loop()

    def _close_own_loop(self) -> None:
        """Unless a thread is inside it: that one closes it when it comes out."""
        if self._runner is not None and self._running_own.acquire(blocking=False):
            try:
                self._runner.close()
            finally:
                self._running_own.release()

    # one call ------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Serve the calls that stand in the queue."""
        side = self._side
        while side.waiting and not side.worker.is_over:
            message, descriptors = side.waiting.popleft()
            try:
                self._serve(self._admit(message, descriptors))
            except ProtocolError as fault:
                side.broken(fault)
        side.flush()

    def _admit(self, message: Message, descriptors: list[int]) -> _Request:
        """Look at a call before anything of it runs. Its descriptors are closed where it is refused: here, or by the decoder, and
        never twice, for by then the number may be somebody else's."""
        try:
            service, method = self._called(message)
            blobs = self._side.blobs_of(message)
        except ProtocolError:
            close_all(descriptors)
            raise
        args = method.decode_arguments(message.body, self.source(descriptors), blobs)
        return _Request(message.call, message.obj, method, service, args, bool(message.flags & BLOCKING))

    def _called(self, message: Message) -> tuple[Service, MethodContract]:
        service, contract = self._table.get(message.obj)
        if message.kind is not FrameKind.CALL or message.method >= len(contract.methods):
            raise ProtocolError(
                f"a call of method {message.method} of {contract.cls.__qualname__}, which has {len(contract.methods)}"
            )
        method = contract.methods[message.method]
        self._count(service, method, message)
        return service, method

    def _count(self, service: Service, method: MethodContract, message: Message) -> None:
        if len(self._tasks) + sum(map(len, self._queued.values())) >= MOST_TASKS:
            raise ProtocolError(f"more than {MOST_TASKS} calls of services at one time")
        limits = method.limits
        if limits is None:
            return
        size = len(message.body) + sum(blob.length for blob in message.blobs)
        if limits.size is not None and size > limits.size:
            raise ProtocolError(f"a call of {method.name} with {size} bytes; its limit is {limits.size}")
        if limits.calls is not None:
            counts: dict[str, int] = vars(service).setdefault("_bunri_calls", {})
            counts[method.name] = counts.get(method.name, 0) + 1
            if counts[method.name] > limits.calls:
                raise ProtocolError(f"call {counts[method.name]} of {method.name}; its limit is {limits.calls}")

    def _serve(self, request: _Request) -> None:
        kind = request.method.kind
        if kind is Kind.PLAIN or (kind is Kind.STREAM and self._side.loop is None):
            self._run(request)
        elif self._side.loop is not None:
            self._queue(request)
        else:
            self._run_on_own_loop(request)

    def _run(self, request: _Request) -> None:
        """A `def` method, here and now."""
        side = self._side
        with answering(side, request.blocks):
            try:
                method = request.method
                result = getattr(request.service, method.name)(
                    *method.positional(request.args), **method.keywords(request.args)
                )
                if method.kind is Kind.STREAM:
                    self._give(request, result)
                else:
                    self._answer(request, result)
            except Exception as fault:
                self._refuse(request, fault)

    def _run_on_own_loop(self, request: _Request) -> None:
        """An `async def` method, in a program that has no loop."""
        with self._running_own:
            if self._closed:
                return
            if self._runner is None:
                self._runner = asyncio.Runner()
            with answering(self._side, request.blocks):
                self._runner.run(self._task(request))
        if self._closed:
            self._close_own_loop()

    def _queue(self, request: _Request) -> None:
        key = (request.obj, request.method.number)
        limits = request.method.limits
        most = limits.concurrent if limits is not None and limits.concurrent is not None else 1
        if self._running[key] >= most:
            self._queued[key].append(request)
            return
        self._running[key] += 1
        assert self._side.loop is not None
        task = self._side.loop.create_task(self._task(request, key))
        self._tasks[request.number] = task

    async def _task(self, request: _Request, key: tuple[int, int] | None = None) -> None:
        method = request.method
        try:
            with answering(self._side, request.blocks):
                result = getattr(request.service, method.name)(
                    *method.positional(request.args), **method.keywords(request.args)
                )
                if method.kind is Kind.ASYNC:
                    self._answer(request, await result)
                elif method.kind is Kind.ASYNC_STREAM:
                    await self._give_async(request, result)
                else:
                    await self._give_async(request, _as_async(result))
        except asyncio.CancelledError as fault:
            self._refuse(request, fault)
        except Exception as fault:
            self._refuse(request, fault)
        finally:
            self._tasks.pop(request.number, None)
            if key is not None:
                self._running[key] -= 1
                if self._queued[key]:
                    self._queue(self._queued[key].popleft())
        self._side.flush()

    # answers -------------------------------------------------------------------------------------------------------

    def _answer(self, request: _Request, value: Any) -> None:
        sink = self.sink() if request.method.returns_handles else None
        body, blobs = request.method.encode_result(value, sink)
        if sink is not None:
            sink.move()
        self._side.post(FrameKind.REPLY, body, call=request.number, sink=sink, blobs=blobs)

    def _refuse(self, request: _Request, fault: BaseException) -> None:
        side, method = self._side, request.method
        if isinstance(fault, Misbehaved):
            side.broken(ProtocolError(f"{method.name}: {fault}"))
            return
        declared = method.encode_exception(fault)
        if declared is not None:
            side.post(FrameKind.RAISED, declared, call=request.number)
        elif isinstance(fault, asyncio.CancelledError):
            side.post(FrameKind.ERROR, faults.cancelled(), call=request.number)
        else:
            reference = os.urandom(4).hex()
            name = f"{type(request.service).__qualname__}.{method.name}"
            self._tell(name, reference, fault)
            side.post(FrameKind.ERROR, faults.refused(reference), call=request.number)

    def _tell(self, name: str, reference: str, fault: BaseException) -> None:
        """A worker may make a service fail as often as it likes: that fills no disk."""
        if self._share.takes(_TRACEBACK):
            self._is_quiet = False
            log.error("%s failed for %s (reference %s)", name, self._side.who(), reference, exc_info=fault)
        elif not self._is_quiet:
            self._is_quiet = True
            log.error("services fail for %s again and again: that is not logged each time", self._side.who())

    def _give_one(self, request: _Request, flow: Outflow, item: Any) -> None:
        sink = self.sink() if request.method.returns_handles else None
        body, blobs = request.method.encode_item(item, sink)
        if sink is not None:
            sink.move()
        self._side.post(FrameKind.ITEM, body, call=request.number, sink=sink, blobs=blobs)
        flow.sent(len(body) + sum(len(data) for _, data in blobs))

    def _give(self, request: _Request, items: Iterator[Any]) -> None:
        flow = self._side.outflows[request.number] = Outflow()
        try:
            for item in items:
                self._give_one(request, flow, item)
                if not flow.may_send:
                    self._side.flush()
                    self._side.drive_until(lambda: flow.may_send or flow.closed)
                if flow.closed:
                    break
        finally:
            self._side.outflows.pop(request.number, None)
        self._side.post(FrameKind.END, call=request.number)

    async def _give_async(self, request: _Request, items: AsyncIterator[Any]) -> None:
        flow = self._side.outflows[request.number] = Outflow()
        news = asyncio.Event()
        flow.wake = news.set
        try:
            async for item in items:
                self._give_one(request, flow, item)
                self._side.flush()
                while not (flow.may_send or flow.closed):
                    if self._side.loop is None:
                        self._side.drive_until(lambda: flow.may_send or flow.closed)
                        break
                    news.clear()
                    await news.wait()
                if flow.closed:
                    break
        finally:
            self._side.outflows.pop(request.number, None)
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
        self._side.post(FrameKind.END, call=request.number)

    def _original(self, number: int, contract: Contract) -> Service:
        """A stub that the worker sends home is the object it stands for; any other number is a ProtocolError."""
        service, known = self._table.get(number)
        if not issubclass(known.cls, contract.cls) or not isinstance(service, Service):
            raise ProtocolError(f"object {number} is no {contract.cls.__qualname__}")
        return service


async def _as_async(items: Iterator[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item
