"""Runs in: the monitor. A pool: workers that stand ready, each for one call (THREATS 3).

A worker belongs to one principal, so it serves one call and is replaced behind the caller's back;
`Reuse.DANGEROUS_ACROSS_PRINCIPALS` keeps it. The supervisor starts the replacements. Calls that find no worker wait
in the order they came.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from bunri.calls import Call, current_deadline
from bunri.compartment import Compartment, Reuse
from bunri.errors import BunriError, DeadlineExceeded, Exit, UsageError, WorkerDied
from bunri.policy import Policy
from bunri.process import unconfined
from bunri.wire import MethodContract

if TYPE_CHECKING:
    from bunri.process.behind import Behind
    from bunri.process.supervisor import Supervisor


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
        self._idle: deque[Behind] = deque()
        self._waiting: deque[_Turn] = deque()
        self._alive: set[Behind] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._failure: BaseException | None = None
        self._owner = os.getpid()
        self._supervisor: Supervisor | None = None  # that of its workers
        self._factory = unconfined.factory  # of all its workers, also of those that come later
        for _ in range(size):
            self._add(self._start())

    # what a stub asks of it ----------------------------------------------------------------------------------------

    def invoke(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = method.bind(args, kwargs)
        self._refuse_fork()
        if self._loop is not None or asyncio._get_running_loop() is not None:
            if asyncio._get_running_loop() is not None:
                raise UsageError(
                    f"calling {method.name} here would block the event loop. Write: await bunri.call(pool.{method.name}, ...)"
                )
            return self._submit(method, bound).result()
        worker = self._take_or_wait()
        try:
            return worker.side.invoke(method, bound, {})
        finally:
            self.give_back(worker)

    def submit(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        return self._submit(method, method.bind(args, kwargs))

    def _refuse_fork(self) -> None:
        if os.getpid() != self._owner:
            raise UsageError(
                f"{self.describe()} belongs to the process that started it, and this is a forked child of that. Start a pool here"
            )

    def _submit(self, method: MethodContract, bound: tuple[Any, ...]) -> Call[Any]:
        self._refuse_fork()
        call: Call[Any] = Call()
        turn = _Turn(self, call, method, bound)
        call.attach(stop=turn.stop)
        worker = self._take(turn)
        if worker is not None:
            turn.begin(worker)
        return call

    def iterate(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._refuse_fork()
        worker = self._take_or_wait()
        return _held(self, worker, worker.iterate(method, args, kwargs))

    def iterate_async(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._refuse_fork()
        return self._held_async(method, args, kwargs)

    async def _held_async(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found: Call[Behind] = Call()
        turn = _Turn(self, found, None, ())
        worker = self._take(turn)
        if worker is None:
            worker = await found
        stream = worker.iterate_async(method, args, kwargs)
        try:
            async for item in stream:
                yield item
        finally:
            await stream.aclose()
            self.give_back(worker)

    def describe(self) -> str:
        return f"a pool of {self.size} {self._cls.__qualname__} workers"

    def process(self) -> Any:
        raise UsageError(
            "a pool has many processes, and each call takes another. Start one worker with start() to look at its process"
        )

    def wait_started(self) -> None:
        """Until one worker is ready; raises what its start found."""
        with self._lock:
            first = next(iter(self._idle), None)
        if first is not None:
            first.wait_started()

    async def wait_started_async(self) -> None:
        with self._lock:
            first = next(iter(self._idle), None)
        if first is not None:
            await first.wait_started_async()

    def close(self) -> None:
        """Kill and reap all workers; calls that wait for one fail."""
        if os.getpid() != self._owner:
            return
        for worker in self._shut():
            worker.kill("its pool was closed")
        if asyncio._get_running_loop() is None:
            for worker in list(self._alive):
                worker.wait_over()

    async def close_async(self) -> None:
        for worker in self._shut():
            await worker.close_async()

    def drop(self) -> None:
        """Its stub was collected: wherever that happens, also in a thread that holds our lock. So no lock is taken here."""
        if os.getpid() == self._owner and self._supervisor is not None:
            self._supervisor.run_soon(self._end_dropped)

    def _end_dropped(self) -> None:
        for worker in self._shut():
            worker.kill("its pool was dropped")

    def _shut(self) -> list[Behind]:
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
            alive = list(self._alive)
            self._idle.clear()
        for turn in waiting:
            turn.fail(WorkerDied(Exit(cause="its pool was closed"), who=self.describe()))
        return alive

    # workers -------------------------------------------------------------------------------------------------------

    def _start(self) -> Behind:
        from bunri.process.start import start_worker

        worker = start_worker(self._cls, self._policy, self._bound, self._loop, self._factory)
        self._supervisor = worker.program.supervisor
        return worker

    def _add(self, worker: Behind) -> None:
        self._alive.add(worker)
        worker.on_exit(lambda _: self._on_exit(worker))
        if self._loop is None:
            worker.side.read_in_background()
        self.offer(worker)

    def offer(self, worker: Behind) -> None:
        if self._closed:
            worker.kill("its pool was closed")
            return
        with self._lock:
            turn = self._waiting.popleft() if self._waiting else None
            if turn is None:
                self._idle.append(worker)
        if turn is not None:
            turn.begin(worker)

    def _take(self, turn: _Turn) -> Behind | None:
        with self._lock:
            if self._closed:
                raise UsageError(f"{self.describe()} was closed")
            while self._idle:
                worker = self._idle.popleft()
                if not worker.is_over:
                    return worker
            if self._failure is not None:
                raise self._failure
            self._waiting.append(turn)
        return None

    def _take_or_wait(self) -> Behind:
        found: Call[Behind] = Call()
        worker = self._take(_Turn(self, found, None, ()))
        if worker is not None:
            return worker
        until = current_deadline()
        from time import monotonic

        try:
            return found.result(None if until is None else max(0.0, until - monotonic()))
        except TimeoutError:
            found.cancel()
            raise DeadlineExceeded(f"no worker of {self.describe()} was free before the deadline") from None

    def give_back(self, worker: Behind) -> None:
        if self._cls.reuse is Reuse.DANGEROUS_ACROSS_PRINCIPALS and not worker.is_over:
            self.offer(worker)
        else:
            worker.kill("its one call is done")
            self._replace()

    def _on_exit(self, worker: Behind) -> None:
        """A worker has ended. One that stood ready is replaced here; one in a call by the end of that call."""
        with self._lock:
            self._alive.discard(worker)
            stood_ready = worker in self._idle
            if stood_ready:
                self._idle.remove(worker)
        failure = worker.start_failure()
        if failure is not None:
            self._fail(failure)
        elif stood_ready:
            self._replace()

    def _fail(self, failure: BaseException) -> None:
        """A worker could not start, and another would fail in the same way: whoever waits, or comes, is told."""
        with self._lock:
            self._failure = failure
            waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            turn.fail(failure)

    def _replace(self) -> None:
        if not self._closed:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._refill)
            elif self._supervisor is not None:
                self._supervisor.run_soon(self._refill)

    def _refill(self) -> None:
        if self._closed:
            return
        try:
            self._add(self._start())
        except BunriError as fault:
            self._fail(fault)


class _Turn:
    """A call that waits for a worker, or has one."""

    def __init__(self, pool: Pool, call: Call[Any], method: MethodContract | None, bound: tuple[Any, ...]) -> None:
        self._pool = pool
        self._call = call
        self._method = method
        self._bound = bound
        self._inner: Call[Any] | None = None

    def begin(self, worker: Behind) -> None:
        if self._method is None:  # somebody waits for a worker, to use it himself
            if self._call.set_running_or_notify_cancel():
                self._call.set_result(worker)
            else:
                self._pool.offer(worker)
            return
        if self._call.cancelled():
            self._pool.offer(worker)
            return
        inner = worker.side.submit(0, self._method, self._bound)
        self._inner = inner
        inner.add_done_callback(lambda done: self._finish(worker, done))

    def _finish(self, worker: Behind, done: Any) -> None:
        self._pool.give_back(worker)
        if done.cancelled():
            self._call.finish(None, WorkerDied(Exit(cause="it was cancelled"), who=self._pool.describe()))
        elif (fault := done.exception()) is not None:
            self._call.finish(None, fault)
        else:
            self._call.finish(done.result(), None)

    def stop(self) -> None:
        if self._inner is not None:
            self._inner.cancel()

    def fail(self, fault: BaseException) -> None:
        self._call.finish(None, fault)


def _held(pool: Pool, worker: Behind, stream: Any) -> Any:
    try:
        yield from stream
    finally:
        stream.close()
        pool.give_back(worker)
