"""Runs in: the test process. What a program has after many starts, calls, transfers and streams is what it had before.

BUNRI_SOAK=1 (`make soak`) takes the long sizes: 10,000 starts, 100,000 calls, 10,000 descriptors, 1,000 streams.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import steady

import bunri
from bunri.process import program
from bunri.process.serving import MonitorSide
from bunri.process.templates import TemplateHandle

LONG = os.environ.get("BUNRI_SOAK") == "1"
SIZES = (10_000, 100_000, 10_000, 1_000) if LONG else (150, 4_000, 400, 60)
STARTS, CALLS, TRANSFERS, STREAMS = SIZES
COUNTED = ("descriptors", "children", "mounts", "namespaces", "uids")
GROWTH = 4 << 20  # bytes that the monitor or a zygote may be larger at the end: caches fill, a leak goes on


@dataclass(frozen=True)
class Held:
    """What the program's lasting processes hold. `memory` is compared with a margin, the rest exactly."""

    descriptors: dict[str, int]
    children: int
    mounts: dict[str, int]
    namespaces: int
    keyrings: int
    uids: int
    memory: dict[str, int]


def held() -> Held:
    gc.collect()
    here = program.current()
    role = here._roles["steady"]
    pids = {"monitor": os.getpid(), "base": here._bases[-1]._process.pid, "role": role.pid}
    pids |= {f"template of {t.cls.__name__}": t.pid for t in role._all.values()}
    return Held(
        descriptors={name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in pids.items() if _readable(pid)},
        children=sum(len(_children(pid)) for pid in pids.values()),
        mounts={name: _lines(f"/proc/{pid}/mountinfo") for name, pid in pids.items()},
        namespaces=len({link for pid in _descendants(os.getpid()) for link in _namespaces(pid)}),
        keyrings=sum(int(line.split()[2].split("/")[0]) for line in _keys()),
        uids=len(here.users._free) if here.users is not None else 0,
        memory={name: _memory(pid) for name, pid in pids.items()},
    )


def left(before: Held, after: Held) -> dict[str, tuple[object, object]]:
    """What is not as before. Keyrings of dead workers are collected when the kernel comes to it: fewer is well, too."""
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in COUNTED}
    wrong = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if after.keyrings > before.keyrings:
        wrong["keyrings"] = before.keyrings, after.keyrings
    return wrong


def _readable(pid: int) -> bool:
    return os.access(f"/proc/{pid}/fd", os.R_OK)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _lines(path: str) -> int:
    return len(Path(path).read_text().splitlines()) if os.path.exists(path) else 0


def _keys() -> list[str]:
    """The lines of our own uids: of the workers', and, for an ordinary user, his own."""
    users = program.current().users
    ours = [uid for first in users._blocks for uid in range(first, first + 64)] if users else [os.getuid()]
    lines = Path("/proc/key-users").read_text().splitlines() if os.path.exists("/proc/key-users") else []
    return [line for line in lines if int(line.partition(":")[0]) in ours]


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(word) for word in _children(pid)]
    except OSError:
        return []
    return [pid, *(each for child in children for each in _descendants(child))]


def _namespaces(pid: int) -> list[str]:
    try:
        return [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "pid", "net", "ipc", "uts", "user")]
    except OSError:
        return []


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def repeat(what: Callable[[int], None], times: int) -> None:
    """Some to warm up; then as many again must leave nothing."""
    for number in range(max(30, times // 10)):
        what(number)
    before = _settled()
    for number in range(times):
        what(number)
    after = _settled(before)
    assert not left(before, after)
    grown = {name: after.memory[name] - size for name, size in before.memory.items()}
    assert all(size < GROWTH for size in grown.values()), grown
    if LONG:
        print(f"\n{times} times; growth in KiB: { ({name: size // 1024 for name, size in grown.items()}) }")


def _settled(wanted: Held | None = None) -> Held:
    """Once what was closed is reaped and given back; spares have gone."""
    until = time.monotonic() + 10
    while True:
        for spare in [spare for template in _templates() for spare in list(template.spares._waiting)]:
            spare.close()
        found = held()
        same = wanted is None or not left(wanted, found)
        if (same and not _alive()) or time.monotonic() > until:
            return found
        time.sleep(0.02)


def _alive() -> int:
    return sum(len(template.workers) for template in _templates())


def _alone() -> None:
    """No spares beside the one worker that is looked at: they come and go."""
    for template in _templates():
        template.spares.close()
    until = time.monotonic() + 10
    while _alive() > 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert _alive() == 1


def _templates() -> list[TemplateHandle]:
    return [template for role in program.current()._roles.values() for template in list(role._all.values())]


@pytest.mark.slow
@pytest.mark.timeout(3600 if LONG else 60)
def test_starts_leave_nothing() -> None:
    def start(number: int) -> None:
        with steady.Steady.start() as worker:
            worker.step(number)

    repeat(start, STARTS)


@pytest.mark.timeout(3600 if LONG else 60)
def test_calls_leave_nothing() -> None:
    with steady.Steady.start() as worker:
        _alone()
        for number in range(CALLS):
            worker.step(number)
        pid = worker.process.pid
        before = _memory(pid), len(os.listdir("/proc/self/fd")), _memory(os.getpid())
        for number in range(CALLS):
            worker.step(number)
        after = _memory(pid), len(os.listdir("/proc/self/fd")), _memory(os.getpid())
    assert after[1] == before[1]
    assert after[0] - before[0] < 1 << 20
    assert after[2] - before[2] < GROWTH


@pytest.mark.timeout(3600 if LONG else 60)
def test_descriptors_that_cross_leave_nothing() -> None:
    with tempfile.TemporaryFile() as file, steady.Steady.start() as worker:
        _alone()
        file.write(b"x" * 100)
        file.flush()

        def transfer() -> None:
            number = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
            with bunri.File(number) as lent:
                assert worker.size(lent) == 100

        for _ in range(30):
            transfer()
        pid = worker.process.pid
        before = len(os.listdir("/proc/self/fd")), _count(pid)
        for _ in range(TRANSFERS):
            transfer()
        gc.collect()
        assert (len(os.listdir("/proc/self/fd")), _count(pid)) == before


def _count(pid: int) -> int | None:
    """None where nobody may look."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return None


@pytest.mark.timeout(3600 if LONG else 60)
def test_streams_closed_early_leave_nothing() -> None:
    with steady.Steady.start() as worker:
        _alone()

        def take_some() -> None:
            rows = worker.rows(1_000_000)
            assert next(iter(rows)) == 0
            rows.close()  # type: ignore[attr-defined]  # a stream of a worker is a generator

        for _ in range(30):
            take_some()
        pid = worker.process.pid
        _let_end(worker)
        before = len(os.listdir("/proc/self/fd")), _memory(pid)
        for _ in range(STREAMS):
            take_some()
        _let_end(worker)
        after = len(os.listdir("/proc/self/fd")), _memory(pid)
        assert after[0] == before[0]
        assert after[1] - before[1] < 1 << 20
        assert worker.step(1)


def _let_end(worker: steady.Steady) -> None:
    """A closed stream's end comes when the worker has seen that nobody wants more."""
    until = time.monotonic() + 10
    while worker_side(worker).pending and time.monotonic() < until:
        worker.step(1)
    assert not worker_side(worker).pending


def worker_side(worker: steady.Steady) -> MonitorSide:
    pid = worker.process.pid
    return next(each.side for template in _templates() for each in template.workers.values() if each.pid == pid)
