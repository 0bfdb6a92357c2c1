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
import math
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from bunri.errors import HostError

log = logging.getLogger("bunri.supervisor")

_AWAKE = -math.inf
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
        self._sleeps_until = _AWAKE  # time.monotonic, as it was when it went to sleep
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
            is_first = not self._busy
            self._busy[worker] = 0
        if is_first:
            self._wake_before(time.monotonic() + TICK)

    def forget(self, worker: Watched) -> None:
        """It is over: there is nothing to look at."""
        with self._lock:
            self._busy.pop(worker, None)

    def run_soon(self, action: Callable[[], None]) -> None:
        """Run `action` on the supervisor's thread."""
        with self._lock:
            self._todo.append(action)
        self._wake_before(0.0)

    def run_at(self, when: float, action: Callable[[], None]) -> None:
        """Run `action` at `when` (time.monotonic, seconds)."""
        self.run_about(when, action)
        self._wake_before(when)

    def run_about(self, when: float, action: Callable[[], None]) -> None:
        """Run `action` at `when`, or later: when the supervisor is next awake. While a call is in flight that is after a tick at
        the most. To wake it up costs the caller a change of threads."""
        with self._lock:
            heapq.heappush(self._timers, (when, next(self._order), action))

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

    def _wake_before(self, when: float) -> None:
        """Wake it up if it would sleep longer. Awake, it sees for itself what has come before it goes to sleep."""
        with self._lock:
            asleep = when < self._sleeps_until
            if asleep:
                self._sleeps_until = _AWAKE
        if asleep:
            self._wake()

    def _wake(self) -> None:
        if self._writer < 0:
            return
        try:
            os.write(self._writer, b"w")
        except BlockingIOError:
            return  # it is awake already: the pipe is full of wakes

    def _run(self) -> None:
        while not self._stopping:
            ready_now = self._poll.poll(self._patience(), 64)
            self._sleeps_until = _AWAKE
            for number, _ in ready_now:
                if number == self._reader:
                    self._drain_wakes()
                    continue
                ready = self._sources.get(number)
                if ready is not None:
                    self._guard(ready)
            self._run_due()
            self._look_at_clocks()

    def _patience(self) -> float | None:
        """How long it may sleep; None: until it is woken."""
        with self._lock:  # what is asked for meanwhile is seen here, or wakes it up
            until = 0.0 if self._todo else self._next_look if self._busy else math.inf
            if self._timers:
                until = min(until, self._timers[0][0])
            self._sleeps_until = until
        return None if until == math.inf else max(0.0, until - time.monotonic())

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
