"""Runs in: the test process. Workers kept ready for `start`: confined before anybody has them, and nobody's second."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import parts
import pytest

import bunri
from bunri.process import ahead, program, spares
from bunri.process.spares import Spares


def spares_of(cls: type[bunri.Compartment], policy: bunri.Policy | None = None) -> Spares:
    """The spares of the class's template, which this starts, or of another one. That may take a while, and what comes before it is
    no repeated start then."""
    for _ in range(3):
        with cls.start_under(policy or cls.policy):
            pass
    found = program.current().role_for(cls).template_for(cls, policy or cls.policy).spares
    until_ready(found)
    return found


def until_ready(found: Spares) -> None:
    """As many as are to stand ready do, or more, of which so many were wanted before."""
    until(lambda: len(found) >= found.number and all(w.side.open for w in found._waiting))


def beyond() -> int:
    """How many there are, but for the first few of each template."""
    return sum(max(0, len(template.spares) - spares.LEAST) for template in program.current().templates())


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _as_if_alone() -> None:
    """Those that other tests left would have uids and places that this one needs: a role knows 64 uids at first."""
    every = [template.spares for template in program.current().templates()]
    for each in every:
        each._wanted = 0  # none is made any more
    left = [worker for each in every for worker in list(each._waiting)]
    for worker in left:
        worker.kill("it was another test's spare")
    until(lambda: all(worker._exit is not None for worker in left))


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
        assert [first.process.pid, second.process.pid] == ready[:2]
        assert (first.add(3), second.add(7)) == (3, 7)
        until(lambda: len(found) >= found.number)
        assert not {worker.pid for worker in found._waiting} & set(ready[:2])


def test_as_many_stand_ready_as_were_started_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """But while starts may follow only the first few are made anew: who starts waits for the same processors."""
    monkeypatch.setattr(spares, "QUIET", 1000.0)
    policy = parts.Plain.policy.with_(memory="74M")
    for _ in range(5):
        parts.Plain.start_under(policy).close()
    found = program.current().role_for(parts.Plain).template_for(parts.Plain, policy).spares
    assert found.number == 5
    until(lambda: len(found) == spares.LEAST)
    time.sleep(0.2)
    assert len(found) == spares.LEAST
    monkeypatch.setattr(spares, "QUIET", 0.01)
    for _ in range(2 * spares.MOST):
        parts.Plain.start_under(policy).close()
    assert found.number == spares.MOST
    until(lambda: len(found) == spares.MOST)
    monkeypatch.setattr(spares, "TOGETHER", 0.0)
    monkeypatch.setattr(spares, "KEPT", 0.0)
    parts.Plain.start_under(policy).close()
    assert found.number == spares.LEAST, "that was long ago"


def test_a_program_has_no_more_of_them_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many policies it starts workers under. The first few of each are not counted."""
    monkeypatch.setattr(spares, "QUIET", 0.01)
    monkeypatch.setattr(spares, "MOST_IN_ALL", 3)
    policies = [parts.Plain.policy.with_(memory=f"{size}M") for size in (76, 77)]
    for policy in policies:
        for _ in range(5):
            parts.Plain.start_under(policy).close()
    role = program.current().role_for(parts.Plain)
    found = [role.template_for(parts.Plain, policy).spares for policy in policies]
    until(lambda: sum(map(len, found)) >= 2 * spares.LEAST)
    time.sleep(0.5)
    assert [each.number for each in found] == [5, 5]
    assert all(len(each) >= spares.LEAST for each in found)
    assert 0 < beyond() <= spares.MOST_IN_ALL


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


def faults_of(pid: int) -> int:
    """Minor page faults so far, which copies of pages are (proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def taught_spares(policy: bunri.Policy) -> Spares:
    """All were made when all had been learned."""
    for _ in range(5):
        with parts.Plain.start_under(policy) as worker:
            worker.add(1)
    found = program.current().role_for(parts.Plain).template_for(parts.Plain, policy).spares
    until_ready(found)
    for _ in range(len(found)):
        parts.Plain.start_under(policy).close()
    until_ready(found)
    return found


def faults_from_start_to_answer(policy: bunri.Policy) -> int:
    found = taught_spares(policy)
    before = {worker.pid: faults_of(worker.pid) for worker in found._waiting}
    with parts.Plain.start_under(policy) as worker:
        worker.add(1)
        pid = worker.process.pid
        return faults_of(pid) - before[pid]


@pytest.mark.skipif(os.getuid() != 0, reason="a process that is not dumpable shows its pages to root only")
def test_spares_have_copied_what_workers_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without lessons they have not."""
    taught = faults_from_start_to_answer(parts.Plain.policy.with_(memory="71M"))
    monkeypatch.setattr(ahead, "LESSONS", 0)
    untaught = faults_from_start_to_answer(parts.Plain.policy.with_(memory="72M"))
    assert taught < untaught / 2


PINNING = """\
import parts
from test_spares import pages_of, faults_of, pinned_by, spares, taught_spares, until
spares.KEPT = 2.0
found = taught_spares(parts.Plain.policy)
pages, template = found._written._pages, found._template
for worker in found._waiting:
    print("shared", len(pages - pages_of(worker.pid)), "of", len(pages), "faults", faults_of(worker.pid))
print("pinned", pinned_by(template.pid))
until(lambda: not pinned_by(template.pid))
print("pinned", pinned_by(template.pid))
for _ in range(2):
    parts.Plain.start().close()
until(lambda: pinned_by(template.pid))
print("pinned", pinned_by(template.pid))
"""


def pages_of(pid: int) -> set[int]:
    """Those that nobody else has."""
    return {address for address, own in ahead._pages_of(pid) if own}


def pinned_by(pid: int) -> int:
    """KiB (proc_pid_status(5))."""
    found = re.search(r"^VmPin:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.skipif(os.getuid() != 0, reason="a process that is not dumpable shows its pages to root only")
def test_a_template_copies_for_its_spares_in_the_fork() -> None:
    """Where the host has io_uring: else each makes them itself, by as many faults as there are pages. And it keeps no memory from
    being swapped out while nobody starts any. In a program of its own: there is a limit for all templates of a user."""
    if not program.current().host.io_uring:
        pytest.skip("this host has no io_uring")
    done = subprocess.run(
        [sys.executable, "-c", PINNING], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    *workers, at_work, idle, again = [
        [int(word) for word in line.split() if word.isdigit()] for line in done.stdout.splitlines()
    ]
    assert len(workers) >= spares.LEAST
    for shared, pages, faults in workers:
        assert shared < pages / 10
        assert faults < pages / 2
    assert at_work == again > idle == [0]


def test_a_worker_that_writes_everywhere_costs_spares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST", 300)
    policy = parts.Plain.policy.with_(memory="73M")
    for _ in range(3):
        with parts.Plain.start_under(policy) as worker:
            worker.write_everywhere()
    written = program.current().role_for(parts.Plain).template_for(parts.Plain, policy).spares._written
    assert not written._pages


def test_a_worker_with_much_memory_holds_nobody_up() -> None:
    """It is looked at by whoever ends it, be that a loop: half a second for 32 GiB of nothing, and as much memory as that takes."""
    found = spares_of(parts.Wide)
    with parts.Wide.start() as worker:
        template, pid = found._template.pid, worker.process.pid
        assert ahead.Written().learn(template, pid) is not None
        worker.grow(1 << 30)
        assert ahead.Written().learn(template, pid) is None


def test_a_refused_start_does_not_end_the_spares() -> None:
    """Whether `__init__` raises may be for a peer to choose: the starts of all others would be slow from then on."""
    for _ in range(2):
        with parts.Choosy.start("me"):
            pass
    found = program.current().role_for(parts.Choosy).template_for(parts.Choosy, parts.Choosy.policy).spares
    until_ready(found)
    with pytest.raises(bunri.RemoteError, match="somebody else"), parts.Choosy.start("you"):
        pass
    until_ready(found)
    assert not found._closed


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
    next_ones = list(found._waiting)[: spares.LEAST]  # not all: five deaths are held against a class (THREATS 8)
    victims = [worker.pid for worker in next_ones]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(worker.pid in victims for worker in found._waiting))
    with parts.Plain.start() as worker:
        assert worker.add(4) == 4
        assert worker.process.pid not in victims


def test_without_starts_they_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "KEPT", 0.5)
    found = spares_of(parts.Plain, parts.Plain.policy.with_(memory="75M"))  # nobody looks after these yet
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
    until_ready(found)
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
    assert len(pids) >= 2
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
        until(lambda: len(made) == found.number)
        time.sleep(0.5)
    assert len(made) == found.number


def test_a_spare_that_comes_too_late_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else it would be ended as unwanted, and the next one made for it, without end."""
    found = spares_of(parts.Plain)
    made: list[float] = []
    monkeypatch.setattr(spares, "KEPT", 0.3)
    monkeypatch.setattr(spares, "PAUSE", 0.4)
    monkeypatch.setattr(spares, "QUIET", 0.4)
    monkeypatch.setattr(found, "_make", lambda: made.append(time.monotonic()))
    with parts.Plain.start(), parts.Plain.start():
        time.sleep(1)
    assert not made
    until(lambda: not len(found))
