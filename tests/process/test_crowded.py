"""Runs in: the test process. More handles at one time than a worker may have open, in either direction."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import crowded
import parts
import pytest
from marked import Mark

import bunri
from bunri.process import serving

MANY = 5 * crowded.Together.policy.open_files


class Here(crowded.Taker):
    """What it is asked waits for its turn: one call of a method at a time, and the first takes long."""

    def __init__(self, first_takes: float = 0.0) -> None:
        self.asked = 0
        self.sizes: list[int] = []
        self.notes: list[int] = []
        self._first_takes = first_takes
        self._go = asyncio.Event()

    async def take(self, file: bunri.File) -> int:
        await self._think()
        file.close()
        return 1

    async def hold(self, file: bunri.File) -> int:
        await self._go.wait()
        file.close()
        return 1

    async def go_on(self) -> None:
        self._go.set()

    def note(self, data: bytes) -> None:
        self.notes.append(len(data))

    async def size(self, data: bytes) -> int:
        self.sizes.append(len(data))
        await self._think()
        return len(data)

    async def _think(self) -> None:
        self.asked += 1
        await asyncio.sleep(self._first_takes if self.asked == 1 else 0)

    async def rows(self, count: int) -> AsyncIterator[int]:
        for _ in range(count):
            yield 1


def file() -> bunri.File:
    reader, writer = os.pipe()
    os.close(writer)
    return bunri.File(reader)


def test_what_one_may_not_hold_at_once_waits_for_its_turn() -> None:
    """They could be taken by none of its calls, and no call would have an answer. What the user closes is no longer needed."""

    async def main() -> None:
        async with crowded.Together.start() as worker:
            calls: list[bunri.Call[int]] = []
            for _ in range(MANY):
                with file() as handed:
                    calls.append(bunri.call(worker.hold, handed))
            await asyncio.sleep(0.2)
            assert not any(call.done() for call in calls)
            await worker.go_on()  # it passes them by
            assert sum(await asyncio.wait_for(asyncio.gather(*calls), 20)) == MANY

    asyncio.run(main())


def test_what_waits_is_told_when_it_is_over_and_its_files_are_closed(tmp_path: Path) -> None:
    async def main() -> None:
        mark = Mark(tmp_path / "sent")
        sent = bunri.File(os.open(mark.path, os.O_RDONLY))
        async with crowded.Together.start() as worker:
            calls = [bunri.call(worker.hold, sent) for _ in range(MANY)]
            await asyncio.sleep(0.2)
            assert mark.still_open() > 100
        assert all(isinstance(each, bunri.WorkerDied) for each in await asyncio.gather(*calls, return_exceptions=True))
        sent.close()
        assert mark.still_open() == 0

    asyncio.run(main())


def test_a_deadline_ends_what_waits_and_a_cancelled_call_waits_no_longer(tmp_path: Path) -> None:
    """Else whoever waits for it would wait for others, who may have no deadline."""

    async def main() -> None:
        mark = Mark(tmp_path / "sent")
        sent = bunri.File(os.open(mark.path, os.O_RDONLY))
        async with crowded.Together.start() as worker:
            first = [bunri.call(worker.hold, sent) for _ in range(MANY)]
            with bunri.deadline(0.3):
                late = bunri.call(worker.hold, sent)
            with pytest.raises(bunri.DeadlineExceeded, match="had not begun hold"):
                await asyncio.wait_for(late, 10)
            before = mark.still_open()
            for call in first[-100:]:
                assert call.cancel()
            assert mark.still_open() == before - 100
            await worker.go_on()
            assert await asyncio.wait_for(asyncio.gather(*first[:-100]), 20)
        sent.close()
        assert mark.still_open() == 0

    asyncio.run(main())


def test_a_file_that_is_closed_already_is_the_calls_failure() -> None:
    """As of every call that is begun and not waited for."""

    async def main() -> None:
        async with crowded.Together.start() as worker:
            handed = file()
            handed.close()
            call = bunri.call(worker.hold, handed)
            with pytest.raises(bunri.UsageError, match="closed"):
                await call

    asyncio.run(main())


def test_a_call_beyond_the_window_fails_where_its_file_cannot_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would ever have answered it: whoever read the answer before it met the error."""
    monkeypatch.setattr(serving, "WINDOW", 1)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with parts.Handed.start() as worker, file() as handed:
        first, second = bunri.call(worker.read, handed), bunri.call(worker.read, handed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            assert first.result(10) == b""
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        with pytest.raises(OSError, match="Too many open files"):
            second.result(10)
        assert worker.read(handed) == b""


def test_a_deadline_ends_a_call_beyond_the_window() -> None:
    async def main() -> None:
        async with crowded.Together.start() as worker:
            first = [bunri.call(worker.stay) for _ in range(serving.WINDOW)]
            with bunri.deadline(0.3):
                late = bunri.call(worker.stay)
            cancelled = bunri.call(worker.go_on)
            cancelled.cancel()
            with pytest.raises(bunri.DeadlineExceeded, match="had not begun stay"):
                await asyncio.wait_for(late, 10)
            first[0].cancel()  # there is room for one
            assert await asyncio.wait_for(bunri.call(worker.is_staying), 10)
            await worker.go_on()
            await asyncio.wait_for(asyncio.gather(*first[1:]), 20)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["together", "in turn"])
def test_one_that_keeps_more_than_it_may_ends_and_says_why(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with crowded.Together.start() if kind == "together" else crowded.InTurn.start(Here()) as worker:
            for _ in range(MANY):
                with file() as handed:
                    await asyncio.wait_for(bunri.call(worker.keep, handed), 20)

    with caplog.at_level(logging.INFO, "bunri.worker"), pytest.raises(bunri.WorkerDied, match="exit code 1"):
        asyncio.run(main())
    assert any("no room for them. Close handles, or raise open_files" in message for message in caplog.messages)


def test_more_files_under_way_than_one_user_may_send_are_waited_for() -> None:
    """unix(7), ETOOMANYREFS: while the program is busy with something else they stay under way."""

    async def main() -> None:
        async with crowded.InTurn.start(Here()) as worker:
            with file() as handed:
                sent = bunri.call(worker.send, handed, 100)
                time.sleep(0.5)
                assert await asyncio.wait_for(sent, 20) == 100

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["together", "in turn"])
def test_more_calls_of_services_than_the_monitor_holds_wait_in_the_worker(kind: str) -> None:
    """They ended an honest worker: the monitor takes more than it holds for an attack (tests/threats/test_asking.py)."""

    async def main() -> tuple[int, int]:
        here = Here()
        if kind == "in turn":
            async with crowded.InTurn.start(here) as worker:
                return await bunri.call(worker.sizes, b"four", 2000), here.asked
        async with crowded.Asker.start(here) as asker:
            return await asker.sizes(b"four", 2000), here.asked

    assert asyncio.run(asyncio.wait_for(main(), 60)) == (8000, 2000)


def test_more_bytes_for_services_than_the_worker_may_have_itself_wait_in_the_worker() -> None:
    async def main() -> int:
        async with crowded.Asker.start_under(crowded.Asker.policy.with_(memory="24M"), Here(0.5)) as worker:
            return await worker.sizes(bytes(1 << 20), 100)

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 100 << 20


@pytest.mark.parametrize("kind", ["together", "in turn"])
def test_more_files_for_services_than_the_worker_may_have_itself_wait_in_the_worker(kind: str) -> None:
    """In turn their copies wait in the worker, which has room for some."""

    async def main() -> int:
        with file() as handed:
            if kind == "in turn":
                async with crowded.InTurn.start(Here(0.5)) as worker:
                    return await bunri.call(worker.send, handed, 80)
            async with crowded.Asker.start(Here(0.5)) as asker:
                return await asker.send(handed, 80)

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 80


def test_more_streams_of_services_than_the_monitor_holds_wait_in_the_worker() -> None:
    async def main() -> int:
        async with crowded.Asker.start(Here()) as worker:
            return await worker.rows(40, 400)

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 16_000


def test_a_call_that_was_cancelled_in_the_worker_does_not_go_out() -> None:
    async def main() -> int:
        here = Here()
        async with crowded.Asker.start(here) as worker:
            assert await worker.size_of_the_first(2000) == 1
            assert await worker.sizes(b"x", 1) == 1  # all before it has been answered
        return here.asked

    assert asyncio.run(asyncio.wait_for(main(), 60)) < 300


@pytest.mark.parametrize("times", [48, 100])
def test_calls_that_wait_for_room_are_passed_by(times: int) -> None:
    """Else those that hold it would wait for a call that waits behind them. So many are with the service at one time as its
    worker may have open, less those that come with an answer."""

    async def main() -> int:
        with file() as handed:
            async with crowded.Asker.start(Here()) as worker:
                return await worker.held_until_told(handed, times)

    assert asyncio.run(asyncio.wait_for(main(), 60)) == times


def test_calls_of_one_method_keep_their_order_whatever_waits() -> None:
    async def main() -> Here:
        here = Here(0.3)
        async with crowded.Asker.start(here) as worker:
            await worker.in_order(bytes(3 << 20), 30)
        return here

    here = asyncio.run(asyncio.wait_for(main(), 60))
    assert here.sizes == here.notes == [3 << 20 if n % 3 == 0 else n for n in range(30)]


START_IN_A_CROWD = """
import os
import resource
import socket
import time
import bunri
import parts
from bunri.process import program

def started():
    try:
        with parts.Plain.start() as worker:
            print("served", worker.add(1))
    except bunri.HostError as fault:
        print("refused", os.strerror(fault.errno), "RLIMIT_NOFILE" in fault.remedy)

resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
started()
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for _ in range(3):
    socket.send_fds(one, [b"x"], [0] * 50)
started()
for _ in range(3):
    for number in socket.recv_fds(other, 1, 50)[1]:
        os.close(number)
started()
until = time.monotonic() + 5
while any(t.workers for t in program.current().templates()) and time.monotonic() < until:
    time.sleep(0.05)
print(sum(len(t.workers) - len(t.spares) for t in program.current().templates()))
"""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may have any number under way (CAP_SYS_RESOURCE)")
def test_a_start_among_too_many_descriptors_under_way_is_refused_and_leaves_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", START_IN_A_CROWD], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "served 1",
        "refused Too many references: cannot splice True",
        "served 1",
        "0",
    ]
