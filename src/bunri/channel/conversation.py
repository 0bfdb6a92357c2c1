"""Runs in: monitor and worker. Calls both ways over one link: what the two sides have in common.

A side *begins* calls (numbers them, keeps them until the answer) and *feeds* on packets. Feeding never runs anybody's
code: answers go to the calls that wait for them, and calls of the other side stand in a queue until the side takes
them out. Whatever does not fit (an answer to nothing, a number out of the table, a count that does not add up) is a
ProtocolError; the side ends the conversation for it, and nothing is repaired.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, cast

from bunri.calls import Call
from bunri.channel import faults
from bunri.channel.arena import SMALLEST, Arena
from bunri.channel.link import Link, close_all
from bunri.channel.streams import Inflow, Outflow
from bunri.errors import ProtocolError
from bunri.wire import MethodContract
from bunri.wire.frames import (
    BLOCKING,
    LARGEST_PACKET,
    PLAIN_CALL,
    PLAIN_CALL_BLOCKING,
    Blob,
    FrameKind,
    Message,
    Reader,
    pack,
    pack_large,
    pack_quick,
)
from bunri.wire.handles import Sink, Source

if TYPE_CHECKING:
    import asyncio

NOT_IN_ARENA = 0xFFFFFFFF
BLOB_CHUNK = 0x100  # CHUNK messages of a blob: BLOB_CHUNK + the argument's position
MOST_ASKED = 256  # calls of services of one worker that are not answered; more are an attack
MOST_WAITING = 2048  # calls of the other side that stand in the queue; more are an attack


_CARRIERS = frozenset({FrameKind.START, FrameKind.CALL, FrameKind.REPLY, FrameKind.ITEM})  # of descriptors


def cancel_task(task: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    """Stop what answers a call: once it has begun, for one that was cancelled before would run none of its code, and so
    never answer."""
    if inspect.getcoroutinestate(cast(Any, task.get_coro())) == inspect.CORO_CREATED:
        loop.call_soon(task.cancel)
    else:
        task.cancel()


class Blocks(Enum):
    """Whether a caller serves nothing until its answer is there."""

    YES = "yes"
    NO = "no"


Encoded = tuple[bytes, Sequence[tuple[int, Any]], Sink | None]  # arguments; large bytes by their position; handles


class Outgoing:
    """A call this side has made and whose answer is out."""

    # Defaults of the class, not of each: one is made for every call.
    done = False
    value: Any = None
    error: BaseException | None = None
    until: float | None = None  # time.monotonic
    begun: float | None = None  # when the supervisor first saw it
    cpu = 0  # the worker's CPU clock then, ns
    handles = 0  # descriptors that went with it
    size = 0  # bytes of its arguments, where they are counted

    def __init__(
        self, number: int, method: MethodContract, call: Call[Any] | None = None, inflow: Inflow | None = None
    ) -> None:
        self.number = number
        self.method = method
        self.call = call
        self.inflow = inflow

    def end(self, value: Any, error: BaseException | None) -> None:
        """The answer is here. The call's own waiters are told."""
        if self.done:
            return  # it was given up before: nobody waits any more
        self.done = True
        self.value, self.error = value, error
        if self.inflow is not None:
            self.inflow.end(error)
        if self.call is not None:
            self.call.finish(value, error)

    def outcome(self) -> Any:
        """The value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class Conversation(ABC):
    """One side of a channel. `state` guards everything here; it is held for short, and never while anybody's code
    runs."""

    is_worker = False

    def __init__(self, link: Link, arena: Arena | None) -> None:
        self.link = link
        self.arena = arena
        self.state: AbstractContextManager[object] = threading.RLock()
        self.pending: dict[int, Outgoing] = {}
        self.waiting: deque[tuple[Message, list[int]]] = deque()  # calls of the other side
        self.outflows: dict[int, Outflow] = {}
        self._numbers = itertools.count(1)
        self._reader = Reader()
        self._outbox: deque[tuple[bytes | bytearray, Sequence[int]]] = deque()
        self._batch = bytearray()
        self._freed = 0  # arena blocks taken out and not yet given back

    # what a side decides -------------------------------------------------------------------------------------------

    @abstractmethod
    def who(self) -> str:
        """The other side, named from this side's own state."""

    @abstractmethod
    def sink(self) -> Sink:
        """Where the handles of one message that is being encoded go."""

    @abstractmethod
    def source(self, descriptors: list[int]) -> Source:
        """Where the handles of one message that is being decoded come from."""

    @abstractmethod
    def push(self, packet: bytes | bytearray, descriptors: Sequence[int]) -> bool:
        """Send one packet; False if that would mean waiting: it is kept, and tried again by the next `flush`."""

    @abstractmethod
    def cancel(self, number: int) -> None:
        """The other side wants its call `number` stopped."""

    @abstractmethod
    def control(self, message: Message) -> None:
        """A message that only one of the sides may send (READY, START, FAILED)."""

    @abstractmethod
    def release(self, obj: int, count: int) -> None:
        """The other side no longer holds object `obj`, which it received `count` times."""

    def on_stale(self) -> None:  # noqa: B027  (a worker trusts its monitor)
        """The other side spoke of a call or a stream that is over, or never was."""

    def to_exception(self, body: bytes) -> BaseException:
        """The exception to raise here for an ERROR message."""
        return faults.to_exception(faults.understand(body), self.who())

    # outwards ------------------------------------------------------------------------------------------------------

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
        """Make a call to object `obj`. It goes out with the next `flush`."""
        body, blobs, sink = encoded or self.encoded(method, args)
        with self.state:
            number = next(self._numbers)
            out = Outgoing(number, method, call, Inflow() if method.is_stream else None)
            if sink is not None:
                out.handles = len(sink.descriptors)
            if method.is_simple and kind is FrameKind.CALL and not (obj or blobs or self._freed) and self._fits(body):
                head = PLAIN_CALL_BLOCKING if blocks is Blocks.YES else PLAIN_CALL
                self._batch += pack_quick(head, method.number, number, len(body)) + body
            else:
                self.post(
                    kind, body, flags=BLOCKING if blocks is Blocks.YES else 0,
                    obj=obj, method=method.number, call=number, sink=sink, blobs=blobs,
                )  # fmt: skip
            self.pending[number] = out
        return out

    def encoded(self, method: MethodContract, args: tuple[Any, ...]) -> Encoded:
        """The arguments of a call; handles among them are duplicated for it."""
        sink = self.sink() if method.sends_handles else None
        return *method.encode_arguments(args, sink), sink

    def _fits(self, body: bytes) -> bool:
        """Whether it may share the packet that is being filled."""
        return len(body) + len(self._batch) < LARGEST_PACKET - 1024

    def post(
        self,
        kind: FrameKind,
        body: bytes = b"",
        *,
        flags: int = 0,
        obj: int = 0,
        method: int = 0,
        call: int = 0,
        sink: Sink | None = None,
        blobs: Sequence[tuple[int, Any]] = (),
    ) -> None:
        """Queue one message. What has descriptors, or is large, gets packets of its own; the rest is batched."""
        with self.state:
            if self._freed:
                freed, self._freed = self._freed, 0
                self._batch += pack(FrameKind.FREED, call=freed)
            placed = self._place(blobs, call) if blobs else ()
            descriptors = tuple(sink.descriptors) if sink is not None else ()
            if not descriptors and self._fits(body):
                self._batch += pack(kind, body, flags=flags, obj=obj, method=method, call=call, blobs=placed)
                return
            self._end_batch()
            packets = pack_large(
                kind, body, flags=flags, obj=obj, method=method, call=call, descriptors=len(descriptors), blobs=placed
            )
            for packet in packets[:-1]:
                self._outbox.append((packet, ()))
            self._outbox.append((packets[-1], descriptors))

    def flush(self) -> bool:
        """Send what is queued; False when something is left because the other side does not read."""
        with self.state:
            self._end_batch()
            while self._outbox:
                packet, descriptors = self._outbox[0]
                if not self.push(packet, descriptors):
                    return False
                self._outbox.popleft()
                if descriptors:
                    self._sent(descriptors)
        return True

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is queued, in either direction: then a plain call may take the short way."""
        return not (self._batch or self._outbox or self.waiting or self._freed or self._reader.parts)

    @property
    def has_unsent(self) -> bool:
        """Whether a message waits to be sent, be it only for company."""
        return bool(self._batch or self._outbox)

    @property
    def backlog(self) -> int:
        """Packets that wait for the other side to read."""
        return len(self._outbox)

    def _sent(self, descriptors: Sequence[int]) -> None:
        """The duplicates made for a message have gone over; ours are closed."""
        close_all(descriptors)

    def _end_batch(self) -> None:
        if self._batch:
            self._outbox.append((self._batch, ()))
            self._batch = bytearray()

    def _place(self, blobs: Sequence[tuple[int, Any]], call: int) -> Sequence[Blob]:
        """Large bytes into the arena; what finds no room there travels as CHUNKs whose position says which argument
        they are."""
        placed: list[Blob] = []
        for position, data in blobs:
            with memoryview(data).cast("B") as view:
                offset = self.arena.put(view) if self.arena is not None else None
                if offset is None:
                    offset = NOT_IN_ARENA
                    self._send_chunks(position, call, view)
                placed.append(Blob(position, offset, len(view)))
        return placed

    def _send_chunks(self, position: int, call: int, view: memoryview) -> None:
        self._end_batch()
        step = LARGEST_PACKET - 64
        for start in range(0, len(view), step):
            piece = bytes(view[start : start + step])
            self._outbox.append((pack(FrameKind.CHUNK, piece, obj=BLOB_CHUNK + position, call=call), ()))

    # inwards -------------------------------------------------------------------------------------------------------

    def feed(self, packet: bytes, descriptors: list[int]) -> None:
        """Take one packet. ProtocolError for anything out of place; descriptors that came with it are closed then."""
        try:
            messages = self._reader.read(packet)
            announced = 0
            for message in messages:
                announced += message.descriptors
            if len(descriptors) != announced:
                raise ProtocolError(f"{len(descriptors)} descriptors came with a packet that announces another number")
            if descriptors and messages[0].kind not in _CARRIERS:
                raise ProtocolError(f"descriptors beside a {messages[0].kind.name} message, where none belong")
        except ProtocolError:
            close_all(descriptors)
            raise
        with self.state:
            for message in messages:
                self._handlers[message.kind](self, message, descriptors)

    def blobs_of(self, message: Message) -> dict[int, bytes] | None:
        """Copies of the large arguments of a message."""
        if not message.blobs:
            return None
        found: dict[int, bytes] = {}
        for blob in message.blobs:
            if blob.position in found:
                raise ProtocolError(f"two blobs for argument {blob.position}")
            if blob.offset == NOT_IN_ARENA:
                found[blob.position] = self._reader.take_chunks(BLOB_CHUNK + blob.position, message.call, blob.length)
            elif self.arena is None or blob.length < SMALLEST:
                raise ProtocolError("a blob where there is no arena, or one too small for it")
            else:
                found[blob.position] = self.arena.take(blob.offset, blob.length)
                self._freed += 1
        return found

    def end_all(self, error: BaseException) -> None:
        """The conversation is over: every call that waits gets the error."""
        with self.state:
            outs = list(self.pending.values())
            self.pending.clear()
            for flow in self.outflows.values():
                flow.close()
            for _, descriptors in self.waiting:
                close_all(descriptors)
            self.waiting.clear()
            for _, kept in self._outbox:
                close_all(kept)
            self._outbox.clear()
            self._batch.clear()
        for out in outs:
            out.end(None, error)

    def _answer_of(self, message: Message) -> Outgoing:
        """The call that a message answers. It stays in `pending` until the answer is understood: else nobody would end it."""
        out = self.pending.get(message.call)
        if out is None:
            raise ProtocolError(f"an answer to call {message.call}, which is not out")
        return out

    def _end(self, message: Message, value: Any, error: BaseException | None) -> None:
        self.pending.pop(message.call).end(value, error)

    def _on_call(self, message: Message, descriptors: list[int]) -> None:
        if len(self.waiting) >= MOST_WAITING:
            close_all(descriptors)
            raise ProtocolError(f"more than {MOST_WAITING} calls at one time")
        self.waiting.append((message, descriptors))

    def _value_of(self, decode: Callable[..., Any], message: Message, descriptors: list[int], *, takes: bool) -> Any:
        """The value of a message; its descriptors are in it then, or closed."""
        try:
            blobs = self.blobs_of(message)
        except ProtocolError:
            close_all(descriptors)
            raise
        return decode(message.body, self.source(descriptors) if descriptors or takes else None, blobs)

    def _on_reply(self, message: Message, descriptors: list[int]) -> None:
        out = self.pending.get(message.call)
        if out is None or out.inflow is not None:
            close_all(descriptors)
            self._answer_of(message)
            raise ProtocolError("a plain answer to a stream")
        method = out.method
        value = self._value_of(method.decode_result, message, descriptors, takes=method.returns_handles)
        self._end(message, value, None)

    def _on_error(self, message: Message, descriptors: list[int]) -> None:
        self._answer_of(message)
        self._end(message, None, self.to_exception(message.body))

    def _on_raised(self, message: Message, descriptors: list[int]) -> None:
        out = self._answer_of(message)
        self._end(message, None, out.method.decode_exception(message.body))

    def _on_item(self, message: Message, descriptors: list[int]) -> None:
        out = self.pending.get(message.call)
        if out is None or out.inflow is None:
            close_all(descriptors)
            raise ProtocolError(f"an item for call {message.call}, which is no stream")
        method = out.method
        try:
            out.inflow.expect(len(message.body) + sum(blob.length for blob in message.blobs))
        except ProtocolError:
            close_all(descriptors)
            raise
        out.inflow.put(self._value_of(method.decode_item, message, descriptors, takes=method.returns_handles))

    def _on_end(self, message: Message, descriptors: list[int]) -> None:
        out = self._answer_of(message)
        if out.inflow is None:
            raise ProtocolError("the end of a stream that is none")
        self._end(message, None, None)

    def _on_credit(self, message: Message, descriptors: list[int]) -> None:
        flow = self.outflows.get(message.call)
        if flow is not None:
            flow.credit(message.method)
        else:  # it has ended while the credit was on its way
            self.on_stale()

    def _on_close(self, message: Message, descriptors: list[int]) -> None:
        flow = self.outflows.get(message.call)
        if flow is not None and not flow.closed:
            flow.close()
        elif self.waiting:  # the call that begins it may stand there
            self._on_call(message, [])
        else:
            self.leave_stream(message.call)

    def obeys(self, message: Message) -> bool:
        """Whether it is no call, but stood behind one in the queue, to stop it or to leave its stream. That is done then."""
        if message.kind is FrameKind.CANCEL:
            self.cancel(message.call)
        elif message.kind is FrameKind.CLOSE:
            self.leave_stream(message.call)
        else:
            return False
        return True

    def leave_stream(self, number: int) -> None:
        """The other side wants no more of a stream, which may not have begun: then it does not begin."""
        flow = self.outflows.get(number)
        if flow is None:
            self.cancel(number)
        elif flow.closed:
            self.on_stale()
        else:
            flow.close()

    def _on_freed(self, message: Message, descriptors: list[int]) -> None:
        if self.arena is None:
            raise ProtocolError("arena blocks given back where there is no arena")
        self.arena.freed(message.call)

    def _on_cancel(self, message: Message, descriptors: list[int]) -> None:
        if self.waiting:  # the call itself may stand there: its cancellation does not overtake it
            self._on_call(message, [])
        else:
            self.cancel(message.call)

    def _on_release(self, message: Message, descriptors: list[int]) -> None:
        self.release(message.obj, message.call)

    def _on_control(self, message: Message, descriptors: list[int]) -> None:
        if message.kind is FrameKind.START and self.is_worker:
            self.waiting.append((message, descriptors))
        else:
            close_all(descriptors)
            self.control(message)

    _handlers: ClassVar[dict[FrameKind, Callable[[Any, Message, list[int]], None]]] = {
        FrameKind.CALL: _on_call,
        FrameKind.REPLY: _on_reply,
        FrameKind.ERROR: _on_error,
        FrameKind.RAISED: _on_raised,
        FrameKind.ITEM: _on_item,
        FrameKind.END: _on_end,
        FrameKind.CREDIT: _on_credit,
        FrameKind.CLOSE: _on_close,
        FrameKind.FREED: _on_freed,
        FrameKind.CANCEL: _on_cancel,
        FrameKind.RELEASE: _on_release,
        FrameKind.START: _on_control,
        FrameKind.READY: _on_control,
        FrameKind.FAILED: _on_control,
    }
