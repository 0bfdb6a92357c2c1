"""Runs in: the monitor. Workers that stand ready for `start`: cloned, confined and looked at, waiting for START.

A spare has been sent nothing, so it belongs to nobody until a start takes it; a used worker never comes here
(THREATS 3). They are made for a policy, its holes filled, once it is started repeatedly; one at a time, after a
pause, on the supervisor's thread, so that the caller does not wait for them. Without starts for a while they are ended.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from bunri.errors import BunriError

if TYPE_CHECKING:
    from bunri.process.life import Worker
    from bunri.process.templates import TemplateHandle

MOST = 2  # of one template: each costs what a worker costs
PAUSE = 0.002  # seconds from a start to the making of the next one
KEPT = 10.0  # seconds without a start after which they are ended


class Spares:
    """The spare workers of one template."""

    def __init__(self, template: TemplateHandle) -> None:
        self._template = template
        self._waiting: deque[Worker] = deque()
        self._last_start = float("-inf")
        self._refilling = False  # a refill is due
        self._wanted = 0  # so many may be made for the last start, and no more where each dies at once
        self._watching = False  # a look whether anybody still starts any is due
        self._closed = False

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
            found = self._first_ready()
            if repeated:
                self._wanted = MOST
                self._refill_at(now + PAUSE)
        if found is not None:
            found.belongs_to(loop)
        return found

    def close(self) -> None:
        """End them, and make no more."""
        with self._template.program.lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for worker in waiting:
            worker.kill("it was a spare, and is not needed")

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
        if not self._refilling:
            self._refilling = True
            supervisor.run_at(when, self._refill)
        if not self._watching:
            self._watching = True
            supervisor.run_at(self._last_start + KEPT, self._end_idle)

    def _refill(self) -> None:
        """Make one more. On the supervisor's thread."""
        template = self._template
        with template.program.lock:
            self._refilling = False
            if self._closed or template.ended or template.failure is not None or len(self._waiting) >= MOST:
                return
            if time.monotonic() - self._last_start > KEPT:  # the supervisor was held up meanwhile
                return
            self._wanted -= 1
            if self._wanted and len(self._waiting) + 1 < MOST:
                self._refill_at(time.monotonic() + PAUSE)
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
        """It has ended. One that never was ready is not tried again and again: the next start will say why."""
        with self._template.program.lock:
            self._closed = self._closed or worker.start_failure() is not None
            if worker in self._waiting:
                self._waiting.remove(worker)
