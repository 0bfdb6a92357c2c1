"""Runs in: the monitor. Its side of one worker's conversation: calls into the worker, and services that the worker
was handed.

Who reads the channel: the loop that started the worker; without a loop, the thread that is inside a call to it; and
while there are only Calls that no thread waits for, the supervisor. A direct call from a second thread waits its turn.

Everything that comes from the worker is hostile. A ProtocolError, a limit that is exceeded, a service that raises
Misbehaved: the worker is killed, with that as the cause, and every call in it fails. What is decided is decided from
what stands here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bunri.calls import Call, current_deadline, refuse_if_past
from bunri.channel import faults
from bunri.channel.arena import Arena
from bunri.channel.conversation import Blocks, Conversation, Outgoing
from bunri.channel.link import Link, close_all
from bunri.errors import BunriError, DeadlineExceeded, ProtocolError, UsageError
from bunri.process import here
from bunri.process.blocking import refuse_on_loop, refuse_result_on_loop, refuse_served, running_loop, serving
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
    from bunri.process.behind import Behind

DEFAULT_DEADLINE = 60.0  # seconds, of a `def` call into a worker (THREATS 23)
CANCEL_GRACE = 1.0  # seconds in which an `async def` method may obey its cancellation
WINDOW = 1024  # calls on the wire; further ones wait here
_SENT_AT_ONCE = 8
_QUICK_BODY = 32 << 10  # bytes
_SHARED = 1024  # bytes of small calls that share a packet before it goes out
_LOOK = 0.02  # seconds
MOST_UNREAD = 4096  # packets that a worker leaves unread before it is ended


class MonitorSide(Conversation):
    """The monitor's end of one worker's channel."""

    def __init__(self, link: Link, arena: Arena | None, worker: Behind, loop: asyncio.AbstractEventLoop | None) -> None:
        super().__init__(link, arena)
        self.worker = worker
        self.loop = loop
        self.services = Services(self)
        self.open = False  # the worker was looked at: packets may go to it (set by `let_through`)
        self.watched = False
        self._turn = threading.RLock()  # whoever reads
        self._background = False  # the supervisor reads
        self._later: deque[Callable[[], None]] = deque()  # calls beyond the window
        self._over: BaseException | None = None
        self._asked = False  # the supervisor was asked to
        self._plainly = False  # open, not over, and without a loop: a plain call may take the short way
        self._forks = here.forks
        self._writing = False  # the loop waits for room
        self._leaving = self._left_loop = False  # the loop is to forget the channel; it has

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
                self._take(packet, descriptors)
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
        if self.loop is not None and running_loop() is not self.loop:
            if running_loop() is not None:
                raise UsageError(
                    f"{self.who()} was started on another event loop. Start a worker on the loop that uses it"
                )
            until = self._until(method)
            self.loop.call_soon_threadsafe(self._begin_later, obj, method, args, call, until)
            return call
        if self.loop is None:
            # Whoever waits in result() reads; for anybody else the supervisor does, and after a tick in any case.
            call.attach(drive=self._drive_call, observed=self._read_soon)
        self._begin_later(obj, method, args, call, self._until(method))
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

    def _begin_later(
        self, obj: int, method: MethodContract, args: tuple[Any, ...], call: Call[Any], until: float | None
    ) -> None:
        with self.state:
            if self._later or (self._over is None and len(self.pending) >= WINDOW):
                self._later.append(lambda: self._begin_now(obj, method, args, call, until))
            else:
                self._begin_now(obj, method, args, call, until)

    def _begin_now(
        self, obj: int, method: MethodContract, args: tuple[Any, ...], call: Call[Any], until: float | None
    ) -> None:
        with self.state:
            try:
                out = self.begin(obj, method, args, call=call)
            except BunriError as fault:
                call.finish(None, fault)
                return
            call.attach(stop=lambda: self.stop(out))
            out.until = until
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

    def begin(
        self,
        obj: int,
        method: MethodContract,
        args: tuple[Any, ...],
        *,
        blocks: Blocks = Blocks.NO,
        call: Call[Any] | None = None,
        kind: FrameKind = FrameKind.CALL,
    ) -> Outgoing:
        with self.state:
            if self._over is not None:
                raise self._over
            return super().begin(obj, method, args, blocks=blocks, call=call, kind=kind)

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
        self.end_all(error)
        for begin in later:
            begin()

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
        if self.loop is None and outs:
            if self.open and self.has_unsent:
                self.flush()
            self._read_if_nobody_does()
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
        return any(map(self._is_timed, outs))

    def _is_timed(self, out: Outgoing) -> bool:
        """Whether a call must be looked at again. One that no clock ends may last for hours: a new one, or a new budget,
        asks for looks again."""
        if self.loop is None or not self.open or self.worker.has_budget:
            return True
        return out.until is not None and out.until < math.inf

    def _read_if_nobody_does(self) -> None:
        """Calls are out, and no thread has been reading since the last tick."""
        if self._turn.acquire(blocking=False):
            try:
                self.read_in_background()
            finally:
                self._turn.release()

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
        elif self.loop is not None and running_loop() is not self.loop:
            self.loop.call_soon_threadsafe(self._cancel_there, out, time.monotonic())
        else:
            self._cancel_there(out, time.monotonic())

    def _cancel_there(self, out: Outgoing, now: float) -> None:
        with self.state:
            out.done = True
            out.until = now + CANCEL_GRACE
            self.post(FrameKind.CANCEL, call=out.number)
            self.watch()
        self.flush()

    # reading -------------------------------------------------------------------------------------------------------

    def drive(self, out: Outgoing) -> None:
        """Read on this thread until the call has its answer. Ctrl-C stops the work."""
        try:
            self.drive_until(lambda: out.done)
        except BaseException:
            self.stop(out)
            raise

    def drive_until(self, done: Callable[[], bool], until: float | None = None) -> None:
        """Read on this thread, and serve, until `done`, or until it is too late."""
        with self._turn:
            self.end_background()
            self.flush()
            self.services.work()
            while not done():
                if self.worker.is_over:
                    self.worker.wait_over()
                    continue
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return
                self._read_one(left)

    def _read_one(self, seconds: float | None) -> None:
        unsent = self.open and self.backlog > 0
        if unsent or seconds is not None:
            self.link.wait(for_room=unsent, seconds=seconds)
            self.flush()
            self.read_now()
            return
        try:
            self._take(*self.link.receive())
        except (ProtocolError, ConnectionError) as fault:
            self.broken(fault)

    def read_now(self) -> None:
        """Take one packet if there is one."""
        try:
            packet = self.link.receive_now()
            if packet is not None:
                self._take(*packet)
        except (ProtocolError, ConnectionError) as fault:
            self.broken(fault)

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
                self._later.popleft()()
        self.flush()

    def _take(self, packet: bytes, descriptors: list[int]) -> None:
        if not packet:
            close_all(descriptors)  # a packet of nothing may still bring some
            self._stop_reading()
            self.worker.on_closed()
            return
        taken = 0 if descriptors or self._reader.parts else self._take_plain(packet)
        if taken < len(packet):
            self.feed(packet[taken:] if taken else packet, descriptors)
        if self._later:
            self._begin_more()
        if self.has_unsent:  # what was held back to share a packet goes out with every answer
            self.flush()
        if self.waiting and not self.worker.program.supervisor.is_current:
            self.services.work()

    def may_have_last_words(self) -> bool:
        """Whether something of a dead worker is still unread, or in the hands of a reader. Who reads comes to the end."""
        if not self._turn.acquire(blocking=False):
            return True
        try:
            return self.link.has_unread()
        finally:
            self._turn.release()

    def broken_quietly(self) -> None:
        """The worker is reaped: nothing more will come."""
        self._stop_reading()
        self.link.hang_up()

    def release_resources(self) -> None:
        """Close the channel and unmap the arena, once nobody reads. The supervisor never waits for a reader, nor for a
        loop: it comes again. A number that a loop still watches is not closed, for it might be somebody else's by then."""
        if not (self._leaves_loop() and self._turn.acquire(blocking=False)):
            supervisor = self.worker.program.supervisor
            supervisor.run_at(time.monotonic() + 0.05, self.release_resources)
            return
        try:
            with self.state:
                self.link.close()
                if self.arena is not None:
                    self.arena.close()
                    self.arena = None
        finally:
            self._turn.release()

    def _leaves_loop(self) -> bool:
        """Whether no loop watches the channel any more; if one does, it is asked to stop that."""
        if self.loop is None or self._left_loop or self.loop.is_closed():
            return True
        if running_loop() is self.loop:
            self._leave_loop()
            return True
        if not self._leaving:
            self._leaving = True
            with contextlib.suppress(RuntimeError):  # it was closed in this very moment, and is found so the next time
                self.loop.call_soon_threadsafe(self._leave_loop)
        return False

    def _leave_loop(self) -> None:
        """On the loop, after whatever was asked of it before."""
        assert self.loop is not None
        self.loop.remove_reader(self.link.number)
        self.loop.remove_writer(self.link.number)
        self._left_loop = True

    def broken(self, fault: Exception) -> None:
        """The worker broke the protocol, or its end of the channel is gone. Either way it ends (THREATS 21)."""
        self._stop_reading()
        if isinstance(fault, ProtocolError):
            self.worker.kill(str(fault), fault)
        else:
            self.worker.on_closed()

    def on_loop_readable(self) -> None:
        """One packet a turn, so that no worker keeps the loop to itself."""
        with self._turn:
            if self.link.sock.fileno() >= 0:  # closed in this turn of the loop, after the loop had seen a packet
                self.read_now()

    def _drive_call(self, call: Call[Any], timeout: float | None) -> None:
        if self.worker.program.supervisor.is_current:
            return
        refuse_result_on_loop()
        until = None if timeout is None else time.monotonic() + timeout
        # Another thread may be reading, inside a call of its own: it takes our answer too, so we look now and then.
        while not call.done():
            left = _LOOK if until is None else min(_LOOK, until - time.monotonic())
            if left <= 0:
                return
            if self._turn.acquire(timeout=left):
                try:
                    self.drive_until(call.done, until)
                finally:
                    self._turn.release()

    def _read_soon(self) -> None:
        """Somebody waits who does not read: let the supervisor do it. Takes no lock of ours (`Call._observed`)."""
        if not (self._background or self._asked):
            self._asked = True
            self.worker.program.supervisor.run_soon(self.read_in_background)

    def read_in_background(self) -> None:
        """Nobody is inside a call: let the supervisor read the answers."""
        with self.state:
            self._asked = False
            # Flag and registration change together: apart, two threads could leave one without the other.
            if self._background or self.worker.is_over:
                return
            self._background = True
            self.worker.program.supervisor.add(self.link.number, self._read_for_supervisor)

    def end_background(self) -> None:
        """The supervisor reads no more: somebody else does."""
        with self.state:
            if self._background:
                self._background = False
                self.worker.program.supervisor.remove(self.link.number)

    def _read_for_supervisor(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        try:
            if self._background:
                self.read_now()
                with self.state:
                    if not self.pending and (self.open or self.worker.is_over or not self.worker.speaks_twice):
                        self.end_background()
                if self.waiting:
                    self._serve_elsewhere()
        finally:
            self._turn.release()

    def _serve_elsewhere(self) -> None:
        """The worker calls a service, and no thread is inside a call: the program only waits, in `as_completed` or for a callback.
        The supervisor runs no code of the program, so a thread does, and ends with it."""
        self.end_background()
        threading.Thread(target=self._serve_waiting, name="bunri-service", daemon=True).start()

    def _serve_waiting(self) -> None:
        with self._turn:
            self.services.work()
            if self.pending:
                self.read_in_background()

    def _stop_reading(self) -> None:
        self.end_background()
        if self.loop is not None and not self.loop.is_closed():
            if running_loop() is self.loop:
                self.loop.remove_reader(self.link.number)
                self.loop.remove_writer(self.link.number)
            else:
                self.loop.call_soon_threadsafe(self.loop.remove_reader, self.link.number)

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
        elif self.loop is not None and not self._writing and running_loop() is self.loop:
            self._writing = True
            self.loop.add_writer(self.link.number, self._on_room)
        return False

    def _on_room(self) -> None:
        if self.flush() and self.loop is not None:
            self._writing = False
            self.loop.remove_writer(self.link.number)

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
        self.services.cancel(number)

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
