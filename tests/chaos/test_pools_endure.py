"""Runs in: the test process. Pools whose workers are killed at any moment, while calls are made, given up and late."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest
import victim

import bunri
from bunri.process.pool import Pool

pytestmark = pytest.mark.slow

SECONDS = 4.0
PATIENCE = 20.0  # seconds: who waits longer hangs
SEEN = 1.0  # seconds in which the last death is known: until then a dead worker counts as one that stands ready
EXPECTED = (bunri.PeerError, CancelledError)  # a call may be refused; it may not take for ever


def behind(pool: victim.Victim) -> Pool:
    return pool._bunri_target  # type: ignore[attr-defined, no-any-return]


def kill_one(pool: victim.Victim, chance: random.Random) -> None:
    worker = chance.choice([*behind(pool)._workers] or [None])
    if worker is not None and worker.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)


def is_whole(pool: victim.Victim) -> None:
    """It has its size again, and nothing is left of what happened."""
    target = behind(pool)
    end = time.monotonic() + 10
    while not (len(target._idle) == len(target._workers) == target.size and not target._leaving):
        assert time.monotonic() < end, (target._idle, target._workers, target._leaving)
        time.sleep(0.01)
    assert not [turn for turn in target._waiting if not turn.call.done()]


def late(pool: victim.Victim, chance: random.Random) -> None:
    with bunri.deadline(0.0001 + chance.random() * 0.05):
        pool.sleep(0.02)


WAYS: list[Callable[[victim.Victim, random.Random], object]] = [
    lambda pool, _: pool.twice(1),
    lambda pool, _: bunri.call(pool.sleep, 0.01).result(PATIENCE),
    lambda pool, _: bunri.call(pool.sleep, 5.0).cancel(),
    late,
    lambda pool, _: [call.exception(PATIENCE) for call in bunri.map(pool.twice, range(5))],
]


@pytest.mark.parametrize("cls", [victim.Victim, victim.Reused])
def test_threads_share_a_pool_whose_workers_are_killed(cls: type[victim.Victim]) -> None:
    end = time.monotonic() + SECONDS
    done: list[int] = []

    def use(pool: victim.Victim, seed: int) -> None:
        chance, count = random.Random(seed), 0
        while time.monotonic() < end:
            with contextlib.suppress(*EXPECTED):
                chance.choice(WAYS)(pool, chance)
            count += 1
        done.append(count)

    with cls.pool(3) as pool:
        threads = [threading.Thread(target=use, args=(pool, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        chance = random.Random(99)
        while time.monotonic() < end:
            time.sleep(chance.random() * 0.05)
            kill_one(pool, chance)
        for thread in threads:
            thread.join(2 * PATIENCE)
        assert len(done) == 4 and min(done) > 10, done
        time.sleep(SEEN)
        is_whole(pool)
        assert pool.twice(2) == 4


@pytest.mark.parametrize("cls", [victim.Victim, victim.Reused])
def test_tasks_share_a_pool_whose_workers_are_killed(cls: type[victim.Victim]) -> None:
    async def use(pool: victim.Victim, seed: int, end: float) -> int:
        chance, count = random.Random(seed), 0
        while time.monotonic() < end:
            with contextlib.suppress(*EXPECTED):
                async with asyncio.timeout(PATIENCE):
                    await one(pool, chance)
            count += 1
        return count

    async def one(pool: victim.Victim, chance: random.Random) -> None:
        match chance.randrange(4):
            case 0:
                await bunri.call(pool.twice, 1)
            case 1:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bunri.call(pool.sleep, 5.0), chance.random() * 0.03)
            case 2:
                with bunri.deadline(0.0001 + chance.random() * 0.05):
                    await bunri.call(pool.sleep, 0.02)
            case _:
                await asyncio.gather(*(bunri.call(pool.twice, n) for n in range(5)), return_exceptions=True)

    async def main() -> None:
        end = time.monotonic() + SECONDS
        async with cls.pool(3) as pool:
            users = [asyncio.create_task(use(pool, seed, end)) for seed in range(4)]
            chance = random.Random(99)
            while time.monotonic() < end:
                await asyncio.sleep(chance.random() * 0.05)
                kill_one(pool, chance)
            assert min(await asyncio.gather(*users)) > 10
            await asyncio.sleep(SEEN)
            await asyncio.to_thread(is_whole, pool)
            assert await bunri.call(pool.twice, 2) == 4

    asyncio.run(main())
