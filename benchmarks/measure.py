"""Runs in: the benchmark. Interleaved rounds, where processes run, and rows of the table."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

Subject = Callable[[], float]  # does it once, and says how many seconds it took


class Skipped(Exception):
    """This host cannot measure it; the text says why."""


class Cores(Enum):
    """Where the two ends of each pair run."""

    ONE = "one core"
    TWO = "two cores"
    ANY = "any core"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    measured: str
    beside: str = ""
    ratio: str = ""
    budget: str = ""
    verdict: str = ""


def whole(work: Callable[[], object]) -> Subject:
    """All of `work` is measured."""

    def once() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return once


def each(count: int, work: Callable[[], object]) -> Subject:
    """`work` does `count` things at one time; the time of one of them."""
    once = whole(work)
    return lambda: once() / count


def interleaved(
    rounds: int, repeats: int, subjects: Mapping[str, Subject], rest: float = 0.0
) -> dict[str, list[float]]:
    """All subjects in turn, in each round; what disturbs the machine disturbs them alike. `rest`: seconds before each turn."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            time.sleep(rest)
            found[name] += [subject() for _ in range(repeats)]
    return found


def compared(what: str, ours: Sequence[float], name: str, theirs: Sequence[float], at_most: float | None) -> Row:
    """Ours beside theirs, in time. The medians decide."""
    median, least = statistics.median(ours) / statistics.median(theirs), min(ours) / min(theirs)
    return Row(
        what,
        span(ours),
        f"{name} {span(theirs)}",
        f"{median:.2f} / {least:.2f}",
        f"<= {at_most:g}" if at_most else "",
        verdict(median <= at_most) if at_most else "",
    )


def rate(what: str, samples: Sequence[float], at_least: float) -> Row:
    """Things each second; `samples` are the seconds of one."""
    median, best = 1 / statistics.median(samples), 1 / min(samples)
    figure = f"{median / 1000:.0f} / {best / 1000:.0f} k/s"
    return Row(what, figure, budget=f">= {at_least / 1000:g} k/s", verdict=verdict(median >= at_least))


def size(what: str, samples: Sequence[int], at_most: int) -> Row:
    """KiB of memory."""
    median = statistics.median(samples)
    figure = f"{median / 1024:.2f} / {min(samples) / 1024:.2f} MiB"
    return Row(what, figure, budget=f"<= {at_most / 1024:g} MiB", verdict=verdict(median <= at_most))


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def span(samples: Sequence[float]) -> str:
    """Median / minimum."""
    if statistics.median(samples) < 10e-6:
        return f"{statistics.median(samples) * 1e9:.0f} / {min(samples) * 1e9:.0f} ns"
    return f"{statistics.median(samples) * 1e6:.1f} / {min(samples) * 1e6:.1f} us"


def rollup(pid: int) -> tuple[int, int]:
    """KiB: private dirty, PSS (proc_pid_smaps(5))."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        raise Skipped("the kernel does not show this user the memory of a worker") from None
    figures = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE))
    return int(figures["Private_Dirty"]), int(figures["Pss"])


@contextlib.contextmanager
def placed(cores: Cores) -> Generator[None, None, None]:
    """This process on one core; all its descendants on the same, or all on another (sched_setaffinity(2)).

    Processes that are started inside inherit it from their parents.
    """
    before = os.sched_getaffinity(0)
    first, *others = sorted(before)
    if cores is Cores.TWO and not others:
        raise Skipped("this machine has one core")
    ours = before if cores is Cores.ANY else {first}
    theirs = {others[0]} if cores is Cores.TWO else ours
    _set(ours, theirs)
    try:
        yield
    finally:
        _set(before, before)


def _set(ours: set[int], theirs: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), ours)
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(pid, theirs)


def descendants(of: int) -> list[int]:
    """All processes below one, by /proc/PID/stat."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [of]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found
