"""Runs in: the benchmark. What is measured, each beside what it is compared with (DESIGN, Budgets)."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator

import bunri
from benchmarks import peers
from benchmarks.brokered import brokered
from benchmarks.capture import capture
from benchmarks.computing import computing
from benchmarks.filters import filters
from benchmarks.growth import growth
from benchmarks.measure import (
    Cores,
    Row,
    Skipped,
    Subject,
    compared,
    each,
    interleaved,
    placed,
    rate,
    rollup,
    size,
    whole,
)
from benchmarks.parts import Null
from benchmarks.peer import SIZE
from benchmarks.ring import ring
from benchmarks.transfer import transfer
from bunri import Policy, fs

IN_FLIGHT = 2000
ITEMS = 50_000
WORKERS = 8


def null() -> Iterator[Row]:
    """A typed call of a warm worker."""
    with Null.start() as worker, peers.ping() as ping, peers.pipe() as pipe:
        subjects = {
            "bunri": whole(lambda: worker.same(7)),
            "ping-pong": whole(ping),
            "Pipe": whole(pipe),
        }
        for cores in (Cores.ONE, Cores.TWO):
            with placed(cores):
                interleaved(1, 100, subjects)
                found = interleaved(40, 200, subjects)
            what = f"null call, {cores.value}"
            yield compared(what, found["bunri"], "SEQPACKET ping-pong", found["ping-pong"], 1.25)
            yield compared(what, found["bunri"], "multiprocessing.Pipe", found["Pipe"], 0.5)
        with peers.oslo(200) as oslo:
            subjects = {"bunri": whole(lambda: worker.same(7)), "oslo": oslo}
            interleaved(1, 10, subjects)
            found = interleaved(20, 10, subjects)
        yield compared("null call, any core", found["bunri"], "oslo.privsep", found["oslo"], 0.2)


def flight() -> Iterator[Row]:
    """Many small calls, and many small items."""
    numbers = list(range(ITEMS))
    with Null.start() as worker, placed(Cores.TWO):

        def window() -> None:
            for begun in [bunri.call(worker.same, 7) for _ in range(IN_FLIGHT)]:
                begun.result()

        subjects = {
            "calls": each(IN_FLIGHT, window),
            "map": each(IN_FLIGHT, lambda: [c.result() for c in bunri.map(worker.same, range(IN_FLIGHT))]),
            "items": each(ITEMS, lambda: worker.count(numbers)),
        }
        interleaved(1, 1, subjects)
        found = interleaved(25, 1, subjects)
    yield rate("calls in flight (call)", found["calls"], 100_000)
    yield rate("calls in flight (map)", found["map"], 100_000)
    yield rate("small items in a list", found["items"], 1_000_000)


def echo() -> Iterator[Row]:
    """1 MiB there and back."""
    data = bytes(SIZE)
    with Null.start() as worker, peers.stream() as stream:
        subjects = {"bunri": whole(lambda: worker.echo(data)), "socket": whole(stream)}
        for cores in (Cores.ONE, Cores.TWO):
            with placed(cores):
                interleaved(1, 5, subjects)
                found = interleaved(30, 15, subjects)
            yield compared(f"1 MiB echo, {cores.value}", found["bunri"], "socket echo", found["socket"], 0.5)


def start() -> Iterator[Row]:
    """A confined start to its first answer; the zygotes are warm."""

    def confined() -> float:
        begun = time.perf_counter()
        worker = Null.start()
        worker.same(7)
        taken = time.perf_counter() - begun
        worker.close()
        return taken

    with Null.start(), peers.forks() as plain, peers.forks("bunri", "benchmarks.parts") as alike:
        subjects: dict[str, Subject] = {
            "bunri": confined,
            "alike": lambda: alike(1),
            "plain": lambda: plain(1),
        }
        reason = ""
        try:
            subjects["bwrap"] = whole(peers.bubblewrap())
        except Skipped as why:
            reason = str(why)
        for cores in (Cores.ONE, Cores.TWO):
            with placed(cores):
                interleaved(1, 2, subjects)
                found = interleaved(25, 5, subjects)
            what = f"start to first answer, {cores.value}"
            yield compared(what, found["bunri"], "bare fork, same imports", found["alike"], 2)
            yield compared(what, found["bunri"], "bare fork, no imports", found["plain"], None)
            if not reason:
                yield compared(what, found["bunri"], "bwrap /bin/true", found["bwrap"], 0.5)
    if reason:
        yield Row("start beside bwrap", f"skipped: {reason}")


def programs() -> Iterator[Row]:
    """A program under a policy, from its start to its end: by a command, and by a program that is already there."""
    policy = Policy(files=[fs.system()], processes=64, may_miss=[bunri.Promise.MEMORY])
    command = [sys.executable, "-m", "bunri", "run", "--", "/bin/true"]
    alone = peers.bubblewrap()
    bunri.spawn(["/bin/true"], policy).wait()  # its zygote
    subjects = {
        "run": whole(lambda: subprocess.run(command, check=True)),
        "spawn": whole(lambda: bunri.spawn(["/bin/true"], policy).wait()),
        "bwrap": whole(alone),
    }
    interleaved(1, 1, subjects)
    found = interleaved(20, 1, subjects)
    yield compared("bunri run /bin/true", found["run"], "bwrap /bin/true", found["bwrap"], None)
    yield compared("bunri.spawn, zygote warm", found["spawn"], "bwrap /bin/true", found["bwrap"], None)


def pool() -> Iterator[Row]:
    """Workers that serve one call each."""
    count = 60
    with Null.pool(4) as ready, peers.forks("bunri", "benchmarks.parts") as alike, placed(Cores.ANY):

        def used_once() -> None:
            for done in bunri.map(ready.same, range(count)):
                done.result()

        subjects = {"bunri": each(count, used_once), "forks": lambda: alike(count) / count}
        interleaved(1, 1, subjects)
        found = interleaved(15, 1, subjects)
    yield compared("pool of single-use workers", found["bunri"], "bare forks", found["forks"], 2)


def memory() -> Iterator[Row]:
    """Idle workers with numpy, after some work."""
    if importlib.util.find_spec("numpy") is None:
        raise Skipped("numpy is not installed")
    from benchmarks.numeric import Numbers

    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Numbers.start()) for _ in range(WORKERS)]
        for worker in workers:
            worker.work(64)
        found = [rollup(worker.process.pid) for worker in workers]
    yield size("numpy worker: private dirty", [private for private, _ in found], 2 << 10)
    yield size(f"numpy worker: PSS, {WORKERS} workers", [shared for _, shared in found], 4 << 10)


ALL = {
    function.__name__: function
    for function in (
        null,
        flight,
        echo,
        start,
        programs,
        pool,
        memory,
        growth,
        brokered,
        filters,
        computing,
        capture,
        ring,
        transfer,
    )
}
