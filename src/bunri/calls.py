"""Runs in: monitor and worker. A call in flight as a value: `Call`, `call`, `map`, `deadline`.

The method says what is done, the caller says how it waits. A `Call` is a `concurrent.futures.Future` that can also be
awaited; it has begun when it was made.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from numbers import Real
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from bunri.errors import DeadlineExceeded, UsageError

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("bunri_deadline", default=None)


# All Calls share one lock: a condition of its own for each would be half the cost of a small call.
_lock = threading.RLock()
_changed = threading.Condition(_lock)
_PATIENCE = 0.25  # seconds of one sleep: a signal that comes just before it is noticed after it
_asleep: list[int] = []  # an entry for each thread that waits for `_changed`
_CANCELLED = frozenset({"CANCELLED", "CANCELLED_AND_NOTIFIED"})


class Call(concurrent.futures.Future[R], Awaitable[R]):
    """A call that has begun. `result()` waits on this thread, `await` on the running loop.

    `cancel()` stops the work: a worker in a `def` method is killed, an `async def` method is cancelled there and has
    one second.
    """

    # What drives the call forward while this thread waits in result(); None where somebody else does.
    _drive: Callable[[Call[Any], float | None], None] | None = None
    _stop: Callable[[], None] | None = None
    # Told when somebody begins to wait who does not come through result(): as_completed, a callback, a loop. It may be
    # called with the lock of all Calls held, so it takes no other that is held while a Call is finished.
    _observed: Callable[[], None] | None = None

    def __init__(self) -> None:  # the base's own, without a condition for each
        self._state = "PENDING"
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Any], object]] = []

    if not TYPE_CHECKING:  # for checkers it is the base's attribute, which `as_completed` and `wait` ask for

        @property
        def _condition(self):
            """What the base and its module's `wait` and `as_completed` take: whoever asks for it waits without driving."""
            observed = self._observed
            if observed is not None and self._state == "PENDING":
                observed()
            return _changed

    def attach(
        self,
        *,
        drive: Callable[[Call[Any], float | None], None] | None = None,
        stop: Callable[[], None] | None = None,
        observed: Callable[[], None] | None = None,
    ) -> None:
        """For whoever made the Call: what moves it forward in `result()`, what stops the work in `cancel()`, and what
        is to happen when somebody else waits for it."""
        if drive is not None:
            self._drive = drive
        if stop is not None:
            self._stop = stop
        if observed is not None:
            self._observed = observed

    def finish(self, value: Any, error: BaseException | None) -> None:
        """For whoever made the Call: its end. A Call that was cancelled stays so."""
        with _lock:
            if self._state != "PENDING":
                if self._state == "CANCELLED":
                    self.set_running_or_notify_cancel()  # tells those who wait for several
                return
            self._result, self._exception, self._state = value, error, "FINISHED"
            self._drive = self._stop = self._observed = None  # they hold what holds this Call
            for waiter in self._waiters:
                (waiter.add_result if error is None else waiter.add_exception)(self)
            if _asleep:
                _changed.notify_all()
        if self._done_callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._state not in ("PENDING", "RUNNING")

    def result(self, timeout: float | None = None) -> R:
        """The method's result, or its exception. `timeout` in seconds; TimeoutError leaves the call running."""
        if self._state != "FINISHED":
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                del self  # the traceback holds this frame, and the frame would hold the exception
        return self._result  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The method's exception, or None. `timeout` as for `result`."""
        if self._state != "FINISHED":
            self._wait(timeout)
        return self._exception

    def cancel(self) -> bool:
        """Stop the work. False when it has already ended."""
        with _lock:
            if self._state != "PENDING":
                return self._state in _CANCELLED
            self._state = "CANCELLED"
            if _asleep:
                _changed.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        stop = self._stop
        self._drive = self._stop = self._observed = None
        if stop is not None:
            stop()
        return True

    def __await__(self) -> Generator[Any, None, R]:
        """As `asyncio.wrap_future` does it; but what ends on the loop's own thread need not wake the loop up through its pipe."""
        import asyncio  # who awaits has it already; a worker without a loop never has

        if not self.done():
            ended = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: _tell(ended))
            try:
                yield from ended.__await__()
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._state in _CANCELLED:
            raise asyncio.CancelledError
        return self.result()

    def _wait(self, timeout: float | None) -> None:
        """Until it has ended. TimeoutError, or CancelledError where that is how it ended."""
        drive = self._drive  # it ends, perhaps, in this moment
        if drive is not None and not self.done():
            drive(self, timeout)
        if not self.done():
            self._sleep(None if timeout is None else time.monotonic() + timeout)
        if self._state in _CANCELLED:
            raise concurrent.futures.CancelledError

    def _sleep(self, until: float | None) -> None:
        observed = self._observed
        if observed is not None:
            observed()
        with _lock:
            while not self.done():
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                _asleep.append(0)
                try:
                    _changed.wait(_PATIENCE if left is None else min(left, _PATIENCE))
                finally:
                    _asleep.pop()


def _tell(ended: asyncio.Future[None]) -> None:
    """Whoever awaits a Call goes on, on his loop. On whatever thread the Call has ended."""
    import asyncio

    loop = ended.get_loop()
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here:
        _let_go_on(ended)
    elif not loop.is_closed():
        with contextlib.suppress(RuntimeError):  # closed just now: nobody awaits there any more
            loop.call_soon_threadsafe(_let_go_on, ended)


def _let_go_on(ended: asyncio.Future[None]) -> None:
    if not ended.done():  # cancelled
        ended.set_result(None)


@overload
def call(method: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
@overload
def call(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
def call(method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call[Any]:
    """Begin a call of a stub's method and return at once.

    Works for `def` and `async def` methods alike. UsageError for anything that is not a method of a stub, and for
    streams.
    """
    submit = getattr(method, "_bunri_submit", None)
    if submit is not None:
        return submit(*args, **kwargs)  # type: ignore[no-any-return]
    contract, target = _behind(method, "call")
    return target.submit(contract, args, kwargs)  # type: ignore[no-any-return]


def _behind(method: Any, taker: str) -> tuple[Any, Any]:
    """The contract of a stub's method, and where its calls go."""
    contract = getattr(method, "_bunri_method", None)
    target = getattr(getattr(method, "__self__", None), "_bunri_target", None)
    if contract is None or target is None:
        raise UsageError(
            f"bunri.{taker} takes a method of a stub, as bunri.{taker}(worker.thumbnail, ...); {method!r} is none. "
            f"Pass the method itself, without calling it"
        )
    if contract.kind.is_stream:
        raise UsageError(f"{contract.name} is a stream: iterate over it instead of calling it through bunri.{taker}")
    return contract, target


def map(method: Callable[[A], R], items: Iterable[A], /) -> Iterator[Call[R]]:
    """Call a stub's method for each item; the Calls come back in order, each as soon as it has ended.

    At most twice the pool's size are begun ahead of the one waited for. A failure is the failure of that one Call.
    """
    _, target = _behind(method, "map")
    return _mapped(method, iter(items), 2 * getattr(target, "size", 64))


def _mapped(method: Callable[[A], R], items: Iterator[A], ahead: int) -> Iterator[Call[R]]:
    begun: deque[Call[R]] = deque()
    try:
        for item in items:
            begun.append(call(method, item))
            if len(begun) >= ahead:
                yield _ended(begun.popleft())
        while begun:
            yield _ended(begun.popleft())
    finally:
        for left in begun:
            left.cancel()


def _ended(begun: Call[R]) -> Call[R]:
    begun.exception()
    return begun


@contextlib.contextmanager
def deadline(seconds: float) -> Generator[None]:
    """All calls in the block, also nested ones, end within `seconds`; what has not answered by then is stopped.

    Raises DeadlineExceeded from the call. An inner deadline can only be earlier than an outer one.
    """
    if isinstance(seconds, bool) or not isinstance(cast(object, seconds), Real) or not seconds > 0:
        raise UsageError(f"a deadline lies in the future: deadline({seconds!r}) does not. Give seconds above 0")
    outer = _deadline.get()
    until = time.monotonic() + float(seconds)
    token = _deadline.set(until if outer is None else min(until, outer))
    try:
        yield
    finally:
        _deadline.reset(token)


def without_deadline() -> contextvars.Context:
    """This code's context, for what is only begun here and goes on when the deadline around it is over."""
    context = contextvars.copy_context()
    context.run(_deadline.set, None)
    return context


def current_deadline() -> float | None:
    """The earliest deadline around this code, on time.monotonic's clock, or None."""
    return _deadline.get()


def refuse_if_past() -> None:
    """DeadlineExceeded when the deadline around this code has passed."""
    until = _deadline.get()
    if until is not None and time.monotonic() >= until:
        raise DeadlineExceeded("the deadline around this call had already passed; nothing was sent")
