"""Runs in: the test process. A pool keeps its size, whatever becomes of its workers, and nobody waits in it for ever."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import parts
import pytest

import bunri
from bunri.process.pool import Pool


def behind(pool: bunri.Compartment) -> Pool:
    return pool._bunri_target  # type: ignore[attr-defined, no-any-return]


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def pids(pool: bunri.Compartment) -> list[int]:
    """Of the workers that stand ready, once all do."""
    until(lambda: len(behind(pool)._idle) == behind(pool).size and all(w.side.open for w in behind(pool)._idle))
    return [worker.pid for worker in behind(pool)._idle]


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@contextmanager
def no_room() -> Iterator[None]:
    """This process may open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("size", [1, 3])
def test_workers_that_die_while_they_stand_ready_are_replaced(size: int) -> None:
    with parts.Plain.pool(size) as pool:
        for _ in range(3):
            dead = pids(pool)
            for pid in dead:
                os.kill(pid, signal.SIGKILL)
            until(lambda dead=dead: not any(map(is_there, dead)))  # nobody need have told us
            assert bunri.call(pool.add, 2).result(10) == 2
            assert pool.add(1) == 1
            assert not set(pids(pool)) & set(dead)


def test_a_worker_that_is_found_dead_before_its_end_is_told_is_replaced() -> None:
    """Between its death and the report of it a call may come, and take no notice of it but to leave it aside."""
    with parts.Plain.pool(1) as pool:
        pids(pool)
        behind(pool)._idle[0].kill("as one that broke the protocol is")
        assert bunri.call(pool.add, 1).result(10) == 1


def test_workers_that_die_at_once_are_not_made_without_end() -> None:
    """Nobody calls: as many as stand ready are made again, and no more until somebody does."""
    with parts.Dies.pool(2) as pool:
        made: list[int] = []
        start = behind(pool)._start
        behind(pool)._start = lambda: made.append(1) or start()  # type: ignore[method-assign, func-returns-value]
        time.sleep(1.0)
        assert len(made) <= 2
        with pytest.raises(bunri.WorkerDied):
            pool.ping()


def test_a_pool_that_could_start_no_worker_recovers() -> None:
    """What hindered it is told to who calls, and when it is gone the pool has its workers again."""
    with parts.Plain.pool(2) as pool:
        pids(pool)
        with no_room():
            for pid in pids(pool):
                os.kill(pid, signal.SIGKILL)
            until(lambda: not behind(pool)._idle)
            with pytest.raises(bunri.HostError, match="RLIMIT_NOFILE"):
                bunri.call(pool.add, 1).result(10)
            with pytest.raises(bunri.HostError, match="RLIMIT_NOFILE"):
                pool.add(1)
        assert pool.add(3) == 3
        assert len(pids(pool)) == 2


def test_a_failing_init_is_told_to_each_call_and_nobody_hangs() -> None:
    pool = parts.Fails.pool(2)
    for _ in range(3):
        with pytest.raises(bunri.RemoteError, match="RuntimeError: no"):
            bunri.call(pool.ping).result(10)
        with pytest.raises(bunri.RemoteError, match="RuntimeError: no"):
            pool.ping()
    with pytest.raises(bunri.RemoteError, match="RuntimeError: no"), pool:
        raise AssertionError("it was entered")


WAYS: dict[str, Callable[[parts.Plain], object]] = {
    "call": lambda pool: bunri.call(pool.add, 1).result(10),
    "direct": lambda pool: pool.add(1),
    "stream": lambda pool: list(pool.rows(3)),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_deadline_bounds_the_wait_for_a_worker(way: str) -> None:
    with parts.Plain.pool(1) as pool:
        long = bunri.call(pool.sleep, 8.0)
        begun = time.monotonic()
        with bunri.deadline(0.2), pytest.raises(bunri.DeadlineExceeded, match="no worker of a pool of 1 Plain"):
            WAYS[way](pool)
        assert time.monotonic() - begun < 6
        assert not long.done()
        long.cancel()
        assert pool.add(1) == 1, "who waited in vain took a worker along"


def test_a_deadline_goes_on_where_a_worker_was_waited_for() -> None:
    """It is of the call: the part of it that was spent in the queue is gone."""
    with parts.Plain.pool(1) as pool:
        long = bunri.call(pool.sleep, 0.5)
        with bunri.deadline(1.0):
            second = bunri.call(pool.sleep, 5.0)
        begun = time.monotonic()
        with pytest.raises(bunri.DeadlineExceeded, match="had not answered sleep"):
            second.result(10)
        assert time.monotonic() - begun < 3
        long.result()


def test_a_deadline_bounds_the_wait_on_a_loop_too() -> None:
    async def main() -> None:
        async with parts.Async.pool(1) as pool:
            long = asyncio.ensure_future(pool.wait(30.0, 1))
            await asyncio.sleep(0.1)
            with bunri.deadline(0.2), pytest.raises(bunri.DeadlineExceeded, match="no worker of a pool"):
                await pool.wait(0.0, 2)
            with bunri.deadline(0.2), pytest.raises(bunri.DeadlineExceeded, match="no worker of a pool"):
                await anext(pool.ticks(3))
            long.cancel()
            assert await asyncio.wait_for(pool.wait(0.0, 3), 10) == 3
            # Calls that come after it are not bounded by the deadline of those that made room for them.
            assert await asyncio.wait_for(pool.wait(0.3, 4), 10) == 4

    asyncio.run(main())


@pytest.mark.parametrize("size", [1.5, "2", None, 0, -1, True, 10**6, float("inf")])
def test_a_senseless_size_is_refused_with_a_sentence(size: Any) -> None:
    with pytest.raises(bunri.UsageError, match=r"Plain\.pool\(.*\)"):
        parts.Plain.pool(size)


def test_a_pool_that_cannot_be_started_leaves_nothing_behind() -> None:
    with parts.Plain.start() as worker:  # the zygotes are there
        worker.add(1)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 25, before[1]))
    try:
        with pytest.raises(bunri.HostError, match="RLIMIT_NOFILE"):
            parts.Plain.pool(50)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with parts.Plain.pool(2) as pool:
        assert pool.add(1) == 1


def test_a_stream_that_nobody_iterates_over_gives_its_worker_back() -> None:
    with parts.Plain.pool(1) as pool:
        stream = pool.rows(3)
        del stream
        assert bunri.call(pool.add, 1).result(10) == 1
        with pytest.raises(bunri.UsageError):
            pool.rows("3")  # type: ignore[arg-type]
        assert bunri.call(pool.add, 1).result(10) == 1


def test_many_cancelled_calls_in_the_queue_are_passed_over() -> None:
    with parts.Plain.pool(1) as pool:
        first = bunri.call(pool.sleep, 0.3)
        waiting = [bunri.call(pool.add, n) for n in range(3000)]
        last = bunri.call(pool.add, 42)
        for call in waiting:
            assert call.cancel()
        assert last.result(20) == 42
        assert first.result() is None


def test_who_is_interrupted_while_he_waits_takes_no_worker_along() -> None:
    with parts.Plain.pool(1) as pool:
        for _ in range(3):
            long = bunri.call(pool.sleep, 0.3)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                pool.add(1)
            assert long.result(10) is None
        assert bunri.call(pool.add, 1).result(10) == 1


def test_a_pool_of_one_loop_is_refused_on_another_and_loses_nothing() -> None:
    async def main() -> None:
        async with parts.Plain.pool(1) as pool:
            assert await bunri.call(pool.add, 1) == 1

            async def elsewhere() -> None:
                with pytest.raises(bunri.UsageError, match="another event loop"):
                    await bunri.call(pool.add, 1)

            await asyncio.to_thread(asyncio.run, elsewhere())
            assert await asyncio.wait_for(bunri.call(pool.add, 1), 10) == 1

    asyncio.run(main())


@pytest.mark.parametrize("begun", ["before the loop", "on the loop"])
def test_a_result_that_would_block_the_loop_is_refused(begun: str) -> None:
    async def ask(pool: parts.Plain) -> None:
        call = bunri.call(pool.sleep, 0.5)  # its answer is not there yet
        with pytest.raises(bunri.UsageError, match="await call"):
            call.result()
        await call

    async def main() -> None:
        async with parts.Plain.pool(1) as pool:
            await ask(pool)

    if begun == "on the loop":
        asyncio.run(main())
    else:
        with parts.Plain.pool(1) as pool:
            asyncio.run(ask(pool))
