"""Runs in: the monitor. A pool: workers that stand ready, each for one call (THREATS 3).

A worker belongs to one principal, so it serves one call and is replaced behind the caller's back;
`Reuse.DANGEROUS_ACROSS_PRINCIPALS` keeps it. The supervisor, or the loop, starts the replacements. Calls that find no
worker wait in the order they came.

However a worker is lost, the pool is filled up to its size again; so no place is ever counted by hand. Two things
bound that. Where a start has failed nobody tries again until somebody calls, and then one worker is tried first. And
workers that die while nobody calls are replaced as often as the pool is large.
"""

from __future__ import annotations

import contextvars
import math
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from bunri.calls import Call, current_deadline, refuse_if_past
from bunri.compartment import Compartment, Reuse
from bunri.errors import BunriError, DeadlineExceeded, Exit, UsageError, WorkerDied
from bunri.policy import Policy
from bunri.process import loops, unconfined
from bunri.process.blocking import refuse_on_loop, refuse_result_on_loop, running_loop
from bunri.wire import MethodContract

if TYPE_CHECKING:
    import asyncio

    from bunri.process.behind import Behind
    from bunri.process.supervisor import Supervisor

_CLOSED: Final = "its pool was closed"


class Pool:
    """The target of a pool's stub."""

    def __init__(
        self,
        cls: type[Compartment],
        size: int,
        policy: Policy,
        bound: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.size = size
        self._cls = cls
        self._policy = policy
        self._bound = bound
        self._loop = loop
        self._workers: set[Behind] = set()  # those that stand ready, and those in a call
        self._idle: deque[Behind] = deque()
        self._leaving: set[Behind] = set()  # killed, and not yet reaped
        self._waiting: deque[_Turn] = deque()
        self._looks_at = math.inf  # when the next deadline of those that wait is due
        self._lock = threading.Lock()
        self._refilling = False  # a refill is due
        self._died_ready = 0  # workers that died since the last call, and were in none
        self._failure: BaseException | None = None  # of the last start, until one succeeds
        self._closed: BunriError | None = None  # what calls get from now on
        self._owner = os.getpid()
        self._supervisor: Supervisor | None = None  # that of its workers
        self._factory = unconfined.factory  # of all its workers, also of those that come later
        try:
            for _ in range(size):
                self._add(self._start())
        except BaseException:
            self._kill_all("its pool could not be started")
            raise
        if loop is not None:
            loops.tie(loop, self)

    # what a stub asks of it ----------------------------------------------------------------------------------------

    def invoke(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = method.bind(args, kwargs)
        refuse_on_loop(method.name, "pool")
        if self._loop is not None:
            return self._submit(method, bound).result()
        turn = _Turn(self)
        try:
            return self._worker_for(turn).side.invoke(method, bound, {})
        finally:
            turn.over()

    def submit(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        return self._submit(method, method.bind(args, kwargs))

    def _submit(self, method: MethodContract, bound: tuple[Any, ...]) -> Call[Any]:
        turn = _Submitted(self, method, bound)
        try:
            self._line_up(turn)
        except BaseException:
            turn.over()
            raise
        return turn.call

    def iterate(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        turn = _Turn(self)
        try:
            return _Held(turn, self._worker_for(turn).iterate(method, args, kwargs))
        except BaseException:
            turn.over()
            raise

    async def iterate_async(
        self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        turn = _Turn(self)
        try:
            self._line_up(turn)
            worker = await turn.call
            stream = worker.iterate_async(method, args, kwargs)
            try:
                async for item in stream:
                    yield item
            finally:
                await stream.aclose()
        finally:
            turn.over()

    def describe(self) -> str:
        return f"a pool of {self.size} {self._cls.__qualname__} workers"

    def process(self) -> Any:
        raise UsageError(
            "a pool has many processes, and each call takes another. Start one worker with start() to look at its process"
        )

    def wait_started(self) -> None:
        """Until one worker is ready; raises what its start found."""
        first = self._first()
        if first is not None:
            first.wait_started()

    async def wait_started_async(self) -> None:
        first = self._first()
        if first is not None:
            await first.wait_started_async()

    def _first(self) -> Behind | None:
        """One to wait for; None where all are in calls."""
        with self._lock:
            if not self._workers and self._failure is not None:
                raise self._failure
            return next(iter(self._idle), None)

    def close(self) -> None:
        """Kill and reap all workers; calls that wait for one fail."""
        if os.getpid() != self._owner:
            return
        ended = self._kill_all(_CLOSED)
        if running_loop() is None:
            for worker in ended:
                worker.wait_over()

    async def close_async(self) -> None:
        for worker in self._kill_all(_CLOSED):
            await worker.close_async()

    def on_loop_closed(self) -> None:
        """Nobody reads its workers' channels any more."""
        self._kill_all(loops.CLOSED)

    def drop(self) -> None:
        """Its stub was collected: wherever that happens, also in a thread that holds our lock. So no lock is taken here."""
        if os.getpid() == self._owner:
            self.run_soon(self._end_dropped)

    def _end_dropped(self) -> None:
        self._kill_all("its pool was dropped")

    def _kill_all(self, cause: str) -> list[Behind]:
        """Take no more calls, and kill. All that are not yet reaped."""
        died = WorkerDied(Exit(cause=cause), who=self.describe())
        with self._lock:
            if self._closed is None:
                self._closed = UsageError(f"{self.describe()} was closed") if cause == _CLOSED else died
            waiting, self._waiting = self._waiting, deque()
            self._idle.clear()
            left = [*self._workers, *self._leaving]
        for turn in waiting:
            turn.call.finish(None, died)
        for worker in left:
            worker.kill(cause)
        return left

    # whose turn it is ----------------------------------------------------------------------------------------------

    def _line_up(self, turn: _Turn) -> None:
        """Give it a worker that stands ready, or a place in the queue."""
        if os.getpid() != self._owner:
            raise UsageError(
                f"{self.describe()} belongs to the process that started it, and this is a forked child of that. Start a pool here"
            )
        if self._loop is not None and self._loop.is_closed():
            self.on_loop_closed()
        elif self._loop is not None and running_loop() not in (None, self._loop):
            raise UsageError(
                f"{self.describe()} was started on another event loop. Start a pool on the loop that uses it"
            )
        refuse_if_past()
        with self._lock:
            if self._closed is not None:
                raise self._closed
            self._died_ready = 0
            self._give_ready(turn)
            if turn.worker is None:
                self._waiting.append(turn)
                self._look_at(turn.until)
        if turn.worker is not None:
            turn.begin(turn.worker)
        self._refill_soon()

    def _give_ready(self, turn: _Turn) -> None:
        """With the lock held. A worker may be dead, be it that nobody has said so yet."""
        while self._idle and turn.worker is None:
            worker = turn.worker = self._idle[0]  # before it leaves the queue: Ctrl-C may come between any two lines
            self._idle.popleft()
            if worker.is_over or worker.has_ended:
                turn.worker = None
                self._workers.discard(worker)
                self._leaving.add(worker)

    def _worker_for(self, turn: _Turn) -> Behind:
        """Wait for it on this thread."""
        self._line_up(turn)
        return turn.call.result()  # type: ignore[no-any-return]

    def offer(self, worker: Behind) -> None:
        """It is free: for whoever waits, or for those who come."""
        turn: _Turn | None = None
        with self._lock:
            while self._waiting and turn is None:
                turn = self._waiting.popleft()
                if turn.call.done():
                    turn = None  # it was given up
            if turn is not None:
                turn.worker = worker
            elif self._closed is None:
                self._idle.append(worker)
        if turn is not None:
            turn.begin(worker)
        elif self._closed is not None:
            worker.kill(_CLOSED)

    def release(self, turn: _Turn) -> None:
        """It needs its worker no more, if it has got one."""
        with self._lock:  # whoever gave it one has done so by now
            worker, turn.worker = turn.worker, None
        if worker is not None:
            self._give_back(worker)

    def _give_back(self, worker: Behind) -> None:
        """Its call has ended."""
        if self._cls.reuse is Reuse.DANGEROUS_ACROSS_PRINCIPALS and not worker.is_over:
            self._failure = None
            self.offer(worker)
            return
        worker.kill("its one call is done")
        self._lose(worker)

    def run_soon(self, action: Callable[[], None]) -> None:
        """On the supervisor's thread: for those who may hold our lock."""
        if self._supervisor is not None:
            self._supervisor.run_soon(action)

    # deadlines of those that wait ----------------------------------------------------------------------------------

    def _look_at(self, when: float) -> None:
        """With the lock held."""
        if when < self._looks_at and self._supervisor is not None:
            self._looks_at = when
            self._supervisor.run_at(when, self._expire)

    def _expire(self) -> None:
        """On the supervisor's thread."""
        now = time.monotonic()
        with self._lock:
            late = [turn for turn in self._waiting if turn.until <= now]
            if late:
                self._waiting = deque(turn for turn in self._waiting if turn.until > now)
            self._looks_at = math.inf
            self._look_at(min((turn.until for turn in self._waiting), default=math.inf))
        for turn in late:
            turn.call.finish(
                None, DeadlineExceeded(f"no worker of {self.describe()} was free before the deadline; nothing was sent")
            )

    # workers -------------------------------------------------------------------------------------------------------

    def _start(self) -> Behind:
        from bunri.process.start import start_worker

        worker = start_worker(self._cls, self._policy, self._bound, self._loop, self._factory)
        self._supervisor = worker.program.supervisor
        return worker

    def _add(self, worker: Behind) -> None:
        with self._lock:
            self._workers.add(worker)
        worker.on_exit(lambda _: self._on_exit(worker))
        if self._loop is None:
            worker.side.read_in_background()
        self.offer(worker)

    def _on_exit(self, worker: Behind) -> None:
        """It is reaped."""
        self._lose(worker)
        with self._lock:
            self._leaving.discard(worker)

    def _lose(self, worker: Behind) -> None:
        """It will serve nobody any more. Its end is heard of from several sides: the first one has its place filled."""
        with self._lock:
            if worker not in self._workers:
                return
            self._workers.discard(worker)
            self._leaving.add(worker)
            if worker in self._idle:
                self._idle.remove(worker)
                self._died_ready += 1
            enough = self._died_ready > self.size
        failure = worker.start_failure()
        if failure is not None:
            self._fail(failure)
            return
        self._failure = None
        if not enough:
            self._refill_soon()

    def _fail(self, failure: BaseException) -> None:
        """A worker could not start. Whoever waits is told, unless others are left that will be free."""
        with self._lock:
            self._failure = failure
            if self._workers:
                return
            waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            turn.call.finish(None, failure)

    def _refill_soon(self) -> None:
        """Start what is missing, later: on the loop, or on the supervisor's thread."""
        with self._lock:
            if self._refilling or not self._lacks():
                return
            self._refilling = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._refill)
            except RuntimeError:
                self.on_loop_closed()
        elif self._supervisor is not None:
            self._supervisor.run_soon(self._refill)

    def _lacks(self) -> bool:
        """With the lock held: whether another is to be started. Where the last one could not be, one must first succeed."""
        return self._closed is None and len(self._workers) < (self.size if self._failure is None else 1)

    def _refill(self) -> None:
        """One, before others have their turn."""
        with self._lock:
            self._refilling = False
            if not self._lacks():
                return
        try:
            worker = self._start()
        except Exception as fault:
            self._fail(fault)
            return
        self._add(worker)
        self._refill_soon()


class _Turn:
    """Somebody who wants a worker, to use it himself: `call` is for the worker."""

    def __init__(self, pool: Pool) -> None:
        self.call: Call[Any] = Call()
        self.worker: Behind | None = None
        until = current_deadline()
        self.until = math.inf if until is None else until
        self._pool = pool

    def begin(self, worker: Behind) -> None:
        self.call.finish(worker, None)

    def over(self) -> None:
        """However it ended, and whether there was a worker or not."""
        self.call.cancel()  # unless it has got one
        self._pool.release(self)

    def over_soon(self) -> None:
        """For the garbage collector, which may come to a thread that holds the pool's lock."""
        self._pool.run_soon(self.over)


class _Submitted(_Turn):
    """A call that nobody drives: `call` is for its answer. It begins in the context in which it was made, for that
    has its deadline."""

    def __init__(self, pool: Pool, method: MethodContract, bound: tuple[Any, ...]) -> None:
        super().__init__(pool)
        self._method = method
        self._bound = bound
        self._inner: Call[Any] | None = None
        self._context = contextvars.copy_context()
        self.call.attach(drive=refuse_result_on_loop, stop=self._stop)

    def begin(self, worker: Behind) -> None:
        try:
            inner = self._context.run(worker.side.submit, 0, self._method, self._bound)
        except BaseException as fault:
            self._pool.release(self)
            self.call.finish(None, fault)
            if not isinstance(fault, Exception):
                raise
            return
        self._inner = inner
        if self.call.cancelled():
            inner.cancel()  # meanwhile: whoever did it may have seen no inner one
        inner.add_done_callback(self._finish)

    def _finish(self, done: Any) -> None:
        self._pool.release(self)
        if done.cancelled():
            self.call.finish(None, WorkerDied(Exit(cause="it was cancelled"), who=self._pool.describe()))
        elif (fault := done.exception()) is not None:
            self.call.finish(None, fault)
        else:
            self.call.finish(done.result(), None)

    def _stop(self) -> None:
        if self._inner is not None:
            self._inner.cancel()


class _Held(Iterator[Any]):
    """A stream, and with it the worker that gives it."""

    def __init__(self, turn: _Turn, stream: Any) -> None:
        self._turn = turn
        self._stream = stream

    def __next__(self) -> Any:
        try:
            return next(self._stream)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Want no more."""
        self._stream.close()
        self._turn.over()

    def __del__(self) -> None:
        self._turn.over_soon()
