"""Runs in: a program of its own. It says which stage it has reached, and is interrupted there by the test."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from staged_parts import Busy, Waits

import bunri


def reached(pid: object = "") -> None:
    print("reached", pid, flush=True)


def detecting() -> None:
    """While the host is tried, and zygotes are made: somewhere in there."""
    reached()
    with Busy.start() as worker:
        worker.sleep(30)


def importing() -> None:
    """While the module is imported in its zygote."""
    from staged_slow import SlowImport

    reached()
    with SlowImport.start() as worker:
        worker.ping()


def warming() -> None:
    from staged_warm import SlowWarmUp

    reached()
    bunri.prepare(SlowWarmUp)


def calling() -> None:
    with Busy.start() as worker:
        reached(worker.process.pid)
        worker.spin()


def streaming() -> None:
    with Busy.start() as worker:
        for n in worker.ticks():
            if n == 3:
                reached()


def idle() -> None:
    with Busy.start() as worker:
        reached(worker.ping())
        time.sleep(30)


def pooled() -> None:
    with Busy.pool(2) as pool:
        for n, done in enumerate(bunri.map(pool.sleep, [0.01] * 100000)):
            done.result()
            if n == 5:
                reached()


def waiting() -> None:
    async def main() -> None:
        async with Waits.start() as worker:
            await worker.wait(0.0)
            reached()
            await worker.wait(30.0)

    asyncio.run(main())


def starting() -> None:
    """Over and over, so that it happens somewhere in a start or a close."""
    for n in range(100000):
        with Busy.start() as worker:
            worker.ping()
        if n == 5:
            reached()


def goes_on() -> None:
    """A program that survives Ctrl-C, as an interpreter does: the worker is gone, the next one starts."""
    worker = Busy.start()
    before = worker.process.pid
    reached()
    try:
        worker.spin()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    try:
        worker.ping()
    except bunri.WorkerDied as fault:
        print(f"died: {fault.exit.cause}", flush=True)
    with Busy.start() as another:
        another.ping()
        print("another" if another.process.pid != before else "the same", flush=True)


STAGES: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (detecting, importing, warming, calling, streaming, idle, pooled, waiting, starting, goes_on)
}

if __name__ == "__main__":
    STAGES[sys.argv[1]]()
