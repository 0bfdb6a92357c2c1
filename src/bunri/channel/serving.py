"""Runs in: the worker. Its side of the conversation: the compartment's methods are served here, one thing at a time.

`def` methods run one by one in the order they came. `async def` methods run on the worker's loop, together. While the
worker waits for a service's answer in a blocking way it serves nothing: calls that come meanwhile stand in the queue,
which is bounded.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from bunri.channel import faults
from bunri.channel.arena import Arena
from bunri.channel.conversation import Conversation, cancel_task
from bunri.channel.handles import IncomingHandles, OutgoingHandles
from bunri.channel.link import Link, close_all
from bunri.channel.remote import Asking, RemoteService
from bunri.channel.streams import Outflow
from bunri.channel.target import make_stub, target_of
from bunri.errors import ProtocolError, UsageError
from bunri.kernel import rlimit
from bunri.policy.words import FEWEST_OPEN
from bunri.wire import Contract, Kind, MethodContract
from bunri.wire.bounds import HANDLES
from bunri.wire.frames import (
    HEADER_SIZE,
    LARGEST_PACKET,
    PLAIN_CALL,
    PLAIN_CALL_BLOCKING,
    PLAIN_REPLY,
    FrameKind,
    Message,
    pack_quick,
    quick_header,
)
from bunri.wire.handles import Sink, Source

if TYPE_CHECKING:
    import asyncio

_QUICK_BODY = 32 << 10  # bytes
_FLUSH_AFTER = 0.0005  # seconds: answers of quick calls share a packet, those of slow ones do not wait


class WorkerSide(Conversation):
    """The worker's end. It leaves when the monitor is gone: there is nobody to tell."""

    is_worker = True

    def __init__(
        self, link: Link, arena: Arena | None, contract: Contract, make: Callable[..., Any], *, bare: bool = False
    ) -> None:
        """`bare`: where a look at the clock is death, and with it any lock (mode 1): one thread needs neither."""
        super().__init__(link, arena)
        self._clock: Callable[[], float] = time.monotonic
        if bare:
            self._clock = float
            self.state = contextlib.nullcontext()
        self._contract = contract
        self._make = make
        self._object: Any = None
        self._bound: list[Any] = []  # its methods, by number
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stubs: dict[int, weakref.ref[Any]] = {}  # by number
        self._received: dict[int, int] = {}  # service number -> how often it came
        self._dropped: list[int] = []  # numbers whose stub the collector took
        self.asking = Asking(self)
        self._last_flush = 0.0
        self._thread = threading.get_ident()

    # the loops -----------------------------------------------------------------------------------------------------

    def run(self, loop: asyncio.AbstractEventLoop | None) -> NoReturn:
        """Serve until the monitor ends it."""
        self._loop = loop
        if loop is None:
            while True:
                packet, descriptors = self.link.receive()
                if not packet:
                    self.leave(0)
                served = 0 if descriptors or self._dropped or not self.is_quiet else self._serve_plain(packet)
                if served < len(packet):
                    self._feed_first(packet[served:], descriptors)
                    self.work()
                elif self.waiting:  # calls that came while one of these waited for a service
                    self.work()
        import asyncio  # all that is done with a loop is done where it was loaded before the fork

        asyncio.set_event_loop(loop)
        loop.add_reader(self.link.number, self._on_readable)
        loop.run_forever()
        self.leave(0)

    def leave(self, code: int) -> NoReturn:
        """The end of the worker."""
        os._exit(code)

    def _on_readable(self) -> None:
        self._have_turn(self.read_one)

    def _have_turn(self, begin: Callable[[], object]) -> None:
        """On the loop."""
        try:
            begin()
            self.work()
        except BaseException as fault:  # the loop would go on, without what was in the packet
            self.fail(fault)

    def fail(self, fault: BaseException) -> NoReturn:
        """What its own code raised is its end."""
        sys.excepthook(type(fault), fault, fault.__traceback__)
        self.leave(1)

    def _feed_first(self, packet: bytes, descriptors: list[int]) -> None:
        """Take the rest of a packet. Its calls came before those that stand in the queue already, read while one of its own
        waited for a service."""
        later = list(self.waiting)
        self.waiting.clear()
        self.feed(packet, descriptors)
        self.waiting.extend(later)

    def _serve_plain(self, packet: bytes) -> int:
        """Serve the plain calls with which a packet begins, past the queues: how many bytes of it that was.

        Answers of quick calls share a packet; those of slow ones do not wait. The first call that is not plain, or
        that leaves something in a queue, ends it: the rest goes the whole way, in its order."""
        methods, size, at = self._contract.methods, len(packet), 0
        answers = bytearray()
        begun = 0.0
        while at + HEADER_SIZE <= size:
            head, index, number, length = quick_header(packet, at)
            end = at + HEADER_SIZE + length
            if (head != PLAIN_CALL_BLOCKING and head != PLAIN_CALL) or index >= len(methods) or end > size:
                break
            method = methods[index]
            if not method.is_simple or length > _QUICK_BODY:
                break
            args = method.decode_arguments(packet[at + HEADER_SIZE : end], None, None)
            at = end
            try:
                result = self._bound[index](*args) if method.arity >= 0 else method.call(self._bound[index], args)
                answer, blobs = method.encode_result(result, None)
            except BaseException as fault:
                self._send_answers(answers)
                self._refuse(number, method, fault)
                self.flush()
                return at
            if blobs or len(answer) > _QUICK_BODY or self._dropped or not self.is_quiet:
                self._send_answers(answers)
                self.post(FrameKind.REPLY, answer, call=number, blobs=blobs)
                self.flush()
                return at
            answers += pack_quick(PLAIN_REPLY, 0, number, len(answer))
            answers += answer
            if at < size:
                now = self._clock()
                begun = begun or now
                if now - begun > _FLUSH_AFTER or len(answers) > LARGEST_PACKET - _QUICK_BODY - HEADER_SIZE:
                    self._send_answers(answers)
                    begun = now
        self._send_answers(answers)
        return at

    def _send_answers(self, answers: bytearray) -> None:
        if answers:
            self.link.send(answers)
            answers.clear()

    def read_one(self) -> None:
        """Wait for one packet and take it."""
        packet, descriptors = self.link.receive()
        if not packet:
            self.leave(0)
        self.feed(packet, descriptors)

    def work(self) -> None:
        """Serve the calls that stand in the queue."""
        while self.waiting:
            message, descriptors = self.waiting.popleft()
            self._serve(message, descriptors)
            now = self._clock()
            if now - self._last_flush > _FLUSH_AFTER:
                self._last_flush = now
                self.flush()
        self.flush()

    def work_soon(self) -> None:
        """A task has waited for a service in a blocking way, and calls may have come meanwhile: the loop sees nothing of them."""
        if self._loop is not None and self.waiting:
            self._loop.call_soon(self._have_turn, self.flush)

    # serving -------------------------------------------------------------------------------------------------------

    def _serve(self, message: Message, descriptors: list[int]) -> None:
        if message.kind is FrameKind.START:
            self._start(message, descriptors)
            return
        if self.obeys(message):
            return
        if message.obj or message.method >= len(self._contract.methods):
            close_all(descriptors)
            raise ProtocolError(f"a call of method {message.method} of object {message.obj}")
        method = self._contract.methods[message.method]
        try:
            args = method.decode_arguments(message.body, self.source(descriptors), self.blobs_of(message))
            result = method.call(self._bound[method.number], args)
            if method.kind is Kind.PLAIN:
                self._answer(message.call, method, result)
            elif method.kind is Kind.STREAM:
                self._give(message.call, method, result)
            else:
                self._begin_task(message.call, method, result)
        except ProtocolError:
            raise
        except BaseException as fault:
            self._refuse(message.call, method, fault)

    def _start(self, message: Message, descriptors: list[int]) -> None:
        init = self._contract.init
        try:
            args = init.decode_arguments(message.body, self.source(descriptors), self.blobs_of(message))
            self._object = init.call(self._make, args)
            self._bound = [getattr(self._object, method.name) for method in self._contract.methods]
            self._answer(message.call, init, None)
        except ProtocolError:
            raise
        except BaseException as fault:
            self._refuse(message.call, init, fault)
            self.flush()
            self.leave(1)

    def _answer(self, call: int, method: MethodContract, value: Any) -> None:
        sink = self.sink() if method.returns_handles else None
        body, blobs = method.encode_result(value, sink)
        if sink is not None:
            sink.move()
        self.post(FrameKind.REPLY, body, call=call, sink=sink, blobs=blobs)

    def _refuse(self, call: int, method: MethodContract, fault: BaseException) -> None:
        declared = method.encode_exception(fault)
        if declared is not None:
            self.post(FrameKind.RAISED, declared, call=call)
        elif faults.is_cancelled(fault):
            self.post(FrameKind.ERROR, faults.cancelled(), call=call)
        else:
            self.post(FrameKind.ERROR, faults.describe(fault), call=call)

    # streams -------------------------------------------------------------------------------------------------------

    def _give(self, call: int, method: MethodContract, items: Iterator[Any]) -> None:
        flow = self.outflows[call] = Outflow()
        for message, _ in self.waiting:  # it may have been left already; what comes from now on is read below
            if message.kind is FrameKind.CLOSE and message.call == call:
                flow.close()
        try:
            for item in items if not flow.closed else ():
                self._give_one(call, method, flow, item)
                self.flush()  # the next item may take long to come
                while not (flow.may_send or flow.closed):
                    self.read_one()
                if flow.closed:
                    break
        finally:
            del self.outflows[call]
            close = getattr(items, "close", None)
            if close is not None:
                close()
        self.post(FrameKind.END, call=call)

    def _give_one(self, call: int, method: MethodContract, flow: Outflow, item: Any) -> None:
        sink = self.sink() if method.returns_handles else None
        body, blobs = method.encode_item(item, sink)
        if sink is not None:
            sink.move()
        self.post(FrameKind.ITEM, body, call=call, sink=sink, blobs=blobs)
        flow.sent(len(body) + sum(len(data) for _, data in blobs))

    async def _give_async(self, call: int, method: MethodContract, items: AsyncIterator[Any]) -> None:
        flow = self.outflows[call] = Outflow()
        import asyncio

        news = asyncio.Event()
        flow.wake = news.set
        try:
            async for item in items:
                self._give_one(call, method, flow, item)
                self.flush()
                while not (flow.may_send or flow.closed):
                    news.clear()
                    await news.wait()
                if flow.closed:
                    break
        finally:
            del self.outflows[call]
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
        self.post(FrameKind.END, call=call)

    # tasks ---------------------------------------------------------------------------------------------------------

    def _begin_task(self, call: int, method: MethodContract, result: Any) -> None:
        assert self._loop is not None
        self._tasks[call] = self._loop.create_task(self._run_task(call, method, result))

    async def _run_task(self, call: int, method: MethodContract, result: Any) -> None:
        try:
            if method.kind is Kind.ASYNC_STREAM:
                await self._give_async(call, method, result)
            else:
                self._answer(call, method, await result)
        except BaseException as fault:
            self._refuse(call, method, fault)
        finally:
            del self._tasks[call]
        self.flush()

    def cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None and self._loop is not None:
            cancel_task(task, self._loop)

    def most_under_way(self) -> int:
        """How many descriptors may be with calls of services that are not answered: the monitor takes as many as the worker may
        have, and some come with answers."""
        return max(FEWEST_OPEN, rlimit.get("NOFILE")[0] - HANDLES)

    def refuse_other_threads(self) -> None:
        """UsageError where another thread than that which serves would call a service."""
        if threading.get_ident() != self._thread:
            raise UsageError(
                "a thread of a worker cannot call a service: hand the work to the main thread, which makes the call"
            )

    # handles -------------------------------------------------------------------------------------------------------

    def sink(self) -> Sink:
        return OutgoingHandles(self._original)

    def source(self, descriptors: list[int]) -> Source:
        return IncomingHandles(descriptors, self.service, trusted=True)

    def _original(self, stub: object, interface: Contract) -> int:
        """The number of a service's stub that is sent home."""
        target = target_of(stub)
        if not isinstance(target, RemoteService) or target.side is not self:
            raise UsageError(
                "a worker has no services of its own to hand out: only a stub that it was handed can be sent home"
            )
        return target.number

    def service(self, number: int, interface: Contract) -> Any:
        """The stub of a service that the monitor has sent, the same for the same number."""
        stub = self.stub_of(number)
        if stub is None:
            remote = RemoteService(self, number)
            made: Any = make_stub
            stub = made(interface.cls, interface, remote)
            self._stubs[number] = weakref.ref(stub, lambda _: self._dropped.append(number))
        self._received[number] = self._received.get(number, 0) + 1
        return stub

    def stub_of(self, number: int) -> Any:
        """The stub whose service has this number, while anybody has it."""
        known = self._stubs.get(number)
        return known() if known is not None else None

    def _release_dropped(self) -> None:
        while self._dropped:
            number = self._dropped.pop()
            known = self._stubs.get(number)
            if known is not None and known() is None:  # and not handed in anew meanwhile
                del self._stubs[number]
                self.post(FrameKind.RELEASE, obj=number, call=self._received.pop(number, 0))

    def push(self, packet: bytes | bytearray, descriptors: Sequence[int]) -> bool:
        self.link.send(packet, descriptors)
        return True

    def flush(self) -> bool:
        if self._dropped:
            self._release_dropped()
        return super().flush()

    def _end(self, message: Message, value: Any, error: BaseException | None) -> None:
        out = self.pending[message.call]
        super()._end(message, value, error)
        self.asking.answered(out)

    def end_all(self, error: BaseException) -> None:
        super().end_all(error)
        self.asking.end_all(error)

    def release(self, obj: int, count: int) -> None:
        raise ProtocolError("the monitor holds no objects of a worker")

    def control(self, message: Message) -> None:
        raise ProtocolError(f"a {message.kind.name} message to a worker")

    def who(self) -> str:
        return "the monitor"
