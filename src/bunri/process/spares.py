"""Runs in: the monitor. Workers that stand ready for `start`: cloned, confined and looked at, waiting for START.

A spare has been sent nothing, so it belongs to nobody until a start takes it; a used worker never comes here
(THREATS 3). They are made for a policy, its holes filled, once it is started repeatedly; one at a time, on the
supervisor's thread, so that the caller does not wait for them. As many stand ready as were started in one second, so
that the next burst finds them; but while the starts last, only the first few are made anew: the others would take from
the callers the processors that they wait for. Without starts for a while all are ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from bunri.errors import BunriError
from bunri.process.ahead import Written
from bunri.process.messages import Ahead

if TYPE_CHECKING:
    import asyncio

    from bunri.process.life import Worker
    from bunri.process.templates import TemplateHandle

LEAST, MOST = 2, 8  # of one template that is started repeatedly: each costs what a worker costs
MOST_IN_ALL = 16  # of a program, beyond LEAST of each template: they have descriptors that it may need itself
TOGETHER = 1.0  # seconds: starts within them belong together
PAUSE = 0.002  # seconds from a start to the making of the next one, of the first few
QUIET = 0.05  # seconds without a start until the others are made
KEPT = 10.0  # seconds without a start after which they are ended


class Spares:
    """The spare workers of one template."""

    def __init__(self, template: TemplateHandle) -> None:
        self._template = template
        self._waiting: deque[Worker] = deque()
        self._last_start = float("-inf")
        self._starts: deque[float] = deque(maxlen=MOST)  # the last ones
        self.number = LEAST  # so many are to stand ready
        self._number_since = float("-inf")
        self._refill_due = float("inf")  # the next one
        self._wanted = 0  # so many may be made for the last start, and no more where each dies at once
        self._wanted_ever = False
        self._watching = False  # a look whether anybody still starts any is due
        self._closed = False
        self._written = Written()
        self._memory: tuple[int, ...] = ()  # what they copy ahead
        self._told: tuple[int, ...] = ()  # of it, the template; none while nobody starts any
        self._telling = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, worker: object) -> bool:
        return worker in self._waiting

    def take(self, loop: asyncio.AbstractEventLoop | None) -> Worker | None:
        """One that is ready, now the caller's; None where there is none."""
        program, now = self._template.program, time.monotonic()
        with program.lock:
            repeated = now - self._last_start < KEPT
            self._last_start = now
            self._count(now)
            found = self._first_ready()
            if repeated:
                self._wanted, self._wanted_ever = self.number, True
                self._refill_at(self._when_to_refill())
        if repeated and self._told is not self._memory:
            self._tell(self._memory)
        if found is not None:
            found.belongs_to(loop)
        return found

    def learn_from(self, used: Worker) -> None:
        """A worker of this template is about to be killed: what it has written to, the next ones copy ahead."""
        template = self._template
        if not self._wanted_ever or template.ended:
            return
        memory = self._written.learn(template.pid, used.pid)
        if memory is not None:
            self._memory = memory
            self._tell(memory)

    def _tell(self, memory: tuple[int, ...]) -> None:
        with self._telling:
            self._told = memory
            self._template.say(Ahead(memory), ())

    def close(self) -> None:
        """End them, and make no more."""
        with self._template.program.lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for worker in waiting:
            worker.kill("it was a spare, and is not needed")

    def _count(self, now: float) -> None:
        """A start has come."""
        self._starts.append(now)
        together = max(LEAST, sum(each > now - TOGETHER for each in self._starts))
        if together >= self.number or now - self._number_since > KEPT:
            self.number, self._number_since = together, now

    def _when_to_refill(self) -> float:
        return self._last_start + (PAUSE if len(self._waiting) < LEAST else QUIET)

    def _has_room(self) -> bool:
        beyond = (len(template.spares) - LEAST for template in self._template.program.templates())
        return len(self._waiting) < LEAST or sum(max(0, each) for each in beyond) < MOST_IN_ALL

    def _first_ready(self) -> Worker | None:
        for worker in list(self._waiting):
            if worker.is_over:
                self._waiting.remove(worker)
            elif worker.side.open:
                self._waiting.remove(worker)
                return worker
        return None

    def _refill_at(self, when: float) -> None:
        if self._closed:
            return
        supervisor = self._template.program.supervisor
        if when < self._refill_due:
            self._refill_due = when
            supervisor.run_about(when, lambda: self._refill(when))  # the start itself is a call in flight
        if not self._watching:
            self._watching = True
            supervisor.run_about(self._last_start + KEPT, self._end_idle)

    def _refill(self, due: float) -> None:
        """Make one more. On the supervisor's thread."""
        template = self._template
        with template.program.lock:
            if due != self._refill_due:
                return  # another was due before it, and will see to the rest
            self._refill_due = float("inf")
            if self._closed or template.ended or template.failure is not None:
                return
            if self._wanted <= 0 or len(self._waiting) >= self.number:
                return
            now = time.monotonic()
            if now - self._last_start > KEPT:  # the supervisor was held up meanwhile
                return
            when = self._when_to_refill()
            if now < when:
                self._refill_at(when)
                return
            if not self._has_room():
                return
            self._wanted -= 1
            if self._wanted and len(self._waiting) + 1 < self.number:
                self._refill_at(now + PAUSE)
        self._make()

    def _end_idle(self) -> None:
        """End those that nobody has wanted for a while."""
        with self._template.program.lock:
            self._watching = False
            until = self._last_start + KEPT
            if time.monotonic() < until:
                self._watching = not self._closed
                if self._watching:
                    self._template.program.supervisor.run_at(until, self._end_idle)
                return
            unwanted, self._waiting = list(self._waiting), deque()
        if self._told:
            self._tell(())  # it need not keep that memory pinned
        for worker in unwanted:
            worker.kill("it was a spare, and is not needed")

    def _make(self) -> None:
        """What hinders it hinders the next start as well, which says so to its caller."""
        template = self._template
        try:
            if template.program.held_back(template.cls.__module__):
                return
            worker = template.make_worker(None)
        except (BunriError, OSError):
            return
        with template.program.lock:
            closed = self._closed  # meanwhile
            if not closed:
                self._waiting.append(worker)
        if closed:
            worker.kill("it was a spare, and is not needed")
            return
        worker.on_exit(lambda _: self._forget(worker))
        worker.side.read_in_background()

    def _forget(self, worker: Worker) -> None:
        """It has ended. One that never was ready is not tried again and again: the next start will say why. What ended one
        that was taken, as its `__init__` may, says nothing of the next."""
        with self._template.program.lock:
            self._closed = self._closed or (worker.init is None and worker.start_failure() is not None)
            if worker in self._waiting:
                self._waiting.remove(worker)
