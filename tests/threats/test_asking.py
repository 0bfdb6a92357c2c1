"""What a worker asks of services counts against it while it waits, and is nobody's once it is over. Each attack and its control."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import subprocess
import time
from collections.abc import Iterator

import asking
import pytest
from asking import Asking, Slow

import bunri
from bunri.channel.streams import Outflow
from bunri.kernel import rlimit
from bunri.process.output import Output

MIB = 1 << 20


class SlowHere(Slow):
    """Answers when `go` is set; `begun` is what it was really asked."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: list[str] = []

    async def text(self, text: str) -> int:
        self.begun.append(text[:1])
        await self.go.wait()
        return len(text)

    async def lists(self, lists: list[list[int]]) -> int:
        await self.go.wait()
        return len(lists)

    async def files(self, files: list[bunri.File]) -> int:
        try:
            await self.go.wait()
        finally:
            for file in files:
                file.close()
        return len(files)


def start(slow: Slow, memory: str = "64M") -> Asking:
    return Asking.start_under(Asking.policy.with_(memory=memory), slow)


def resident() -> int:
    """Bytes of this process in memory, now."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def flooded(code: str, memory: str = "64M") -> tuple[str, int]:
    """What comes of it, and how much the monitor has grown while it still holds everything. A neighbour is served."""
    slow = SlowHere()
    async with start(slow, memory) as worker, start(slow) as neighbour:
        assert await bunri.call(neighbour.run_code, "result = 1") == "1"
        before = resident()
        try:
            found = await bunri.call(worker.run_code, code)
            await asyncio.sleep(0.1)  # the last packets are taken
        except bunri.WorkerDied as died:
            found = died.exit.cause or ""
        grown = resident() - before
        assert await bunri.call(neighbour.run_code, "result = 2") == "2"
        return found, grown


_TEXTS = "for n in range(1, 31): ask('text', text(8 << 20), n)\nresult = 'sent'"
_LISTS = "body = lists(30_000)\nfor n in range(1, 51): ask('lists', body, n)\nresult = 'sent'"


def test_threat_23_what_waits_for_its_turn_is_bounded() -> None:
    """Thirty times 8 MiB, where the worker itself may have 64."""
    found, grown = asyncio.run(flooded(_TEXTS))
    assert "more bytes than its memory" in found
    assert grown < 120 * MIB


def test_threat_23_control_what_waits_is_held() -> None:
    found, grown = asyncio.run(flooded(_TEXTS, "512M"))
    assert found == "sent"
    assert grown > 150 * MIB


def test_threat_24_what_waits_is_not_made_into_objects() -> None:
    found, grown = asyncio.run(flooded(_LISTS))
    assert found == "sent"  # 1.5 MB on the wire
    assert grown < 20 * MIB


def test_threat_24_control_as_objects_they_are_many_times_as_large() -> None:
    body, before = asking.lists(30_000), resident()
    made = [asking.METHODS["lists"].decode_arguments(body, None, None) for _ in range(50)]
    assert resident() - before > 60 * MIB
    assert len(made) == 50


def _opened(what: str) -> int:
    """How many of this process's descriptors are of that."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{number}") == what
    return found


async def _open_after(files: int) -> tuple[str, int]:
    """What comes of asking with so many files, and how many of them the monitor has while none is answered."""
    slow = SlowHere()
    async with start(slow) as worker:
        pipe = f"pipe:[{await bunri.call(worker.run_code, 'result = os.fstat(1).st_ino')}]"
        before = _opened(pipe)
        try:
            found = await bunri.call(worker.run_code, f"files({files}); result = 'sent'")
            await asyncio.sleep(0.1)
        except bunri.WorkerDied as died:
            found = died.exit.cause or ""
        more = _opened(pipe) - before
        slow.go.set()
        await asyncio.sleep(0.1)
        return found, more


def test_threat_34_descriptors_that_wait_are_bounded() -> None:
    """Of these the monitor has a thousand for all."""
    found, more = asyncio.run(_open_after(320))
    assert "more than 64 descriptors" in found
    assert more <= 64


def test_threat_34_control_those_that_wait_are_held() -> None:
    found, more = asyncio.run(_open_after(64))
    assert found == "sent"
    assert more == 64


def _streamed(count: int, *, honest: bool) -> int:
    """How many items of a mebibyte are had, of a stream that nobody takes from for a while."""
    with start(SlowHere()) as worker:
        rows = iter(worker.rows(1 << 20, count, honest))
        found = [next(rows)]
        time.sleep(0.3)
        found += rows
    return len(found)


def test_threat_23_a_stream_has_credit_in_bytes() -> None:
    """Else sixteen items of 64 MiB would stand in the monitor."""
    with pytest.raises(bunri.WorkerDied, match="bytes ahead"):
        _streamed(16, honest=False)


def test_threat_23_control_of_streams() -> None:
    assert _streamed(16, honest=True) == 16


_OVER = {"CREDIT": "method=1, call=9", "CLOSE": "call=9", "CANCEL": "call=9"}


@pytest.mark.parametrize("kind", _OVER)
def test_threat_23_words_about_what_is_over_are_counted(kind: str) -> None:
    """Each costs the monitor something, and none of them says anything: a credit may come late, but not for ever."""
    with pytest.raises(bunri.WorkerDied, match="about calls and streams that are over"):
        asyncio.run(_died(f"say({kind!r}, 1000, {_OVER[kind]}); time.sleep(20)"))


@pytest.mark.parametrize("kind", _OVER)
def test_threat_23_control_some_come_late(kind: str) -> None:
    assert asyncio.run(_died(f"say({kind!r}, 60, {_OVER[kind]}); result = 'alive'")) == "alive"


def test_threat_23_nothing_is_not_given_back() -> None:
    """It could be so without end."""
    with pytest.raises(bunri.WorkerDied, match="0 arena blocks"):
        asyncio.run(_died("say('FREED', 1, call=0); time.sleep(20)"))
    flow = Outflow()
    flow.sent(1)
    with pytest.raises(bunri.ProtocolError, match="credit for 0 items"):
        flow.credit(0)


_QUEUE = "for n in range(1, 11): ask('text', text(1), n)\n"


async def _begun(end: str, *, first: bool) -> list[str]:
    """What the service was really asked; it answers when the worker is over, or, `first`, before that."""
    slow = SlowHere()
    async with start(slow) as worker:
        asked = bunri.call(worker.run_code, _QUEUE + end)
        while not slow.begun:
            await asyncio.sleep(0.01)
        if first:
            slow.go.set()
        with contextlib.suppress(bunri.WorkerDied):
            await asked
        slow.go.set()
        await asyncio.sleep(0.1)
        return slow.begun


def test_threat_29_what_a_dead_worker_asked_for_is_not_done() -> None:
    """It had asked ten times; one was begun when it died."""
    assert asyncio.run(_begun("time.sleep(0.2); os._exit(1)", first=False)) == ["x"]


def test_threat_29_control_a_living_one_is_served() -> None:
    assert asyncio.run(_begun("time.sleep(0.5); os._exit(1)", first=True)) == ["x"] * 10


def test_threat_29_two_calls_with_one_number_end_their_sender() -> None:
    """Else one of them could be neither cancelled nor counted."""
    code = "ask('text', text(1), 7); ask('lists', lists(1), 7); time.sleep(20)"
    with pytest.raises(bunri.WorkerDied, match="two calls with number 7"):
        asyncio.run(_died(code))


def test_threat_29_control_with_two_numbers_they_do_not() -> None:
    code = "ask('text', text(1), 7); ask('lists', lists(1), 8); time.sleep(0.2); result = 'alive'"
    assert asyncio.run(_died(code)) == "alive"


async def _died(code: str) -> str:
    async with start(SlowHere()) as worker:
        return await bunri.call(worker.run_code, code)


# 25. Lines without end -----------------------------------------------------------------------------------------------


class _Counted(Output):
    looked_at = 0

    def _log(self, line: bytes) -> None:
        self.looked_at += 1
        super()._log(line)


def _printed(data: bytes, caplog: pytest.LogCaptureFixture) -> tuple[int, int]:
    """How many lines of it were looked at, one by one, and how many were told of, be it in a sum."""
    reader, writer = os.pipe()
    output = _Counted(reader, logging.getLogger("bunri.worker.Printer"), "", lambda number: None)
    os.write(writer, data)
    os.close(writer)
    output.close()
    texts = [record.getMessage() for record in caplog.records]
    sums = [int(text.split()[0][1:]) for text in texts if "more lines in one second" in text]
    return output.looked_at, len(texts) - len(sums) + sum(sums)


def test_threat_25_lines_beyond_a_second_are_counted_and_not_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    """65,536 of them come in one piece: looking at each held the monitor up for a twentieth of a second, each time."""
    looked_at, told = _printed(b"\n" * 65_536, caplog)
    assert looked_at < 1000
    assert told == 65_536


def test_threat_25_control_those_within_it_are(caplog: pytest.LogCaptureFixture) -> None:
    assert _printed(b"x\n" * 100, caplog) == (100, 100)


# 34. Numbers of processes that are no more ---------------------------------------------------------------------------


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who got the number of a worker that has ended. The kernel gives each out again, in time."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_threat_34_nobody_else_is_narrowed(bystander: subprocess.Popen[bytes]) -> None:
    worker = start(SlowHere())
    behind = worker.process._owner
    narrower = Asking.policy.with_(memory="64M", open_files=40)
    assert worker.run_code("result = 1") == "1"
    worker.process.narrow(narrower)
    worker.close()
    before = resource.prlimit(bystander.pid, resource.RLIMIT_NOFILE)
    behind.pid = bystander.pid  # type: ignore[misc]
    with pytest.raises(bunri.WorkerDied):
        behind.narrow(narrower.with_(open_files=30))
    assert resource.prlimit(bystander.pid, resource.RLIMIT_NOFILE) == before


def test_threat_34_control_a_number_is_whose_it_is_now(bystander: subprocess.Popen[bytes]) -> None:
    rlimit.set_("NOFILE", 30, 30, bystander.pid)
    assert resource.prlimit(bystander.pid, resource.RLIMIT_NOFILE) == (30, 30)


# 31. Processor time of others ----------------------------------------------------------------------------------------


def _burnt(cpu: str, seconds: float, each: float, *, ignored: bool) -> str:
    policy = asking.WithChildren.policy.with_(processes=2, cpu=cpu)
    with asking.WithChildren.start_under(policy) as worker:
        try:
            return str(worker.burn(seconds, each, ignored))
        except bunri.WorkerDied as died:
            return died.exit.cause or ""


@pytest.mark.parametrize(("each", "ignored"), [(3.0, False), (0.01, False), (0.1, True)])
def test_threat_31_a_workers_children_have_its_budget(each: float, ignored: bool) -> None:
    """One that burns for long, many that are waited for, and some that nobody waits for."""
    assert "over its CPU time" in _burnt("300ms", 3.0, each, ignored=ignored)


def test_threat_31_control_of_children() -> None:
    assert _burnt("20s", 1.0, 0.1, ignored=True) == "1.0"
