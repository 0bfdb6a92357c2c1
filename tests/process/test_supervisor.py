"""Runs in: the test process. The supervisor does what is due, and is not woken for anything else."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import parts
import pytest

import bunri
from bunri.channel.target import target_of
from bunri.process.supervisor import TICK, Supervisor


class Clocks:
    """Counts how often it is looked at."""

    watched = True

    def __init__(self) -> None:
        self.looks = 0

    def tick(self, now: float) -> bool:
        self.looks += 1
        return True


def test_clocks_are_looked_at_once_a_tick_however_much_happens() -> None:
    supervisor, clocks = Supervisor(), Clocks()
    try:
        begun = time.monotonic()
        supervisor.watch(clocks)
        while time.monotonic() - begun < 5 * TICK:
            supervisor.run_soon(lambda: None)
            time.sleep(TICK / 20)
        assert 2 <= clocks.looks <= (time.monotonic() - begun) / TICK + 1
    finally:
        supervisor.stop()


def test_only_a_timer_that_is_the_next_one_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, came = Supervisor(), threading.Event()
    wakes: list[float] = []
    wake = supervisor._wake
    try:
        supervisor.run_at(time.monotonic() + 60, lambda: None)
        time.sleep(0.05)  # it sleeps again
        monkeypatch.setattr(supervisor, "_wake", lambda: (wakes.append(time.monotonic()), wake()))
        supervisor.run_at(time.monotonic() + 120, lambda: None)
        assert not wakes
        supervisor.run_at(time.monotonic() + 0.05, came.set)
        assert len(wakes) == 1 and came.wait(5)
    finally:
        supervisor.stop()


def test_a_timer_that_is_in_no_hurry_wakes_nobody_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is first among the timers, and the supervisor, which sleeps, has not seen it."""
    supervisor, lazy, prompt = Supervisor(), threading.Event(), threading.Event()
    try:
        time.sleep(0.05)  # it has gone to sleep
        monkeypatch.setattr(supervisor, "_wake", lambda wake=supervisor._wake: (wakes.append(1), wake()))
        wakes: list[int] = []
        supervisor.run_about(time.monotonic(), lazy.set)
        assert not wakes and not lazy.wait(0.1)
        supervisor.run_at(time.monotonic() + 0.05, prompt.set)
        assert prompt.wait(5) and lazy.is_set()
    finally:
        supervisor.stop()


def test_a_worker_is_killed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = signal.pidfd_send_signal

    def counted(pidfd: int, number: int, *more: Any) -> None:
        if pidfd == behind.pidfd:  # others may end meanwhile: workers that stood ready
            sent.append(number)
        send(pidfd, number, *more)

    worker = parts.Plain.start()
    assert worker.add(1) == 1
    process = worker.process
    behind = target_of(worker)
    monkeypatch.setattr(signal, "pidfd_send_signal", counted)
    behind.kill("it was told to")
    behind.kill("and told so again")
    assert process.wait().signal == signal.SIGKILL
    assert sent == [signal.SIGKILL]


def test_a_call_that_no_clock_ends_is_let_rest_and_a_new_budget_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunri.process.supervisor._QUIET", 2)

    async def go() -> None:
        async with parts.Unbounded.start() as worker:
            side = target_of(worker).side
            begun = bunri.call(worker.wait, 60.0, 1)
            for _ in range(100):
                if not side.watched:
                    break
                await asyncio.sleep(TICK)
            assert not side.watched and not begun.done()
            worker.process.narrow(parts.Unbounded.policy.with_(wall="100ms"))
            with pytest.raises(bunri.WorkerDied, match="wall time"):
                await begun
        async with parts.Unbounded.start() as worker:
            side = target_of(worker).side
            with bunri.deadline(60):
                begun = bunri.call(worker.wait, 1.0, 1)
            await asyncio.sleep(20 * TICK)
            assert side.watched
            assert await begun == 1

    asyncio.run(go())


def test_a_worker_that_is_over_is_not_looked_at_again() -> None:
    worker = parts.Plain.start()
    assert worker.add(1) == 1
    behind = target_of(worker)
    assert behind.side in behind.program.supervisor._busy
    worker.close()
    assert behind.side not in behind.program.supervisor._busy
