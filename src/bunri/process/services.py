"""Runs in: the monitor. The services that one worker was handed: its calls of them, counted and capped.

A worker may call exactly the methods of the interface under which it was handed the object. Counters are taken before
a method's first await (THREATS 10). An `async def` method runs one at a time per object unless `limit(concurrent=)`
says otherwise; what is over that waits its turn.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from bunri.channel import faults
from bunri.channel.conversation import MOST_ASKED, cancel_task
from bunri.channel.handles import IncomingHandles, OutgoingHandles
from bunri.channel.link import close_all
from bunri.channel.streams import Outflow
from bunri.errors import Misbehaved, ProtocolError
from bunri.process import turns
from bunri.process.blocking import answering, running_loop
from bunri.process.output import Share
from bunri.service import Service
from bunri.wire import Contract, Kind, MethodContract
from bunri.wire.frames import BLOCKING, FrameKind, Message
from bunri.wire.tables import ObjectTable

if TYPE_CHECKING:
    import asyncio

    from bunri.process.serving import MonitorSide

log = logging.getLogger("bunri.service")

_TRACEBACK = 2000  # bytes, about
_SMALL = 1024  # bytes of arguments that are made into objects in no time


class _Request(msgspec.Struct, frozen=True):
    """One admitted call. What has to wait its turn waits as the bytes that came: as objects, a megabyte of small ones would be
    a hundred. Only handles are taken out at once (`args`, `source`), for their numbers may be released meanwhile."""

    message: Message
    method: MethodContract
    service: Service
    blobs: dict[int, bytes] | None
    size: int
    args: tuple[Any, ...] | None = None
    source: IncomingHandles | None = None

    @property
    def number(self) -> int:
        return self.message.call

    @property
    def key(self) -> tuple[int, int]:
        return self.message.obj, self.method.number

    @property
    def blocks(self) -> bool:
        return bool(self.message.flags & BLOCKING)

    def arguments(self) -> tuple[Any, ...]:
        """ProtocolError for anything that the method does not take."""
        if self.args is not None:
            return self.args
        args: tuple[Any, ...] = self.method.decode_arguments(self.message.body, None, self.blobs)
        return args

    def drop(self) -> None:
        """Nobody will serve it."""
        if self.source is not None:
            self.source.close_unclaimed()


class Services:
    """What one worker may call, and the calls of it that run."""

    def __init__(self, side: MonitorSide) -> None:
        self._side = side
        self._table = ObjectTable()
        self._running: dict[tuple[int, int], int] = {}
        self._queued: dict[tuple[int, int], deque[_Request]] = {}
        self._in_line: dict[int, _Request] = {}  # the same, by their numbers
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._runner: asyncio.Runner | None = None  # of a program without a loop
        self._running_own = threading.Lock()  # held while a thread is inside it
        self._is_inside = False  # the thread that serves is
        self._nested: deque[_Request] = deque()  # what came meanwhile
        self._closed = False
        self._held = 0  # bytes of the calls that run on the program's loop, or wait for their turn
        self._held_descriptors = 0  # that came with them
        self.admitted = 0  # calls in all
        self._share = Share()
        self._is_quiet = False

    @property
    def runs_here(self) -> bool:
        """Whether this thread is in a service, on the loop that a program without one has for that."""
        return self._is_inside and self._runner is not None and running_loop() is self._runner.get_loop()

    def sink(self) -> OutgoingHandles:
        return OutgoingHandles(self._hand_out, lambda number: self.release(number, 1))

    def source(self, descriptors: list[int]) -> IncomingHandles:
        return IncomingHandles(descriptors, self._original)

    def _hand_out(self, service: Service, contract: Contract) -> int:
        with self._side.state:  # calls are made on any thread
            return self._table.add(service, contract)

    def release(self, obj: int, count: int) -> None:
        with self._side.state:
            self._table.release(obj, count)

    def cancel(self, number: int) -> bool:
        """Whether there was anything to cancel."""
        task = self._tasks.get(number)
        if task is not None:
            if self._side.loop is None or task.cancelling():
                return False
            cancel_task(task, self._side.loop)
            return True
        request = self._in_line.pop(number, None)
        if request is None:
            return False
        queue = self._queued[request.key]
        queue.remove(request)
        if not queue:
            del self._queued[request.key]
        self._let_go(request)
        request.drop()
        self._side.post(FrameKind.ERROR, faults.cancelled(), call=number)
        return True

    def close(self) -> None:
        """The worker is over: whatever still runs for it is cancelled, and whatever waits is dropped, on its loop."""
        self._closed = True
        loop = self._side.loop
        if loop is not None and (self._tasks or self._queued) and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it was closed in this very moment
                loop.call_soon_threadsafe(self._drop_all)
        self._table = ObjectTable()  # what it was handed is nobody's any more
        self._close_own_loop()

    def _drop_all(self) -> None:
        for request in itertools.chain.from_iterable(self._queued.values()):
            request.drop()
        self._queued.clear()
        self._in_line.clear()
        for task in list(self._tasks.values()):
            task.cancel()

    def _close_own_loop(self) -> None:
        """Unless a thread is inside it: that one closes it when it comes out."""
        if self._runner is not None and self._running_own.acquire(blocking=False):
            try:
                self._runner.close()
            finally:
                self._running_own.release()

    # one call ------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Serve the calls that stand in the queue; on a loop, so many as take one turn (turns.py)."""
        side = self._side
        until = math.inf if side.loop is None else time.monotonic() + turns.LONGEST
        while side.waiting and not side.worker.is_over and (until is math.inf or time.monotonic() < until):
            message, descriptors = side.waiting.popleft()
            try:
                if not side.obeys(message):
                    self._serve(self._admit(message, descriptors))
            except ProtocolError as fault:
                side.broken(fault)
        side.flush()

    def _admit(self, message: Message, descriptors: list[int]) -> _Request:
        """Look at a call before anything of it runs. Its descriptors are closed where it is refused: here, or by the decoder, and
        never twice, for by then the number may be somebody else's."""
        try:
            service, method, size = self._called(message)
            blobs = self._side.blobs_of(message)
        except ProtocolError:
            close_all(descriptors)
            raise
        self.admitted += 1
        if not (descriptors or method.sends_handles):
            return _Request(message, method, service, blobs, size)
        source = self.source(descriptors)
        args = method.decode_arguments(message.body, source, blobs)
        return _Request(message, method, service, None, size, args, source)

    def _called(self, message: Message) -> tuple[Service, MethodContract, int]:
        service, contract = self._table.get(message.obj)
        if message.kind is not FrameKind.CALL or message.method >= len(contract.methods):
            raise ProtocolError(
                f"a call of method {message.method} of {contract.cls.__qualname__}, which has {len(contract.methods)}"
            )
        method = contract.methods[message.method]
        return service, method, self._count(service, method, message)

    def _count(self, service: Service, method: MethodContract, message: Message) -> int:
        """Take the call off the limits: its size in bytes."""
        if len(self._tasks) + len(self._nested) + sum(map(len, self._queued.values())) >= MOST_ASKED:
            raise ProtocolError(f"more than {MOST_ASKED} calls of services at one time")
        if message.call in self._side.outflows:
            # Without a loop of the program one is served inside the other, and nobody would ever end the stream of the outer.
            raise ProtocolError(f"two calls with number {message.call} at one time")
        size = len(message.body) + sum(blob.length for blob in message.blobs)
        if self._held:
            policy = self._side.worker.policy.settled()
            if self._held + size > policy.memory:
                raise ProtocolError(f"calls of services at one time with more bytes than its memory of {policy.memory}")
            if self._held_descriptors + message.descriptors > policy.open_files:
                raise ProtocolError(f"calls of services at one time with more than {policy.open_files} descriptors")
        limits = method.limits
        if limits is None:
            return size
        if limits.size is not None and size > limits.size:
            raise ProtocolError(f"a call of {method.name} with {size} bytes; its limit is {limits.size}")
        if limits.calls is not None:
            counts: dict[str, int] = vars(service).setdefault("_bunri_calls", {})
            counts[method.name] = counts.get(method.name, 0) + 1
            if counts[method.name] > limits.calls:
                raise ProtocolError(f"call {counts[method.name]} of {method.name}; its limit is {limits.calls}")
        return size

    def _serve(self, request: _Request) -> None:
        kind = request.method.kind
        if kind is Kind.PLAIN or (kind is Kind.STREAM and self._side.loop is None):
            self._run(request, request.arguments())
        elif self._side.loop is not None:
            self._queue(request)
        else:
            self._run_on_own_loop(request)

    def _run(self, request: _Request, args: tuple[Any, ...]) -> None:
        """A `def` method, here and now."""
        side = self._side
        with answering(side, request.blocks):
            try:
                method = request.method
                result = method.call(getattr(request.service, method.name), args)
                if method.kind is Kind.STREAM:
                    self._give(request, result)
                else:
                    self._answer(request, result)
            except Exception as fault:
                self._refuse(request, fault)

    def _run_on_own_loop(self, request: _Request) -> None:
        """An `async def` method, in a program that has no loop."""
        if self._is_inside:  # read by a stream that waits for credit, and served by it
            self._hold(request)
            self._nested.append(request)
            return
        with self._running_own:
            if self._closed:
                return
            if self._runner is None:
                import asyncio

                self._runner = asyncio.Runner()
            self._is_inside = True
            try:
                with answering(self._side, request.blocks):
                    self._runner.run(self._task_and_nested(request, request.arguments()))
            finally:
                self._is_inside = False
        if self._closed:
            self._close_own_loop()

    async def _task_and_nested(self, request: _Request, args: tuple[Any, ...]) -> None:
        import asyncio  # on whose loop this runs

        await self._task_alone(request, args)
        await self._serve_nested()
        this = asyncio.current_task()
        if this is not None and this.cancelling():  # by Ctrl-C: the method was stopped, and so is the program's call
            raise asyncio.CancelledError

    async def _task_alone(self, request: _Request, args: tuple[Any, ...]) -> None:
        self._enter(request)
        try:
            await self._task(request, args)
        finally:
            self._leave(request)

    def _next_nested(self) -> _Request | None:
        """The first whose turn it is: one that is inside itself is not."""
        return next(filter(self._may_begin, self._nested), None)

    async def _serve_nested(self) -> None:
        while (request := self._next_nested()) is not None:
            self._nested.remove(request)
            self._let_go(request)
            if self._closed or self._side.worker.is_over:
                request.drop()
                continue
            try:
                args = request.arguments()
            except ProtocolError as fault:
                self._side.broken(fault)
            else:
                await self._task_alone(request, args)

    def _queue(self, request: _Request) -> None:
        """An `async def` method, on the program's loop: now, or when those before it have ended."""
        self._hold(request)
        if request.key in self._queued or not self._may_begin(request):
            self._queued.setdefault(request.key, deque()).append(request)
            self._in_line[request.number] = request
        else:
            self._begin(request)

    def _may_begin(self, request: _Request) -> bool:
        limits = request.method.limits
        most = limits.concurrent if limits is not None and limits.concurrent is not None else 1
        return self._running.get(request.key, 0) < most

    def _enter(self, request: _Request) -> None:
        self._running[request.key] = self._running.get(request.key, 0) + 1

    def _leave(self, request: _Request) -> None:
        self._running[request.key] -= 1
        if not self._running[request.key]:
            del self._running[request.key]  # else every object that the worker ever had would leave something here

    def _hold(self, request: _Request) -> None:
        self._held += request.size
        self._held_descriptors += request.message.descriptors

    def _let_go(self, request: _Request) -> None:
        """It is neither held nor waited for any more."""
        self._held -= request.size
        self._held_descriptors -= request.message.descriptors

    def _begin(self, request: _Request) -> None:
        assert self._side.loop is not None
        if request.number in self._tasks:
            request.drop()
            raise ProtocolError(f"two calls with number {request.number} at one time")
        args = request.arguments()
        self._enter(request)
        self._tasks[request.number] = self._side.loop.create_task(self._task_in_turn(request, args))

    async def _task_in_turn(self, request: _Request, args: tuple[Any, ...]) -> None:
        try:
            await self._task(request, args)
        finally:
            self._let_go(request)
            self._tasks.pop(request.number, None)
            self._leave(request)
            self._begin_next(request.key)

    def _begin_next(self, key: tuple[int, int]) -> None:
        """The first of those that wait. What is large takes long to be made into objects, and stands in line for that."""
        if key not in self._queued:
            return
        if self._queued[key][0].size <= _SMALL:
            self._begin_first(key)
        else:
            assert self._side.loop is not None
            turns.wait_in_line(self._side.loop, lambda: self._begin_first(key))

    def _begin_first(self, key: tuple[int, int]) -> None:
        """None of a worker that is over: what it asked for, nobody wants any more."""
        if self._closed or self._side.worker.is_over or key not in self._queued:
            return
        if not self._may_begin(self._queued[key][0]):  # those that stood here before were cancelled meanwhile
            return
        request = self._queued[key].popleft()
        self._in_line.pop(request.number, None)
        if not self._queued[key]:
            del self._queued[key]
        try:
            self._begin(request)
        except ProtocolError as fault:
            self._side.broken(fault)

    async def _task(self, request: _Request, args: tuple[Any, ...]) -> None:
        import asyncio  # on whose loop this runs

        method = request.method
        try:
            with answering(self._side, request.blocks):
                result = method.call(getattr(request.service, method.name), args)
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
        if not self._closed:
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
        elif faults.is_cancelled(fault):
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
        import asyncio

        flow = self._side.outflows[request.number] = Outflow()
        news = asyncio.Event()
        flow.wake = news.set
        try:
            async for item in items:
                self._give_one(request, flow, item)
                self._side.flush()
                while not (flow.may_send or flow.closed):
                    if self._side.loop is None:
                        self._side.drive_until(lambda: flow.may_send or flow.closed or self._next_nested() is not None)
                        await self._serve_nested()
                        continue
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
