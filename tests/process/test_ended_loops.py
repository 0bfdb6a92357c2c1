"""Runs in: the test process. A worker belongs to the loop that started it: it ends with it, and its services run there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import parts
import pytest
import uvloop

import bunri
from bunri.channel.target import target_of
from bunri.process import program, serving, spares


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


def both_ways_say_so(method: Callable[[int], int]) -> None:
    """A direct call, and a Call; the second time, too."""
    for _ in range(2):
        with pytest.raises(bunri.WorkerDied, match="its event loop was closed"):
            method(1)
        with pytest.raises(bunri.WorkerDied, match="its event loop was closed"):
            bunri.call(method, 1).result(10)


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def run(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


def run_uvloop(main: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def run_by_hand(main: Callable[[], Any]) -> Any:
    """Without what asyncio.run does at the end."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


async def left() -> tuple[parts.Async, int]:
    worker = parts.Async.start()
    assert await worker.wait(0.0, 1) == 1
    return worker, worker.process.pid


@pytest.mark.parametrize("end", [run, run_uvloop])
def test_a_worker_ends_with_its_loop(end: Callable[[Any], Any]) -> None:
    worker, pid = end(left)
    until(lambda: not is_there(pid))
    with pytest.raises(bunri.WorkerDied, match="its event loop was closed"):
        worker.now(1)


def test_a_worker_leaves_its_loop_once() -> None:
    """The supervisor asks the loop to forget the channel of a dead worker; the loop, before it comes to that, reads the end and
    has forgotten it. Then the number is closed, and somebody else's, whom the loop must not forget."""

    async def number_of_one_that_died() -> int:
        worker = parts.Async.start()
        assert await worker.wait(0.0, 1) == 1
        side = target_of(worker).side
        os.kill(worker.process.pid, signal.SIGKILL)
        until(lambda: side._leaving)
        side.on_loop_readable()
        until(lambda: side.link.sock.fileno() < 0)
        return side.link.number

    async def heard() -> bool:
        ours, theirs = socket.socketpair()
        while (mine := fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, number := await number_of_one_that_died())) != number:
            os.close(mine)  # a spare worker has it
        comes = asyncio.Event()
        asyncio.get_running_loop().add_reader(mine, comes.set)
        theirs.send(b"x")
        try:
            await asyncio.wait_for(comes.wait(), 1)
        except TimeoutError:
            return False
        finally:
            asyncio.get_running_loop().remove_reader(mine)
            os.close(mine)
            ours.close()
            theirs.close()
        return True

    assert asyncio.run(heard())


def test_a_loop_that_was_closed_by_hand_is_noticed_by_the_next_one() -> None:
    worker, pid = run_by_hand(left)
    assert is_there(pid)
    asyncio.run(left())
    until(lambda: not is_there(pid))
    assert "its event loop was closed" in str(worker._bunri_target.death())  # type: ignore[attr-defined]


def test_each_loop_ends_its_own_workers_only() -> None:
    async def main() -> None:
        mine, pid = await left()
        _, other = await asyncio.to_thread(asyncio.run, left())
        until(lambda: not is_there(other))
        assert is_there(pid)
        assert await mine.wait(0.0, 5) == 5
        mine.close()

    asyncio.run(main())


@pytest.mark.parametrize("end", [run, run_uvloop, run_by_hand])
def test_calls_on_a_worker_whose_loop_was_closed_say_so(end: Callable[[Any], Any]) -> None:
    worker, pid = end(left)
    both_ways_say_so(worker.now)

    async def again() -> None:
        with pytest.raises(bunri.WorkerDied, match="its event loop was closed"):
            await worker.wait(0.0, 1)
        with pytest.raises(bunri.WorkerDied, match="its event loop was closed"):
            await anext(worker.ticks(1))

    asyncio.run(again())
    until(lambda: not is_there(pid))
    worker.close()


@pytest.mark.parametrize("end", [run, run_uvloop, run_by_hand])
def test_calls_on_a_pool_whose_loop_was_closed_say_so(end: Callable[[Any], Any]) -> None:
    async def pool() -> tuple[parts.Plain, list[int]]:
        made = parts.Plain.pool(2)
        assert await bunri.call(made.add, 1) == 1
        return made, [worker.pid for worker in made._bunri_target._workers]  # type: ignore[attr-defined]

    made, pids = end(pool)
    both_ways_say_so(made.add)
    until(lambda: not any(map(is_there, pids)))


def test_who_waits_in_a_thread_is_told_when_the_loop_is_closed() -> None:
    found: list[BaseException] = []

    def ask(worker: parts.Plain) -> None:
        try:
            worker.sleep(30)
        except bunri.PeerError as fault:
            found.append(fault)

    async def main() -> threading.Thread:
        worker = parts.Plain.start()
        await bunri.call(worker.add, 1)
        thread = threading.Thread(target=ask, args=(worker,))
        thread.start()
        await asyncio.sleep(0.2)
        return thread

    asyncio.run(main()).join(10)
    assert [type(each) for each in found] == [bunri.WorkerDied]
    assert "its event loop was closed" in str(found[0])


def test_a_call_from_a_thread_has_its_deadline_where_the_loop_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two runs of a loop nobody reads: an answer cannot come, but the caller does not wait for ever."""
    monkeypatch.setattr(serving, "DEFAULT_DEADLINE", 0.3)
    with asyncio.Runner() as runner:
        worker, _ = runner.run(left())
        with pytest.raises(bunri.DeadlineExceeded):
            worker.now(1)
        with pytest.raises(bunri.WorkerDied, match="over its deadline"):
            worker.now(1)


def test_a_result_that_would_block_the_loop_is_refused() -> None:
    async def main() -> None:
        async with parts.Plain.start() as worker:
            call = bunri.call(worker.add, 1)
            with pytest.raises(bunri.UsageError, match="await call"):
                call.result()
            with pytest.raises(bunri.UsageError, match="await call"):
                call.exception()
            assert await call == 1
            assert call.result() == 1, "it is there"

    asyncio.run(main())


class OnLoop(parts.Counter):
    """Says on which thread it is called."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def count(self, by: int) -> int:
        self.threads.add(threading.get_ident())
        return by


def with_spares() -> None:
    """So that the next start of Caller takes a spare."""
    for _ in range(2):
        with parts.Caller.start(OnLoop()) as worker:
            worker.count_twice(1)
    found = program.current().role_for(parts.Caller).template_for(parts.Caller, parts.Caller.policy).spares
    until(lambda: len(found) >= spares.LEAST and all(w.side.open for w in found._waiting))


@pytest.mark.parametrize("is_spare", [True, False])
def test_services_run_on_the_loop_whoever_calls_the_worker(is_spare: bool) -> None:
    """Also of a worker that was a spare, which had no loop, before."""
    service, turns = OnLoop(), 0
    if is_spare:
        with_spares()

    async def main() -> None:
        nonlocal turns
        async with parts.Caller.start(service) as worker:
            assert await bunri.call(worker.count_twice, 2) == 2
            asking = asyncio.get_running_loop().run_in_executor(
                None, lambda: [worker.count_twice(3) for _ in range(200)]
            )
            while not asking.done():
                turns += 1
                await asyncio.sleep(0)
            assert asking.result() == [3] * 200

    asyncio.run(main())
    assert service.threads == {threading.get_ident()}
    assert turns > 200, "the loop stood still while another thread waited"


class Asks(parts.AsyncCounter):
    """Answers with what another worker says."""

    def __init__(self, other: parts.Async) -> None:
        self._other = other

    async def count(self, by: int) -> int:
        return await self._other.wait(0.0, by)


def test_a_deadline_around_the_start_is_none_of_later_calls() -> None:
    """Neither of the worker's, nor of the services that it calls later."""

    async def main() -> None:
        async with parts.Async.start() as other:
            with bunri.deadline(5.0):
                worker = parts.AsyncCaller.start(Asks(other))
                assert await worker.count_twice(1) == 1
            with bunri.deadline(0.2):
                second = parts.AsyncCaller.start(Asks(other))
            await asyncio.sleep(0.4)
            assert await worker.count_twice(2) == 2
            assert await second.count_twice(3) == 3
            worker.close()
            second.close()

    asyncio.run(main())
