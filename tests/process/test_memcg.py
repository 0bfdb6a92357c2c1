"""Runs in: the test process, as monitor. A memory cgroup for each worker, where the program has groups to share out.

Where it has none, the controls show what is missing: rlimits bound each process, and nothing bounds their sum.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hoarder
import pytest

import bunri
from bunri.confine import detect
from bunri.kernel import cgroup
from bunri.plan.report import State

MIB = 1 << 20


@pytest.fixture
def groups() -> Path:
    """The directory in which the groups of workers are made."""
    host = detect()
    if not host.memory_groups:
        pytest.skip(f"no memory cgroups here: {host.remarks['memory_groups']}")
    return Path(cgroup.parent_for(os.getpid())[0])


def made_by(pid: int, groups: Path) -> list[Path]:
    return sorted(groups.glob(f"bunri-{pid}-*"))


def test_a_worker_is_in_a_group_of_its_own_with_its_memory_as_bound(groups: Path) -> None:
    with hoarder.Hoarder.start() as worker:
        worker.take(1)
        path = cgroup.path_of(worker.process.pid)
        assert path is not None
        group = groups / Path(path).name
        assert cgroup.members(str(group)) == [worker.process.pid]
        assert (group / "memory.max").read_text().strip() == str(64 * MIB)
        layer = next(each for each in worker.process.report.layers if each.name == "memory cgroup")
        assert (layer.state, layer.observed_by) == (State.IN_FORCE, bunri.Observer.MONITOR)
    assert not group.exists()


def test_processes_that_take_their_share_each_are_ended_together(groups: Path) -> None:
    """Attack: each process of the worker stays below its own limit; the sum is four times the policy's."""
    with hoarder.Hoarder.start() as neighbour, hoarder.Family.start() as worker:
        theirs = [groups / Path(cgroup.path_of(each.process.pid) or "").name for each in (neighbour, worker)]
        assert all(map(Path.is_dir, theirs))
        with pytest.raises(bunri.WorkerDied, match="used up its memory of 67108864 bytes"):
            worker.take_each(3, 40 * MIB)
        assert neighbour.take(MIB) == MIB
    assert not any(map(Path.exists, theirs))


def test_without_a_group_the_sum_is_not_bounded() -> None:
    """Control: the same, where nothing counts them together."""
    if detect().memory_groups:
        pytest.skip("this program has memory cgroups: see the attack")
    with hoarder.Uncounted.start() as worker:
        assert worker.take_each(3, 40 * MIB) == 120 * MIB


def test_several_processes_are_refused_where_nothing_counts_them_together() -> None:
    if detect().memory_groups:
        pytest.skip("this program has memory cgroups")
    with pytest.raises(bunri.HostError, match="memory cgroup"):
        hoarder.Family.start()


def test_memory_can_be_lowered_from_outside(groups: Path) -> None:
    with hoarder.Hoarder.start() as worker:
        worker.take(1)
        worker.process.narrow(hoarder.Hoarder.policy.with_(memory="48M"))
        path = cgroup.path_of(worker.process.pid)
        assert path is not None
        assert (groups / Path(path).name / "memory.max").read_text().strip() == str(48 * MIB)


def test_what_a_killed_program_left_behind_is_removed_by_the_next(groups: Path) -> None:
    program = "import hoarder, os, signal\nhoarder.Hoarder.start().take(1)\nprint(os.getpid(), flush=True)\nos.kill(os.getpid(), 9)"
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests/process", *sys.path])}
    killed = subprocess.run([sys.executable, "-c", program], env=here, stdout=subprocess.PIPE, text=True, check=False)
    left = made_by(int(killed.stdout), groups)
    assert len(left) == 1
    after = "import hoarder\nhoarder.Hoarder.start().take(1)"
    subprocess.run([sys.executable, "-c", after], env=here, check=True)
    assert not left[0].exists()


def test_memory_can_be_lowered_without_a_group_too() -> None:
    with hoarder.Hoarder.start() as worker:
        assert worker.take(30 * MIB) == 30 * MIB
        worker.process.narrow(hoarder.Hoarder.policy.with_(memory="8M"))
        with pytest.raises((bunri.RemoteError, bunri.WorkerDied), match="MemoryError|memory"):
            worker.take(30 * MIB)
