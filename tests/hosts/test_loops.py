"""Runs in: the test process. The same life of workers on every kind of loop, and among threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hosting import environment
from sizes import Sizes, SlowSizes, gif

import bunri

pytestmark = pytest.mark.slow


async def life() -> None:
    """Starts, calls, streams of calls, deaths, cancelling, pools: all that touches the loop."""
    async with SlowSizes.start() as worker, Sizes.start() as plain:
        many = await asyncio.gather(*(bunri.call(worker.size, gif(n, n), 0.001) for n in range(60)))
        assert many == [(n, n) for n in range(60)]
        assert await worker.size(gif(1, 2)) == (1, 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bunri.call(worker.size, gif(1, 1), 30.0), 0.05)
        assert await worker.size(gif(3, 4)) == (3, 4)
        assert await bunri.call(plain.size, gif(5, 6)) == (5, 6)
        with pytest.raises(bunri.UsageError):
            plain.size(gif(1, 1))
        with pytest.raises(bunri.WorkerDied):
            await bunri.call(plain.size, b"DIE")
    async with Sizes.pool(2) as pool:
        bodies = [b"DIE" if n % 7 == 0 else gif(n, n) for n in range(30)]
        found = await asyncio.gather(*(bunri.call(pool.size, body) for body in bodies), return_exceptions=True)
        for n, each in enumerate(found):
            assert isinstance(each, bunri.WorkerDied) if n % 7 == 0 else each == (n, n)


LOOPS: dict[str, tuple[Callable[[], asyncio.AbstractEventLoop], bool]] = {
    "asyncio": (asyncio.new_event_loop, False),
    "asyncio, debug": (asyncio.new_event_loop, True),
    "uvloop": (uvloop.new_event_loop, False),
    "uvloop, debug": (uvloop.new_event_loop, True),
}


@pytest.mark.parametrize("kind", list(LOOPS))
def test_workers_live_on_every_loop(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """In debug mode a loop refuses what comes from a wrong thread; neither kind may have had anything to log as an error."""
    factory, debug = LOOPS[kind]
    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        runner.run(life())
        before = descriptors()
        runner.run(life())
    errors = [each for each in caplog.records if each.name == "asyncio" and each.levelno >= logging.ERROR]
    assert not errors, errors
    until_few(before + 12)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def until_few(most: int) -> None:
    from hosting import until

    until(lambda: descriptors() <= most, 25, "the closing of descriptors")  # those of spare workers after ten seconds


def test_a_channel_is_not_closed_while_a_loop_watches_its_number() -> None:
    """Its number would be the next worker's, and that one would no more be heard: this went wrong once in a few dozen."""

    async def main() -> None:
        for n in range(40):
            async with Sizes.start() as worker:
                assert await asyncio.wait_for(bunri.call(worker.size, gif(n, 1)), 20) == (n, 1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_loop_that_ends_with_workers_leaves_no_descriptor() -> None:
    left: list[Any] = []
    before = descriptors()

    async def main() -> None:
        worker = SlowSizes.start()
        assert await worker.size(gif(1, 1)) == (1, 1)
        left.append(worker)

    for _ in range(3):
        asyncio.run(main())
    for worker in left:
        worker.close()
    left.clear()
    until_few(before + 12)


def test_a_module_that_sets_uvloops_policy() -> None:
    """In a process of its own: the policy would be everybody's here."""
    code = (
        "import asyncio, with_uvloop\n"
        "async def main():\n"
        "    assert 'uvloop' in type(asyncio.get_running_loop()).__module__\n"
        "    async with with_uvloop.Under.start() as worker:\n"
        "        print(await worker.pause(0.01))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "0.01\n", done.stderr


def test_many_threads_share_a_worker_and_start_their_own() -> None:
    with Sizes.start() as shared, Sizes.pool(2) as pool:

        def one(n: int) -> tuple[int, ...]:
            with Sizes.start() as own:
                return (*shared.size(gif(n, 1)), *own.size(gif(n, 2)), *pool.size(gif(n, 3)))

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert list(threads.map(one, range(24))) == [(n, 1, n, 2, n, 3) for n in range(24)]


def test_a_thread_without_a_loop_asks_a_worker_of_a_loop() -> None:
    """Whoever holds a stub may call: another thread waits, and the loop that started it reads."""
    found: list[tuple[int, int]] = []

    async def main() -> None:
        async with SlowSizes.start() as worker:
            await worker.size(gif(0, 0))

            def ask() -> None:
                found.append(bunri.call(worker.size, gif(7, 8)).result())

            thread = threading.Thread(target=ask)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.01)

    asyncio.run(main())
    assert found == [(7, 8)]
