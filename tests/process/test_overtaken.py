"""Calls of services that wait, are cancelled, and cross other calls: each has its answer, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import overtaken
import pytest

import bunri

T = TypeVar("T")
WITHIN = 20.0  # seconds; those that fail would wait for ever


class LeafHere(overtaken.Leaf):
    async def touch(self) -> int:
        return 1


class Here(overtaken.Desk):
    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self._word = asyncio.Event()
        self.thinks = 0.3  # seconds
        self.streams, self.most_streams = 0, 0

    async def think(self, number: int) -> int:
        self.begun.append(number)
        await asyncio.sleep(self.thinks)
        self.ended.append(number)
        return number

    async def add(self, number: int) -> int:
        self._word.set()
        return number

    async def hold(self, file: bunri.File) -> int:
        with file:
            await self._word.wait()
        return 1

    async def give_back(self, file: bunri.File) -> bunri.File:
        await asyncio.sleep(0.001)
        return file

    async def ones(self, count: int) -> AsyncIterator[int]:
        self.streams += 1
        self.most_streams = max(self.streams, self.most_streams)
        for _ in range(count):
            yield 1
        self.streams -= 1

    async def leaf(self) -> overtaken.Leaf:
        return LeafHere()

    async def keep(self, data: bytes, files: list[bunri.File]) -> int:
        for each in files:
            each.close()
        await self._word.wait()
        return len(data) + len(files)


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, WITHIN))


def file() -> bunri.File:
    reader, writer = os.pipe()
    os.close(writer)
    return bunri.File(reader)


@contextlib.asynccontextmanager
async def one_whose_task_waits() -> AsyncIterator[overtaken.Asker]:
    """For a service, in a blocking way; and for long when that has answered."""
    here = Here()
    async with overtaken.Asker.start(here) as worker:
        blocking = bunri.call(worker.block_once)
        while not here.begun:
            await asyncio.sleep(0.01)
        yield worker
        blocking.cancel()


# In the worker -------------------------------------------------------------------------------------------------------


def test_a_call_that_comes_while_a_task_waits_for_a_service_is_served() -> None:
    """The packet is read by whoever waits, and the worker's loop hears nothing of it."""

    async def main() -> int:
        async with one_whose_task_waits() as worker:
            return await bunri.call(worker.now)

    assert run(main()) == 7


def test_a_call_that_is_cancelled_before_the_worker_looks_at_it_leaves_the_worker_alive() -> None:
    """It obeys as soon as it is asked; its cancellation was lost, and after a second it was killed for that."""

    async def main() -> int:
        async with one_whose_task_waits() as worker:
            bunri.call(worker.wait).cancel()
            await asyncio.sleep(1.5)
            return await bunri.call(worker.now)

    assert run(main()) == 7


def test_a_call_behind_one_that_is_cancelled_goes_out() -> None:
    """It waited for the next answer, which may not come before it has gone out."""

    async def main() -> int:
        with file() as handed:
            async with overtaken.Asker.start(Here()) as worker:
                return await worker.cancel_the_one_in_front(handed)

    assert run(main()) == 9


@pytest.mark.parametrize(("size", "files"), [(9 << 20, 0), (0, 12)])
def test_a_large_call_and_small_ones_do_not_wait_for_each_other(size: int, files: int) -> None:
    """They did for the end of all others: a stream may last as long as the worker."""

    async def main() -> int:
        with file() as handed:
            async with overtaken.Asker.start(Here()) as worker:
                return await worker.keep_beside(size, [handed] * files)

    assert run(main()) == 1 + size + files


def test_files_that_wait_leave_room_for_those_that_come_back() -> None:
    async def main() -> int:
        with file() as handed:
            async with overtaken.Asker.start(Here()) as worker:
                return await worker.have_back(handed, 5 * worker.process.policy.settled().open_files)

    assert run(main()) == 320


# In the monitor ------------------------------------------------------------------------------------------------------


def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_is_not_begun() -> None:
    async def main() -> tuple[int, list[int]]:
        here = Here()
        async with overtaken.Asker.start(here) as worker:
            return await worker.cancel_the_second(), here.begun

    assert run(main()) == (4, [1, 3])


def test_a_stream_that_is_left_before_it_has_begun_does_not_hold_up_the_next() -> None:
    async def main() -> int:
        async with overtaken.Asker.start(Here()) as worker:
            return await worker.leave_the_second(100)

    assert run(main()) == 200


def test_a_call_that_travels_with_its_cancellation_does_not_hold_up_the_next() -> None:
    """One call of a method at a time: without its cancellation it would be ended by nobody."""

    async def main() -> tuple[int, list[int]]:
        here = Here()
        async with overtaken.Asker.start(here) as worker:
            return await worker.cancel_at_once(), here.ended

    assert run(main()) == (3, [3])


def test_objects_that_a_worker_no_longer_has_leave_nothing_behind() -> None:
    async def main() -> int:
        async with overtaken.Asker.start(Here()) as worker:
            assert await worker.touch_leaves(100) == 100
            services = worker.process._owner.side.services  # type: ignore[attr-defined]
            return len(services._running) + len(services._queued)

    assert run(main()) == 0


# In a program without a loop -----------------------------------------------------------------------------------------


def _ended(worker: overtaken.Asker, call: bunri.Call[int]) -> int:
    """On another thread: one that is stuck could not even be interrupted."""
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.append(call.result()), daemon=True)
    waiting.start()
    waiting.join(WITHIN)
    assert not waiting.is_alive()
    worker.close()
    return found[0]


def test_a_service_is_called_while_it_gives_a_stream() -> None:
    worker = overtaken.Asker.start(Here())
    assert _ended(worker, bunri.call(worker.sum_up, 100)) == 100


def test_several_streams_of_a_service_are_taken_one_after_the_other() -> None:
    """One call of a method at a time (THREATS 10), here as on a loop."""
    here = Here()
    worker = overtaken.Asker.start(here)
    assert _ended(worker, bunri.call(worker.sum_up_together, 100, 5)) == 500
    assert here.most_streams == 1


def test_a_stream_that_is_left_before_the_worker_looks_at_it_does_not_hold_it_up() -> None:
    """It gave what it had credit for, and waited for more."""
    here = Here()
    worker = overtaken.Asker.start(here)
    waiting = threading.Thread(target=bunri.call(worker.block_once).exception, daemon=True)
    waiting.start()
    while not here.begun:
        time.sleep(0.01)
    iter(worker.rows(1000)).close()  # type: ignore[attr-defined]
    assert bunri.call(worker.now).result(10) == 7
    worker.close()
    waiting.join()


def test_a_service_that_awaits_its_own_caller_is_told_that_nobody_would_hear_the_answer() -> None:
    """The thread that reads for the program is in the service. It hung until a deadline, and the supervisor span meanwhile."""

    class AsksBack(Here):
        async def think(self, number: int) -> int:
            with pytest.raises(bunri.UsageError, match="start the worker on an event loop"):
                await bunri.call(worker.now)
            return number

    with overtaken.Asker.start(AsksBack()) as worker:
        assert _ended(worker, bunri.call(worker.think_once)) == 1


def test_ctrl_c_in_a_service_is_the_programs() -> None:
    """It was an answer to the worker, and the program went on."""
    here = Here()
    here.thinks = WITHIN
    with overtaken.Asker.start(here) as worker:
        call = bunri.call(worker.block_once)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            call.result()


class RowsHere(overtaken.Rows):
    def rows(self) -> Iterator[int]:
        yield from range(1000)


@pytest.mark.parametrize("numbers", [[900, 900], [900, 901]])
def test_a_worker_that_dies_with_streams_unread_holds_up_nobody(numbers: list[int]) -> None:
    """Two with one number: the end of the second took away what would have ended the first, and its thread went on for ever."""
    worker = overtaken.Owned.start(RowsHere())
    died: list[BaseException] = []

    def ask() -> None:
        with pytest.raises(bunri.WorkerDied) as found:
            worker.ask_for_rows(numbers)
        died.append(found.value)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(WITHIN)
    assert not asking.is_alive()
    assert len(died) == 1
    worker.close()
