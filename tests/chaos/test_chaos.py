"""Runs in: the test process, and programs that it starts. Processes are killed and stopped at random, under load.

A death stays where it is: its own calls fail with the cause, others give what they would have given, and the next
start makes what is missing. BUNRI_SOAK=1 (`make soak`) makes it long.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import steady
import victim

import bunri
from bunri.process import program

LONG = os.environ.get("BUNRI_SOAK") == "1"
SECONDS = 60.0 if LONG else 4.0
HERE = Path(__file__).parent


def undisturbed(steps: int) -> list[int]:
    worker = steady.Steady()
    return [worker.step(number) for number in range(steps)]


class Load:
    """Threads that start victims and call them, and one that kills and stops what it finds of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.answers = 0
        self.deaths: list[BaseException] = []
        self.wrong: list[object] = []
        self.kills = 0
        self._threads = [threading.Thread(target=self._use) for _ in range(3)]
        self._threads.append(threading.Thread(target=self._kill))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(15)
        if any(thread.is_alive() for thread in self._threads):
            faulthandler.dump_traceback(all_threads=True)
            raise AssertionError("a thread hangs in a start or a call")

    def _use(self) -> None:
        while not self.stop.is_set():
            try:
                with victim.Victim.start() as worker, bunri.deadline(5):
                    for number in range(20):
                        answer = worker.twice(number)
                        self.answers += 1
                        if answer != number * 2:
                            self.wrong.append(answer)
            except (bunri.WorkerDied, bunri.HostError, TimeoutError) as fault:
                self.deaths.append(fault)
            except BaseException as fault:
                self.wrong.append("".join(traceback.format_exception(fault)))

    def _kill(self) -> None:
        while not self.stop.wait(self.random.uniform(0.005, 0.05)):
            pids = victims()
            if not pids:
                continue
            pid = self.random.choice(pids)
            number = self.random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                self.kills += 1
                if number == signal.SIGSTOP:
                    time.sleep(0.02)
                    os.kill(pid, signal.SIGCONT)
            current = program.current()
            current.forgive()


def victims() -> list[int]:
    """The pids of the victims' workers, templates and role."""
    role = program.current()._roles.get("victim")
    if role is None:
        return []
    templates = list(role._all.values())
    pids = [worker.pid for template in templates for worker in list(template.workers.values())]
    return [pid for pid in (*pids, *(t.pid for t in templates), role.pid) if pid]


@pytest.mark.slow
def test_workers_of_other_zygotes_never_notice() -> None:
    with steady.Steady.start() as worker:
        first = worker.step(0)
        with Load(1) as load:
            answers, until = [first], time.monotonic() + SECONDS
            while time.monotonic() < until:
                answers.append(worker.step(len(answers)))
    assert answers == undisturbed(len(answers))
    assert not load.wrong, "\n".join(map(str, load.wrong[:3]))
    assert load.kills > 10
    assert load.deaths
    assert load.answers > 20
    with victim.Victim.start() as other:
        assert other.twice(4) == 8


def _role() -> program.Role:
    return program.current()._roles["victim"]


@pytest.mark.parametrize("which", ["the role", "the template"])
def test_a_zygotes_own_workers_die_with_it_and_the_next_start_makes_a_new_one(which: str) -> None:
    with victim.Victim.start() as worker:
        assert worker.twice(1) == 2
        role = _role()
        template = next(iter(role._all.values()))
        pid = role.pid if which == "the role" else template.pid
        slow = bunri.call(worker.sleep, 30)
        time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(bunri.WorkerDied, match="zygote died") as caught:
            slow.result(10)
        assert caught.value.exit.signal == signal.SIGKILL
        until = time.monotonic() + 5
        while os.path.exists(f"/proc/{worker.process.pid}") and time.monotonic() < until:
            time.sleep(0.01)
        assert not os.path.exists(f"/proc/{worker.process.pid}")
    with victim.Victim.start() as worker:
        assert worker.twice(2) == 4
        assert pid not in (_role().pid, *(t.pid for t in _role()._all.values()))


def test_a_stopped_worker_fails_its_call_at_the_deadline_and_can_be_closed() -> None:
    with victim.Victim.start() as worker:
        assert worker.twice(1) == 2
        os.kill(worker.process.pid, signal.SIGSTOP)
        with pytest.raises((TimeoutError, bunri.WorkerDied)), bunri.deadline(0.2):
            worker.twice(2)


_PROGRAM = """
import sys, threading
sys.path.insert(0, sys.argv[1])
import victim, bunri
from bunri.process import program
workers = [victim.Victim.start() for _ in range(4)]
for worker in workers:
    worker.twice(1)
here = program.current()
roles = list(here._roles.values())
pids = [w.process.pid for w in workers] + [r.pid for r in roles] + [t.pid for r in roles for t in r._all.values()]
print(*pids, here._bases[0]._process.pid, flush=True)
def use(worker):
    while True:
        worker.twice(1)
for worker in workers:
    threading.Thread(target=use, args=(worker,), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.1])
def test_nothing_outlives_a_monitor_that_is_killed_under_load(delay: float) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(HERE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        pids = [int(word) for word in monitor.stdout.readline().split()]
        time.sleep(delay)
        monitor.kill()
        assert len(pids) == 7
        until = time.monotonic() + 10
        while (left := [pid for pid in pids if _lives(pid)]) and time.monotonic() < until:
            time.sleep(0.01)
        assert not left


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
