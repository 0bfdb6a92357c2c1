"""Runs in: the test process. Workers kept ready for `start`: confined before anybody has them, and nobody's second."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import parts
import pytest

import bunri
from bunri.process import program, spares
from bunri.process.spares import Spares


def spares_of(cls: type[bunri.Compartment]) -> Spares:
    """The spares of the class's template, which this starts."""
    for _ in range(2):
        with cls.start():
            pass
    found = program.current().role_for(cls).template_for(cls, cls.policy).spares
    until(lambda: len(found) == spares.MOST and all(w.side.open for w in found._waiting))
    return found


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def test_a_spare_is_confined_and_looked_at_and_was_sent_nothing() -> None:
    for worker in spares_of(parts.Plain)._waiting:
        status = Path(f"/proc/{worker.pid}/status").read_text()
        assert "Seccomp:\t2" in status
        assert "CapEff:\t0000000000000000" in status
        assert {layer.state.value for layer in worker.report().layers if layer.name == "filter"} == {"in force"}
        assert worker.init is None
        assert next(worker.side._numbers) == 1, "a call was made on it"


def test_start_takes_a_spare_and_another_comes() -> None:
    found = spares_of(parts.Plain)
    ready = [worker.pid for worker in found._waiting]
    with parts.Plain.start() as first, parts.Plain.start() as second:
        assert [first.process.pid, second.process.pid] == ready
        assert (first.add(3), second.add(7)) == (3, 7)
        until(lambda: len(found) == spares.MOST)
        assert not {worker.pid for worker in found._waiting} & set(ready)


def test_threat_03_a_used_worker_is_never_a_spare() -> None:
    """Whatever served somebody once is seen by nobody else: no pid comes twice (pids are not reused so soon)."""
    served: set[int] = set()
    found = spares_of(parts.Plain)
    for _ in range(12):
        with parts.Plain.start() as worker:
            worker.add(1)
            pid = worker.process.pid
            assert pid not in served
            served.add(pid)
            assert pid not in {each.pid for each in found._waiting}
    assert not served & {each.pid for each in found._waiting}


def test_a_loop_takes_a_spare() -> None:
    ready = {worker.pid for worker in spares_of(parts.Plain)._waiting}

    async def main() -> tuple[int, int]:
        async with parts.Plain.start() as worker:
            return worker.process.pid, await bunri.call(worker.add, 42)

    pid, answer = asyncio.run(main())
    assert pid in ready
    assert answer == 42


def test_a_dead_spare_is_not_handed_out() -> None:
    found = spares_of(parts.Plain)
    victims = [worker.pid for worker in found._waiting]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(worker.pid in victims for worker in found._waiting))
    with parts.Plain.start() as worker:
        assert worker.add(4) == 4
        assert worker.process.pid not in victims


def test_without_starts_they_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "KEPT", 0.3)
    found = spares_of(parts.Plain)
    gone = list(found._waiting)
    until(lambda: len(found) == 0 and all(worker._exit is not None for worker in gone))
    with parts.Plain.start() as worker:
        assert worker.add(5) == 5


def test_a_policy_given_at_the_start_has_spares_of_its_own() -> None:
    """Once it was started repeatedly; a spare of one policy never serves under another."""
    policy = parts.Plain.policy.with_(memory="64M")
    others = {worker.pid for worker in spares_of(parts.Plain)._waiting}
    for _ in range(2):
        with parts.Plain.start_under(policy) as worker:
            assert worker.process.pid not in others
    found = program.current().role_for(parts.Plain).template_for(parts.Plain, policy).spares
    until(lambda: len(found) == spares.MOST and all(w.side.open for w in found._waiting))
    ready = [worker.pid for worker in found._waiting]
    with parts.Plain.start_under(policy) as worker:
        assert worker.process.pid == ready[0]
        assert worker.process.policy == policy and worker.add(1) == 1


def test_they_end_with_the_program() -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import parts\n"
        "from bunri.process import program\n"
        "for _ in range(3):\n"
        "    with parts.Plain.start() as w: w.add(1)\n"
        "found = program.current().role_for(parts.Plain).template_for(parts.Plain, parts.Plain.policy).spares\n"
        "while len(found) < 2: time.sleep(0.01)\n"
        "print(*[w.pid for w in found._waiting])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(parts.__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    pids = done.stdout.split()
    assert len(pids) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_spares_that_die_at_once_are_not_made_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    found = spares_of(parts.Plain)
    make, made = found._make, []

    def made_and_killed() -> None:
        make()
        made.append(time.monotonic())
        for worker in list(found._waiting):
            worker.kill("somebody ended it")

    monkeypatch.setattr(spares, "PAUSE", 0.05)  # by then it is over
    monkeypatch.setattr(found, "_make", made_and_killed)
    with parts.Plain.start(), parts.Plain.start():
        until(lambda: len(made) == spares.MOST)
        time.sleep(0.5)
    assert len(made) == spares.MOST


def test_a_spare_that_comes_too_late_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else it would be ended as unwanted, and the next one made for it, without end."""
    found = spares_of(parts.Plain)
    made: list[float] = []
    monkeypatch.setattr(spares, "KEPT", 0.3)
    monkeypatch.setattr(spares, "PAUSE", 0.4)
    monkeypatch.setattr(found, "_make", lambda: made.append(time.monotonic()))
    with parts.Plain.start(), parts.Plain.start():
        time.sleep(1)
    assert not made
    until(lambda: not len(found))
