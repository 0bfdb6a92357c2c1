"""Runs in: the worker. Its calls of services: what stands behind a service's stub, and which calls wait here.

The monitor holds what a worker asks for until it is answered, and ends a worker that asks for more than that (LIMITS).
So a call that would be too much waits in the worker, and goes out when another one is answered: those beyond so many
in their order; those for whose bytes or descriptors there is no room are passed by, as by calls of other methods that
an `async def` method would let pass anyway.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from bunri.calls import Call
from bunri.channel.conversation import MOST_ASKED, Blocks, Encoded, Outgoing
from bunri.errors import BunriError, InternalError
from bunri.kernel import descriptors as fds
from bunri.policy.words import FEWEST_OPEN
from bunri.wire import MethodContract
from bunri.wire.bounds import HANDLES
from bunri.wire.frames import FrameKind

if TYPE_CHECKING:
    from bunri.channel.serving import WorkerSide

_BYTES = 4 << 20  # of the calls that are out, beside a single one and small ones
_SMALL = 16 << 10  # bytes: so many calls of them are no more than that either


class Asked:
    """One call of a service. `out` is None until it goes out; `error` is why it never did."""

    __slots__ = (
        "args",
        "begun",
        "blocks",
        "call",
        "encoded",
        "error",
        "handles",
        "method",
        "number",
        "out",
        "size",
        "stub",
    )

    def __init__(
        self, number: int, method: MethodContract, args: tuple[Any, ...], call: Call[Any] | None, blocks: Blocks
    ) -> None:
        self.number, self.method, self.args = number, method, args
        self.call, self.blocks = call, blocks
        self.stub: object = None  # kept while it waits: a stub that is collected gives its number back
        self.encoded: Encoded | None = None
        self.size, self.handles = 0, FEWEST_OPEN  # until it is encoded; what is small has none
        self.out: Outgoing | None = None
        self.error: BaseException | None = None
        self.begun: Callable[[], None] | None = None

    @property
    def key(self) -> tuple[int, int]:
        return self.number, self.method.number

    def encode(self, side: WorkerSide) -> None:
        """UsageError for what the method does not take, OSError where there is no room for copies of its files."""
        self.encoded = body, blobs, sink = side.encoded(self.method, self.args)
        size = len(body)
        for _, data in blobs:
            size += len(data)
        self.size = size if size > _SMALL else 0
        self.handles = len(sink.descriptors) if sink is not None else 0

    def take_back(self) -> None:
        """Its files are copied when it goes out."""
        if self.encoded is not None and self.encoded[2] is not None:
            self.encoded[2].close()
        self.encoded = None

    def gone(self) -> None:
        """What it was made of is no longer needed."""
        self.encoded, self.args, self.stub = None, (), None

    def fail(self, error: BaseException | None) -> None:
        """It does not go out. None: nobody wants it any more."""
        self.take_back()
        self.gone()
        self.error = error
        if self.call is not None:
            self.call.finish(None, error)
        if self.begun is not None:
            self.begun()


class Asking:
    """The calls of services that a worker has made and that are not answered."""

    def __init__(self, side: WorkerSide) -> None:
        self._side = side
        self._later: deque[Asked] = deque()  # beyond so many
        self._crowded: list[Asked] = []  # those for whose bytes or descriptors there is no room
        self._size = 0  # bytes of the arguments of those that are out

    def ask(
        self,
        number: int,
        method: MethodContract,
        args: tuple[Any, ...],
        *,
        call: Call[Any] | None = None,
        blocks: Blocks = Blocks.NO,
    ) -> Asked:
        """Call a service. It goes out with the next `flush`, or when there is room for it."""
        self._side.refuse_other_threads()
        one = Asked(number, method, args, call, blocks)
        try:
            one.encode(self._side)
        except OSError as fault:
            if not self._lacks_room(fault):
                raise
        if self._later or len(self._side.pending) >= MOST_ASKED:
            self._keep(one)
            self._later.append(one)
        elif one.encoded is not None and self._may_begin(one, self._crowded):
            self._begin(one)
        else:
            self._keep(one)
            self._crowded.append(one)
        return one

    def answered(self, out: Outgoing) -> None:
        """There may be room for the next ones."""
        self._size -= out.size
        self._begin_more()

    def end_all(self, error: BaseException) -> None:
        """The conversation is over."""
        waiting = [*self._crowded, *self._later]
        self._crowded.clear()
        self._later.clear()
        for one in waiting:
            one.fail(error)

    def withdraw(self, one: Asked) -> None:
        """The caller no longer wants the answer."""
        if one.out is not None:
            if one.out.number in self._side.pending:
                self._side.post(FrameKind.CANCEL, call=one.out.number)
                self._side.flush()
        elif one in self._later or one in self._crowded:
            (self._later if one in self._later else self._crowded).remove(one)
            one.fail(None)
            self._begin_more()  # it may have been all that those behind it waited for
            self._side.flush()

    def wait_for(self, is_over: Callable[[], bool]) -> None:
        """Read until it is, and serve nothing meanwhile."""
        side = self._side
        side.flush()
        while not is_over():
            side.read_one()
            side.flush()
        side.work_soon()

    def _begin_more(self) -> None:
        """Those that may, in the order in which they were asked."""
        if not self._crowded and not self._later:
            return
        still: list[Asked] = []
        for one in self._crowded:
            if not (len(self._side.pending) < MOST_ASKED and self._may_begin(one, still) and self._has_begun(one)):
                still.append(one)
        self._crowded = [one for one in still if one.error is None]
        while self._later and len(self._side.pending) < MOST_ASKED:
            one = self._later.popleft()
            if not (self._may_begin(one, self._crowded) and self._has_begun(one)) and one.error is None:
                self._crowded.append(one)

    def _may_begin(self, one: Asked, before: list[Asked]) -> bool:
        """Whether there is room for it, and it passes none of those `before` that nobody passes: `def` methods are served in
        the order of their calls, and calls of one method are begun in that order."""
        if before and any(each.key == one.key or not each.method.kind.is_async for each in before):
            return False
        pending = self._side.pending
        if one.size and self._size and self._size + one.size > _BYTES:
            return False
        under_way = sum(out.handles for out in pending.values()) if one.handles else 0
        return not under_way or under_way + one.handles <= self._side.most_under_way()

    def _has_begun(self, one: Asked) -> bool:
        """Begin it; False where that fails, or there is no room yet for copies of its files."""
        try:
            if one.encoded is None:
                one.encode(self._side)
        except (BunriError, OSError) as fault:
            if not self._lacks_room(fault):
                one.fail(fault)
            return False
        self._begin(one)
        return True

    def _lacks_room(self, fault: Exception) -> bool:
        """Whether copies of files may be made later: those for other calls are closed when these have gone out."""
        return isinstance(fault, OSError) and fault.errno == errno.EMFILE and bool(self._side.pending)

    def _keep(self, one: Asked) -> None:
        """It waits."""
        one.stub = self._side.stub_of(one.number)
        if one.handles and one.encoded is not None and not self._leaves_room():
            one.take_back()

    def _leaves_room(self) -> bool:
        """Whether copies that wait leave room for what comes with an answer: for one that it had no room for the worker
        would be ended."""
        try:
            fds.refuse_without_room(HANDLES, self._side.link.number)
        except OSError:
            return False
        return True

    def _begin(self, one: Asked) -> None:
        one.out = self._side.begin(one.number, one.method, (), blocks=one.blocks, call=one.call, encoded=one.encoded)
        one.out.size = one.size
        self._size += one.size
        one.gone()
        if one.begun is not None:
            one.begun()


class RemoteService:
    """What stands behind a service's stub in the worker."""

    def __init__(self, side: WorkerSide, number: int) -> None:
        self.side = side
        self.number = number

    def describe(self) -> str:
        return f"service {self.number}"

    def invoke(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        one = self.side.asking.ask(self.number, method, method.bind(args, kwargs), blocks=Blocks.YES)
        self.side.asking.wait_for(lambda: one.error is not None or (one.out is not None and one.out.done))
        return self._out_of(one).outcome()

    def submit(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        call: Call[Any] = Call()
        asking = self.side.asking
        one = asking.ask(self.number, method, method.bind(args, kwargs), call=call)
        call.attach(stop=lambda: asking.withdraw(one), drive=lambda call, timeout: asking.wait_for(call.done))
        self.side.flush()
        return call

    def iterate(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        side = self.side
        one = self.side.asking.ask(self.number, method, method.bind(args, kwargs), blocks=Blocks.YES)
        self.side.asking.wait_for(lambda: one.error is not None or one.out is not None)
        out = self._out_of(one)
        flow = out.inflow
        assert flow is not None
        try:
            while True:
                if not flow.items and not flow.ended:
                    self.side.asking.wait_for(lambda: bool(flow.items) or flow.ended)
                if not flow.items:
                    break
                item, credit = flow.take()
                if credit and not flow.ended:
                    side.post(FrameKind.CREDIT, method=credit, call=out.number)
                yield item
        finally:
            self._leave(one)
        if flow.error is not None:
            raise flow.error

    async def iterate_async(
        self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        import asyncio

        side = self.side
        news = asyncio.Event()
        one = self.side.asking.ask(self.number, method, method.bind(args, kwargs))
        one.begun = news.set
        side.flush()
        try:
            while one.out is None and one.error is None:
                await news.wait()
            out = self._out_of(one)
            flow = out.inflow
            assert flow is not None
            flow.wake = news.set
            while True:
                while not flow.items and not flow.ended:
                    news.clear()
                    await news.wait()
                if not flow.items:
                    break
                item, credit = flow.take()
                if credit and not flow.ended:
                    side.post(FrameKind.CREDIT, method=credit, call=out.number)
                    side.flush()
                yield item
        finally:
            self._leave(one)
        if flow.error is not None:
            raise flow.error

    def _out_of(self, one: Asked) -> Outgoing:
        if one.out is None:
            raise one.error or InternalError("a call of a service that has neither gone out nor failed")
        return one.out

    def _leave(self, one: Asked) -> None:
        """Whoever read the stream reads no more of it."""
        if one.out is None:
            self.side.asking.withdraw(one)
        elif one.out.inflow is not None and not one.out.inflow.ended:
            self.side.post(FrameKind.CLOSE, call=one.out.number)
            self.side.flush()
