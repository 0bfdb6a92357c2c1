"""Runs in: the benchmark. How starts and memory grow with the number of workers and the size of their zygote.

python -m benchmarks.growth FILE.svg     measures, prints, and draws it (extra `bench`)
"""

from __future__ import annotations

import contextlib
import importlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bunri
from benchmarks.heavy_10 import Heavy10
from benchmarks.heavy_100 import Heavy100
from benchmarks.heavy_300 import Heavy300
from benchmarks.measure import Row, rollup, span
from benchmarks.parts import Null

WORKERS = (1, 10, 50, 100, 200)
ZYGOTES: dict[int, type[bunri.Compartment]] = {10: Heavy10, 100: Heavy100, 300: Heavy300}
BURST = 10
ROUNDS = 8


@dataclass(frozen=True)
class Point:
    """What was found at one size."""

    size: int  # workers, or MiB
    starts: Sequence[float]  # seconds of each, to the first answer, of bursts
    private: float  # KiB of one worker
    shared: float  # KiB, PSS of one worker


def with_workers() -> Iterator[Point]:
    """The next start, and the memory of each, with so many alive."""
    with contextlib.ExitStack() as stack:
        alive: list[Null] = []
        for count in WORKERS:
            while len(alive) < count:
                alive.append(stack.enter_context(Null.start()))
                alive[-1].same(7)
            yield _point(count, Null, alive)


def with_zygotes() -> Iterator[Point]:
    """The same of one worker, whose zygote has loaded so much."""
    for size, cls in ZYGOTES.items():
        with cls.start() as worker:
            yield _point(size, cls, [worker])


def _point(size: int, cls: type[bunri.Compartment], alive: Sequence[bunri.Compartment]) -> Point:
    starts = [_burst(cls) for _ in range(ROUNDS)]
    memory = [rollup(worker.process.pid) for worker in alive]
    private, shared = (statistics.median(column) for column in zip(*memory, strict=True))
    return Point(size, starts, private, shared)


def _burst(cls: type[bunri.Compartment]) -> float:
    """Seconds of one start in a burst of them, so that few come from those that stand ready."""
    with contextlib.ExitStack() as stack:
        begun = time.perf_counter()
        burst: list[Any] = [stack.enter_context(cls.start()) for _ in range(BURST)]
        for worker in burst:
            worker.same(7)
        return (time.perf_counter() - begun) / BURST


def growth() -> Iterator[Row]:
    """As rows; no peer does this."""
    for point in with_workers():
        yield _row(f"start, {point.size} workers alive", point)
    for point in with_zygotes():
        yield _row(f"start, zygote of {point.size} MiB", point)


def _row(what: str, point: Point) -> Row:
    return Row(
        what, span(point.starts), f"each: private {point.private / 1024:.2f} MiB, PSS {point.shared / 1024:.2f} MiB"
    )


def draw(path: str) -> None:
    """The two curves, side by side."""
    mpl: Any = importlib.import_module("matplotlib")
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bunri"  # the same figures give the same file
    plt: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, points, label in zip(
        axes, (list(with_workers()), list(with_zygotes())), ("workers alive", "MiB in the zygote"), strict=True
    ):
        sizes = [point.size for point in points]
        axis.plot(sizes, [statistics.median(point.starts) * 1e3 for point in points], "o-", label="start, ms")
        axis.plot(sizes, [point.private / 1024 for point in points], "s-", label="private memory of each, MiB")
        axis.plot(sizes, [point.shared / 1024 for point in points], "^-", label="PSS of each, MiB")
        axis.set_xlabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize="small")
        for point in points:
            row = _row(f"{point.size} {label}", point)
            print(f"{row.what:<26} {row.measured:<22} {row.beside}")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(sys.argv[1])
