"""Runs in: the monitor, on a thread of its own, `bunri-supervisor`.

It does what must not wait for the program: reads what zygotes report, drains workers' output, kills what is over its
time, reaps by report, refills pools. It runs no code of the program and waits for no worker.

One poll loop. Sources are added from any thread; a pipe to itself wakes it. While calls are in flight it looks at
clocks every `TICK`; else it sleeps.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from bunri.errors import HostError

log = logging.getLogger("bunri.supervisor")

TICK = 0.02  # seconds between looks at the clocks of busy workers
_QUIET = 25  # ticks without a call after which a worker is no longer looked at


class Watched(Protocol):
    """Something whose clocks are looked at while it is busy."""

    watched: bool
    """Whether the supervisor looks at it. Set by whoever calls `watch`, taken back by the supervisor."""

    def tick(self, now: float) -> bool:
        """Look; False when there was nothing to look at."""
        ...


class Supervisor:
    """The loop. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._reader, select.EPOLLIN)
        self._sources: dict[int, Callable[[], None]] = {}
        self._busy: dict[Watched, int] = {}  # -> quiet ticks
        self._next_look = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._todo: list[Callable[[], None]] = []
        self._lock = threading.RLock()  # a stub may be collected, and end its worker, in the middle of any of these
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="bunri-supervisor", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as fault:  # as threading says it
            self.close_descriptors()
            raise HostError(
                f"bunri's own thread could not be started: {fault}",
                layer="supervisor",
                remedy="Give the program more memory (RLIMIT_AS) or more processes (RLIMIT_NPROC, pids.max)",
            ) from fault

    @property
    def is_current(self) -> bool:
        """Whether the caller is the supervisor itself."""
        return threading.current_thread() is self._thread

    def add(self, number: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever descriptor `number` can be read."""
        with self._lock:
            self._sources[number] = ready
            self._poll.register(number, select.EPOLLIN)

    def remove(self, number: int) -> None:
        """Forget the descriptor; before it is closed."""
        with self._lock:
            if self._sources.pop(number, None) is not None:
                self._poll.unregister(number)

    def watch(self, worker: Watched) -> None:
        """Look at the worker's clocks until it has been idle for a while."""
        with self._lock:
            asleep = not self._busy
            self._busy[worker] = 0
        if asleep:
            self._wake()

    def forget(self, worker: Watched) -> None:
        """It is over: there is nothing to look at."""
        with self._lock:
            self._busy.pop(worker, None)

    def run_soon(self, action: Callable[[], None]) -> None:
        """Run `action` on the supervisor's thread."""
        with self._lock:
            self._todo.append(action)
        if not self.is_current:
            self._wake()

    def run_at(self, when: float, action: Callable[[], None]) -> None:
        """Run `action` at `when` (time.monotonic, seconds)."""
        with self._lock:
            is_next = not self._timers or when < self._timers[0][0]
            heapq.heappush(self._timers, (when, next(self._order), action))
        if is_next and not self.is_current:
            self._wake()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping = True
        self._wake()
        if not self.is_current:
            self._thread.join()
        self.close_descriptors()

    def close_descriptors(self) -> None:
        """Close what belongs to the loop. In a forked child, where the thread does not exist, all that is left to
        do."""
        self._poll.close()
        for number in (self._reader, self._writer):
            os.close(number)
        self._reader = self._writer = -1  # the numbers may be somebody else's from now on

    def _wake(self) -> None:
        if self._writer < 0:
            return
        try:
            os.write(self._writer, b"w")
        except BlockingIOError:
            return  # it is awake already: the pipe is full of wakes

    def _run(self) -> None:
        while not self._stopping:
            for number, _ in self._poll.poll(self._patience(), 64):
                if number == self._reader:
                    self._drain_wakes()
                    continue
                ready = self._sources.get(number)
                if ready is not None:
                    self._guard(ready)
            self._run_due()
            self._look_at_clocks()

    def _patience(self) -> float:
        if self._todo:
            return 0
        now = time.monotonic()
        longest = max(0.0, self._next_look - now) if self._busy else -1.0
        if self._timers:
            until = max(0.0, self._timers[0][0] - now)
            return until if longest < 0 else min(longest, until)
        return longest

    def _drain_wakes(self) -> None:
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            return

    def _run_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due, self._todo = self._todo, []
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
        for action in due:
            self._guard(action)

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        if not self._busy or now < self._next_look:
            return
        self._next_look = now + TICK
        for worker in list(self._busy):
            seen = False
            try:
                seen = worker.tick(now)
            except Exception:
                log.exception("looking at the clocks of %r failed", worker)
            with self._lock:
                if worker not in self._busy:
                    continue  # forgotten meanwhile
                quiet = 0 if seen else self._busy[worker] + 1
                self._busy[worker] = quiet
            if quiet >= _QUIET:
                self._let_rest(worker, now)

    def _let_rest(self, worker: Watched, now: float) -> None:
        """Look at it no more. A call may begin in this very moment: it sees `watched` and relies on us, or asks to be
        watched. So the flag goes first, and then we look once more."""
        worker.watched = False
        if worker.tick(now):
            worker.watched = True
            return
        with self._lock:
            if not worker.watched:
                self._busy.pop(worker, None)

    def _guard(self, action: Callable[[], None]) -> None:
        """One action's fault must not end the supervision of all the others; it is logged, with its traceback."""
        try:
            action()
        except Exception:
            log.exception("the supervisor met a fault of bunri")
