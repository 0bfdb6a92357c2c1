"""Runs in: the test process, as monitor. Workers that compute on the memory they have: mode 1, and its mode-2 twin."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import computing
import pytest

import bunri
from bunri import seccomp

BOTH = pytest.mark.parametrize("compartment", [computing.Compute, computing.Strict])
ANSWERS = {
    "json": "[1, 2, 3]",
    "zlib": "100000",
    "struct": "(1,)",
    "regex": "['aa', 'aaa']",
    "xml": "a",
    "sqlite": "4950",
    "picture": "(10, 20, 30)",
    "deep": "900",
    "too deep": "RecursionError",
    "deep, often": "2000000",
}


class Here(computing.Oracle):
    """In the monitor."""

    def answer(self, question: str) -> int:
        return len(question)


@BOTH
def test_the_kernel_says_which_mode_it_is(compartment: type[computing.Compute]) -> None:
    with compartment.start() as worker:
        assert worker.add(1) == 1
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        mode = 1 if compartment is computing.Strict else 2
        assert f"Seccomp:\t{mode}\n" in status
        layer = next(each for each in worker.process.report.layers if each.name == "filter")
        assert layer.observed_by is bunri.Observer.MONITOR
        assert ("mode 1" in layer.detail) is (mode == 1)
        channel = worker.process.report.layer("descriptors")
        assert "Unix socket: read and write, no other calls" in channel.detail


@BOTH
def test_calls_and_streams_and_services_go_as_always(compartment: type[computing.Compute]) -> None:
    with compartment.start(Here()) as worker:
        assert [worker.add(n) for n in (1, 2, 3)] == [1, 3, 6]
        assert worker.moved(computing.Point(1, 2), by=4) == computing.Point(5, 2)
        assert list(worker.count(40)) == list(range(40))
        assert worker.ask("how many?") == 9
        assert [call.result() for call in bunri.map(worker.add, [0] * 200)] == [6] * 200
        with pytest.raises(bunri.RemoteError, match="no good"):
            worker.fail()
        assert worker.add(0) == 6


@BOTH
@pytest.mark.parametrize("size", [0, 1, 40_000, 9 << 20])
def test_bytes_of_any_size_come_back(compartment: type[computing.Compute], size: int) -> None:
    data = os.urandom(1024) * (size // 1024) if size > 1024 else bytes(size)
    with compartment.start() as worker:
        for _ in range(2):
            assert worker.echo(data) == data


@BOTH
@pytest.mark.parametrize("name", ANSWERS)
def test_what_parses_and_decodes_works(compartment: type[computing.Compute], name: str) -> None:
    with compartment.start() as worker:
        assert worker.work(name) == ANSWERS[name]


@BOTH
def test_memory_comes_from_what_it_has(compartment: type[computing.Compute]) -> None:
    with compartment.start() as worker:
        for _ in range(3):
            assert worker.objects(300_000) == 300_000


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("clock", signal.SIGSEGV, "clock"),
        ("lock", signal.SIGSEGV, "clock"),
        ("import", signal.SIGSEGV, "import"),
        ("pid", signal.SIGKILL, "pid"),
        ("open", signal.SIGKILL, "file"),
        ("memory", signal.SIGKILL, "memory"),
    ],
)
def test_what_cannot_work_in_mode_1_is_explained_afterwards(name: str, number: int, said: str) -> None:
    with computing.Ordinary.start() as control:
        if name in ("clock", "lock", "pid"):
            assert control.work(name)
    with computing.Strict.start() as worker:
        with pytest.raises(bunri.WorkerDied) as caught:
            worker.work(name)
    assert caught.value.exit.signal == number
    why = caught.value.__cause__
    assert isinstance(why, bunri.Violation) and said in str(why) and "compute" in str(why)


@pytest.mark.parametrize("name", ["open", "import", "memory"])
def test_in_its_twin_what_is_refused_is_an_error(name: str) -> None:
    with computing.Compute.start() as worker:
        assert worker.work("clock") and worker.work("lock") == "True"
        with pytest.raises((bunri.RemoteError, bunri.Violation)):
            worker.work(name)
        assert worker.add(1) == 1  # it lives on


@pytest.mark.parametrize("name", ["getpid", "openat", "socket", "clone", "mmap", "execve", "kill", "dup", "prctl"])
def test_no_call_but_four_is_answered(name: str) -> None:
    """Attack: native code asks the kernel itself."""
    number = seccomp.syscalls_of(os.uname().machine)[name]
    with computing.Compute.start() as worker:
        assert worker.call(number) == -1
    with computing.Strict.start() as worker, pytest.raises(bunri.WorkerDied) as caught:
        worker.call(number)
    assert caught.value.exit.signal == signal.SIGKILL
    with computing.Ordinary.start() as control:
        if name == "getpid":
            assert control.call(number) > 0


@BOTH
def test_attack_shaped_calls_are_death_in_both(compartment: type[computing.Compute]) -> None:
    number = seccomp.syscalls_of(os.uname().machine)["ptrace"]
    with compartment.start() as worker, pytest.raises(bunri.WorkerDied):
        worker.call(number)


@pytest.mark.parametrize("policy", [bunri.Policy.compute(), bunri.Policy.strict()])
def test_what_they_can_never_have_is_refused_early(policy: bunri.Policy) -> None:
    for changed in ({"threads": 1}, {"processes": 1}, {"files": [bunri.fs.read("/usr")]}):
        with pytest.raises(bunri.UsageError):
            policy.with_(**changed)  # type: ignore[arg-type]
