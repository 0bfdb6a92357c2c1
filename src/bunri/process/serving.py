"""Runs in: the monitor. Its side of one worker's conversation: calls into the worker, and services that the worker
was handed.

Who reads the channel, and on which thread, stands in reading.py.

Everything that comes from the worker is hostile. A ProtocolError, a limit that is exceeded, a service that raises
Misbehaved: the worker is killed, with that as the cause, and every call in it fails. What is decided is decided from
what stands here.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bunri.calls import Call, current_deadline, refuse_if_past
from bunri.channel import faults
from bunri.channel.arena import Arena
from bunri.channel.conversation import Blocks, Encoded, Outgoing
from bunri.channel.link import Link, close_all
from bunri.errors import BunriError, DeadlineExceeded, ProtocolError, UsageError
from bunri.process import here
from bunri.process.blocking import refuse_on_loop, refuse_result_on_loop, refuse_served, running_loop, serving
from bunri.process.reading import MonitorEnd
from bunri.process.services import Services
from bunri.process.streams import AsyncStream, Stream
from bunri.process.worker import LISTENER
from bunri.wire import Kind, MethodContract
from bunri.wire.frames import (
    AT_CHECKPOINT,
    HEADER_SIZE,
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

    from bunri.process.behind import Behind

DEFAULT_DEADLINE = 60.0  # seconds, of a `def` call into a worker (THREATS 23)
CANCEL_GRACE = 1.0  # seconds in which an `async def` method may obey its cancellation
WINDOW = 1024  # calls on the wire; further ones wait here
_OTHERS = 16  # descriptors of a worker, at the most, that are no handles under way: of its channel, output, loop
_SENT_AT_ONCE = 8
_QUICK_BODY = 32 << 10  # bytes
_SHARED = 1024  # bytes of small calls that share a packet before it goes out
STALE, STALE_FOR_EACH = 64, 20  # messages about what is over: in all, and for each call that it has made
MOST_UNREAD = 4096  # packets that a worker leaves unread before it is ended


class _Submitted:
    """A call that has not gone out yet."""

    __slots__ = ("args", "call", "encoded", "method", "obj", "until")

    def __init__(
        self, obj: int, method: MethodContract, args: tuple[Any, ...], call: Call[Any], until: float | None
    ) -> None:
        self.obj, self.method, self.args = obj, method, args
        self.call = call
        self.until = until
        self.encoded: Encoded | None = None  # where it was already

    @property
    def handles(self) -> int:
        """How many go with it, once it is encoded."""
        sink = self.encoded[2] if self.encoded is not None else None
        return len(sink.descriptors) if sink is not None else 0

    def end(self, error: BaseException | None) -> None:
        """It does not go out."""
        if self.encoded is not None and self.encoded[2] is not None:
            self.encoded[2].close()
        self.call.finish(None, error)


class MonitorSide(MonitorEnd):
    """The monitor's end of one worker's channel."""

    def __init__(self, link: Link, arena: Arena | None, worker: Behind, loop: asyncio.AbstractEventLoop | None) -> None:
        super().__init__(link, arena, worker, loop)
        self.services = Services(self)
        self.watched = False
        self._later: deque[_Submitted] = deque()  # beyond the window
        self._crowded: deque[_Submitted] = deque()  # those for whose handles there is no room
        self._over: BaseException | None = None
        self._plainly = False  # open, not over, and without a loop: a plain call may take the short way
        self._forks = here.forks
        self._stale = 0

    # calls ---------------------------------------------------------------------------------------------------------

    def invoke(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the compartment and wait on this thread."""
        if kwargs or len(args) != method.arity:
            args = method.bind(args, kwargs)
        # The short way, where nothing but this one call is under way: write, read, done. All checks are those of the whole
        # way; what does not fit is left to it. The clocks are kept by the supervisor's tick, which sees `pending`.
        if (
            self._plainly
            and method.is_simple
            and running_loop() is None
            and not serving.get()
            and self._forks == here.forks
            and self._turn.acquire(False)
        ):
            try:
                if not (self.pending or self._background or self._batch or self._outbox or self.waiting or self._freed
                        or self._reader.parts):  # fmt: skip
                    return self._invoke_plain(method, args)
            finally:
                self._turn.release()
        self._refuse_blocking(method)
        if self.loop is not None:
            return self.submit(0, method, args).result()
        refuse_if_past()
        with self._turn:
            return self._invoke_whole(method, args)

    def _invoke_whole(self, method: MethodContract, args: tuple[Any, ...]) -> Any:
        """With the turn held."""
        out = self.begin(0, method, args, blocks=Blocks.YES)
        self._time(out)
        self.drive(out)
        return out.outcome()

    def _invoke_plain(self, method: MethodContract, args: tuple[Any, ...]) -> Any:
        """With the turn held, and nothing queued in either direction."""
        until = current_deadline()
        if until is not None:
            refuse_if_past()
        body, blobs = method.encode_arguments(args, None)
        if blobs or len(body) > _QUICK_BODY:
            return self._invoke_whole(method, args)
        number = next(self._numbers)
        out = Outgoing(number, method)
        out.until = until
        self.pending[number] = out
        try:
            # It may have ended since: `end_with` says so first, and clears `pending` then.
            if self._over is not None:
                raise self._over
            if not self.watched:
                self.watch()
            packet = pack_quick(PLAIN_CALL_BLOCKING, method.number, number, len(body)) + body
            if not self.push(packet, ()):
                self._outbox.append((packet, ()))
            elif not self._outbox:
                packet, descriptors = self.link.receive()
                if (
                    len(packet) >= HEADER_SIZE
                    and quick_header(packet) == (PLAIN_REPLY, 0, number, len(packet) - HEADER_SIZE)
                    and not (descriptors or out.done)
                ):
                    value = method.decode_result(packet[HEADER_SIZE:], None, None)
                    del self.pending[number]
                    return value
                self.take(packet, descriptors)
        except (ProtocolError, ConnectionError) as fault:
            self.broken(fault)
        except BaseException:
            self.stop(out)
            self.pending.pop(number, None)
            raise
        self.drive(out)
        return out.outcome()

    def submit(self, obj: int, method: MethodContract, args: tuple[Any, ...]) -> Call[Any]:
        """Call, and do not wait."""
        refuse_if_past()
        self._refuse_served(method)
        call: Call[Any] = Call()
        if self.loop is None:
            # Whoever waits in result() reads; for anybody else the supervisor does, and after a tick in any case.
            call.attach(drive=self.drive_call, observed=self.read_soon)
        else:
            self._refuse_other_loop()
            call.attach(drive=refuse_result_on_loop)
        one = _Submitted(obj, method, args, call, self._until(method))
        if method.sends_handles and method.kind.is_async:
            self._begin_with_handles(one)
        else:
            self._begin_later(one)
        return call

    def iterate(self, obj: int, method: MethodContract, args: tuple[Any, ...]) -> Stream:
        """Start a stream that is read on this thread."""
        self._refuse_blocking(method)
        if self.loop is not None:
            raise UsageError(
                f"{self.who()} was started on an event loop: declare {method.name} as AsyncIterator to stream from it there"
            )
        return Stream(self, self._begin_stream(obj, method, args))

    def iterate_async(self, obj: int, method: MethodContract, args: tuple[Any, ...]) -> AsyncStream:
        """Start a stream that is read on the running loop."""
        self._refuse_served(method)
        if self.loop is not None:
            self._refuse_other_loop()
        if self.loop is None or running_loop() is not self.loop:
            raise UsageError(
                f"{method.name} streams on the event loop that started {self.who()}. Start the worker there"
            )
        return AsyncStream(self, self._begin_stream(obj, method, args))

    def _begin_stream(self, obj: int, method: MethodContract, args: tuple[Any, ...]) -> Outgoing:
        refuse_if_past()
        out = self.begin(obj, method, args)
        self._time(out)
        self.flush()
        return out

    def _begin_later(self, one: _Submitted) -> None:
        with self.state:
            if self._later or (self._over is None and len(self.pending) >= WINDOW):
                self._wait(self._later, one)
            else:
                self._begin_now(one)

    def _begin_with_handles(self, one: _Submitted) -> None:
        """An `async def` method holds what it was handed until it answers, and a worker no more than its `open_files`:
        what goes beyond that waits here, and other calls pass it by."""
        try:
            one.encoded = self.encoded(one.method, one.args)
        except BunriError as fault:
            one.end(fault)
            return
        with self.state:
            self._wait(self._crowded, one)
            self._begin_crowded()

    def _wait(self, queue: deque[_Submitted], one: _Submitted) -> None:
        one.call.attach(stop=lambda: self._no_longer(one, None))
        queue.append(one)
        self.watch()

    def _no_longer(self, one: _Submitted, error: BaseException | None) -> None:
        """It was cancelled before it went out, or is too late."""
        with self.state:
            for queue in (self._later, self._crowded):
                if one in queue:
                    queue.remove(one)
                    one.end(error)

    def _begin_crowded(self) -> None:
        """With `state` held: in their order, as far as there is room; once it is over they hear it."""
        while self._crowded and (self._over is not None or self._has_room_for(self._crowded[0].handles)):
            self._begin_now(self._crowded.popleft())

    def _has_room_for(self, handles: int) -> bool:
        most = self.worker.policy.open_files
        assert isinstance(most, int)  # it was started
        under_way = sum(out.handles for out in self.pending.values())
        return not under_way or under_way + handles <= most - _OTHERS

    def _begin_now(self, one: _Submitted) -> None:
        with self.state:
            try:
                out = self.begin(one.obj, one.method, one.args, call=one.call, encoded=one.encoded)
            except (BunriError, OSError) as fault:  # no room for copies of its files
                one.end(fault)
                return
            one.call.attach(stop=lambda: self.stop(out))
            out.until = one.until
            if not self.watched:
                self.watch()
            # Beyond a few, calls share packets: they go out when the packet is worth it, with the next answer, or the next tick.
            if len(self.pending) <= _SENT_AT_ONCE or len(self._batch) > _SHARED or self.loop is not None:
                self.flush()

    def _refuse_blocking(self, method: MethodContract) -> None:
        refuse_on_loop(method.name)
        self._refuse_served(method)

    def _refuse_served(self, method: MethodContract) -> None:
        if self._forks != here.forks:
            self.worker.refuse_fork()
        refuse_served(self, method.name)

    def _refuse_other_loop(self) -> None:
        """Its own loop reads for it; a thread without one may call, and waits until that has."""
        assert self.loop is not None
        if running_loop() is self.loop:
            return
        if self.loop.is_closed():
            self.worker.on_loop_closed()
            raise self.worker.death()
        if running_loop() is not None:
            raise UsageError(f"{self.who()} was started on another event loop. Start a worker on the loop that uses it")

    def begin(
        self,
        obj: int,
        method: MethodContract,
        args: tuple[Any, ...],
        *,
        blocks: Blocks = Blocks.NO,
        call: Call[Any] | None = None,
        kind: FrameKind = FrameKind.CALL,
        encoded: Encoded | None = None,
    ) -> Outgoing:
        with self.state:
            if self._over is not None:
                raise self._over
            return super().begin(obj, method, args, blocks=blocks, call=call, kind=kind, encoded=encoded)

    def belongs_to(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Of a spare, which had no loop: who reads it from now on."""
        self.end_background()
        self.loop = loop
        self._plainly = self.open and loop is None

    def let_on(self) -> None:
        """It may go on from its checkpoint: the one packet that a worker gets before it is open. It has room for it."""
        self.link.send(b"g")

    def let_through(self) -> None:
        """The worker was looked at, and is what the plan says."""
        self.open = True
        self._plainly = self.loop is None
        self.flush()

    def end_with(self, error: BaseException) -> None:
        """The worker is reaped: every call that waits gets the error, and every call to come."""
        self._plainly = False
        with self.state:
            self._over = error
            later, self._later = self._later, deque()
            self._begin_crowded()
        self.end_all(error)
        for one in later:
            self._begin_now(one)

    # time ----------------------------------------------------------------------------------------------------------

    def _until(self, method: MethodContract) -> float | None:
        around = current_deadline()
        if around is not None or method.kind is not Kind.PLAIN or not self.worker.hurried:
            return around
        return time.monotonic() + DEFAULT_DEADLINE

    def _time(self, out: Outgoing) -> None:
        out.until = self._until(out.method)
        if not self.watched:
            self.watch()

    def watch(self) -> None:
        if not self.watched:
            self.watched = True
            self.worker.program.supervisor.watch(self)

    def tick(self, now: float) -> bool:
        """Look at the clocks of the calls in flight, on the supervisor's thread."""
        with self.state:
            outs = list(self.pending.values())
            waiting = [*self._later, *self._crowded]
        for one in waiting:
            if one.until is not None and now >= one.until:
                late = f"{self.who()} had not begun {one.method.name} when its deadline passed"
                self._no_longer(one, DeadlineExceeded(late))
        if self.loop is None and outs:
            if self.open and self.has_unsent:
                self.flush()
            self.read_if_nobody_does()
        for out in outs:
            if out.begun is None:
                out.begun, out.cpu = now, self.worker.cpu_clock()
                if (
                    out.until is None and out.method.kind is Kind.PLAIN and self.worker.hurried
                ):  # of the short way, which asks no clock
                    out.until = now + DEFAULT_DEADLINE
            if out.until is not None and now >= out.until:
                self._expire(out, now)
                continue
            self.worker.check_budget(out, now)
        return bool(waiting) or any(map(self._is_timed, outs))

    def _is_timed(self, out: Outgoing) -> bool:
        """Whether a call must be looked at again. One that no clock ends may last for hours: a new one, or a new budget,
        asks for looks again."""
        if self.loop is None or not self.open or self.worker.has_budget:
            return True
        return out.until is not None and out.until < math.inf

    def _expire(self, out: Outgoing, now: float) -> None:
        name = out.method.name
        ended = out.done
        out.end(
            None,
            DeadlineExceeded(f"{self.who()} had not answered {name} when its deadline passed; the work was stopped"),
        )
        if ended or not out.method.kind.is_async:
            self.worker.kill(f"{name} was over its deadline")
            return
        self._cancel_there(out, now)

    def stop(self, out: Outgoing) -> None:
        """The caller no longer wants the answer: stop the work (API decision 7)."""
        if out.number not in self.pending:
            return
        if not out.method.kind.is_async:
            self.worker.kill(f"{out.method.name} was cancelled")
        else:
            self._cancel_there(out, time.monotonic())

    def _cancel_there(self, out: Outgoing, now: float) -> None:
        with self.state:
            out.done = True
            out.until = now + CANCEL_GRACE
            self.post(FrameKind.CANCEL, call=out.number)
            self.watch()
        self.flush()

    # what comes ---------------------------------------------------------------------------------------------------

    def drive(self, out: Outgoing) -> None:
        """Read on this thread until the call has its answer. Ctrl-C stops the work."""
        try:
            self.drive_until(lambda: out.done)
        except BaseException:
            self.stop(out)
            raise

    def _take_plain(self, packet: bytes) -> int:
        """Take the plain answers with which a packet begins: how many bytes of it that was. The rest goes the whole way."""
        size, at = len(packet), 0
        while at + HEADER_SIZE <= size:
            head, method_number, number, length = quick_header(packet, at)
            end = at + HEADER_SIZE + length
            if head != PLAIN_REPLY or method_number or end > size:
                break
            with self.state:
                out = self.pending.get(number)
                if out is None or not out.method.is_simple:
                    break
                value = out.method.decode_result(packet[at + HEADER_SIZE : end], None, None)
                del self.pending[number]
            out.end(value, None)
            at = end
        return at

    def _begin_more(self) -> None:
        """Answers have come: calls that waited for the window go out."""
        while True:
            with self.state:  # taken and begun in one: a caller that saw none waiting would else go out before this one
                if not self._later or len(self.pending) >= WINDOW:
                    break
                self._begin_now(self._later.popleft())
        with self.state:
            self._begin_crowded()
        self.flush()

    def take(self, packet: bytes, descriptors: list[int]) -> None:
        if not packet:
            close_all(descriptors)  # a packet of nothing may still bring some
            self._stop_reading()
            self.worker.on_closed()
            return
        taken = 0 if descriptors or self._reader.parts else self._take_plain(packet)
        if taken < len(packet):
            self.feed(packet[taken:] if taken else packet, descriptors)
        if self._later or self._crowded:
            self._begin_more()
        if self.has_unsent:  # what was held back to share a packet goes out with every answer
            self.flush()
        if self.waiting and not self.worker.program.supervisor.is_current:
            self.services.work()

    # what this side decides ----------------------------------------------------------------------------------------

    def push(self, packet: bytes | bytearray, descriptors: Sequence[int]) -> bool:
        if not self.open:
            return False
        try:
            if self.link.send_now(packet, descriptors):
                return True
        except (BrokenPipeError, ConnectionError):
            return True  # it is gone, and its end is being noticed elsewhere; the packet has nobody to go to
        if self.backlog > MOST_UNREAD:
            self.worker.kill(f"it left {MOST_UNREAD} packets unread")
        else:
            self.ask_for_room()
        return False

    def who(self) -> str:
        return self.worker.describe()

    def to_exception(self, body: bytes) -> BaseException:
        fault = faults.understand(body)
        return self.worker.explained(faults.to_exception(fault, self.who()), fault.errno)

    def sink(self) -> Sink:
        return self.services.sink()

    def source(self, descriptors: list[int]) -> Source:
        return self.services.source(descriptors)

    def cancel(self, number: int) -> None:
        if not self.services.cancel(number):
            self.on_stale()

    def on_stale(self) -> None:
        self._stale += 1
        if self._stale > STALE + STALE_FOR_EACH * self.services.admitted:
            raise ProtocolError(f"{self._stale} messages about calls and streams that are over")

    def release(self, obj: int, count: int) -> None:
        self.services.release(obj, count)

    def control(self, message: Message) -> None:
        if message.kind is FrameKind.READY and message.method == LISTENER:
            self.worker.on_listener(message.call)
        elif message.kind is FrameKind.READY:
            self.worker.on_ready(held=message.method == AT_CHECKPOINT)
        elif message.kind is FrameKind.FAILED:
            self.worker.on_failed(message.body)
        else:
            raise ProtocolError(f"a {message.kind.name} message from a worker")
