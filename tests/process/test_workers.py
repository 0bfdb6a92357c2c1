"""A worker answers typed calls, and whatever it does, it does to itself only."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import threading
import time
from pathlib import Path

import never_ready
import parts
import pytest

import bunri
from bunri.process import here, program
from bunri.process.output import Share
from bunri.process.start import begin_init


class Here(parts.Counter):
    def __init__(self) -> None:
        self.total = 0

    def count(self, by: int) -> int:
        self.total += by
        return self.total


def test_a_call_is_answered_with_its_own_types() -> None:
    with parts.Plain.start(5) as worker:
        assert worker.add(3) == 8
        assert worker.moved(parts.Point(1, 2), dx=4) == parts.Point(5, 2)
        assert worker.echo(b"x") == b"x"


@pytest.mark.parametrize("size", [40_000, 1 << 20, 9 << 20])
def test_large_bytes_come_back_whole(size: int) -> None:
    data = os.urandom(1024) * (size // 1024)
    with parts.Plain.start() as worker:
        for _ in range(3):
            assert worker.echo(data) == data


@pytest.mark.parametrize("where", ["argument", "result", "in a result"])
def test_a_value_that_is_too_large_is_its_senders_mistake(where: str) -> None:
    """Of more, the other end would think that it is attacked, and end the worker."""
    largest = 64 << 20
    with parts.Plain.start() as worker:
        if where == "argument":
            with pytest.raises(bunri.UsageError, match=r"Plain\.echo: 67108865 bytes are too many.*as a stream"):
                worker.echo(bytes(largest + 1))
        elif where == "result":
            with pytest.raises(bunri.RemoteError, match=r"Plain\.zeros -> result: 67108865 bytes are too many"):
                worker.zeros(largest + 1)
            assert len(worker.zeros(largest)) == largest
        else:
            with pytest.raises(bunri.RemoteError, match=r"Plain\.zeros_twice -> result: \d+ bytes are too many"):
                worker.zeros_twice(largest // 2)
        assert worker.add(1) == 1


def test_a_thread_that_is_not_granted_is_told_of_the_policy() -> None:
    with parts.Plain.start() as worker, pytest.raises(bunri.RemoteError, match=r"its policy grants: threads="):
        worker.start_thread()


def test_a_worker_is_another_process_with_no_rights() -> None:
    with parts.Plain.start() as worker:
        pid, uid, _ = worker.ids()
        assert worker.process.pid != os.getpid()
        assert pid in (1, worker.process.pid)
        if os.getuid() == 0:
            assert 61184 <= uid <= 65519


def test_an_undeclared_exception_arrives_as_text_with_its_traceback() -> None:
    with parts.Plain.start() as worker:
        with pytest.raises(bunri.RemoteError, match="ValueError: bo.x1bo") as caught:
            worker.fail("bo\x1bo")
        frames = [line for line in str(caught.value).splitlines() if line.startswith("  File ")]
        assert len(frames) == 1 and frames[0].endswith("in fail"), "the user's own, not bunri's above it"
        with pytest.raises(bunri.RemoteError) as caught:
            worker.fail_by_name(text="no")
        assert str(caught.value).count("  File ") == 1
        assert worker.add(1) == 1  # it lives on


def test_a_declared_exception_arrives_as_itself() -> None:
    with parts.Plain.start() as worker, pytest.raises(parts.NotFound) as caught:
        worker.find("thing")
    assert caught.value.name == "thing"
    assert str(caught.value) == str(parts.NotFound("thing")) == "thing"


def test_a_declared_exception_has_the_text_that_it_was_raised_with() -> None:
    with parts.Plain.start() as worker:
        with pytest.raises(KeyError) as builtin:
            worker.look_up("thing")
        assert builtin.value.args == ("thing",) and str(builtin.value) == "'thing'"
        with pytest.raises(parts.Late) as late:
            worker.be_late(3, "bus")
        assert (late.value.seconds, late.value.why) == (3, "bus")
        assert str(late.value) == "3", "what is given by name only is no part of it, there as here"


def test_a_worker_without_files_is_in_the_root_folder() -> None:
    """Much code asks for it on its way to something else; without files there is no way to another."""
    with parts.Plain.start() as worker:
        assert worker.where("x") == ("/", "/x")


def test_a_wrong_argument_is_the_callers_mistake_and_never_leaves() -> None:
    with parts.Plain.start() as worker:
        with pytest.raises(bunri.UsageError, match=r"Expected `int`, got `str` - at `\$\[0\]`"):
            worker.add("3")  # type: ignore[arg-type]
        with pytest.raises(bunri.UsageError, match="missing a required argument"):
            worker.add()  # type: ignore[call-arg]
        assert worker.add(1) == 1


def test_nothing_of_the_object_is_here() -> None:
    with parts.Plain.start() as worker:
        with pytest.raises(bunri.UsageError, match="another process"):
            _ = worker._n
        with pytest.raises(bunri.UsageError, match="cannot be set"):
            worker.x = 1  # type: ignore[attr-defined]


def test_what_a_worker_prints_is_logged_and_escaped(caplog: pytest.LogCaptureFixture) -> None:
    with parts.Plain.start() as worker:
        worker.say("red \x1b[31m")
    records = [r for r in caplog.records if r.name == "bunri.worker.Plain"]
    assert len(records) == 2
    assert r"red \x1b[31m" in records[0].getMessage()


def test_who_prints_without_end_fills_no_disk() -> None:
    share = Share()
    assert share.takes(1 << 20) and not share.takes(3000)
    time.sleep(0.2)
    assert share.takes(3000)


class Broken(parts.Counter):
    def count(self, by: int) -> int:
        raise ZeroDivisionError(by)


def test_who_makes_a_service_fail_without_end_fills_no_disk(caplog: pytest.LogCaptureFixture) -> None:
    with parts.Caller.start(Broken()) as worker:
        for _ in range(700):
            with pytest.raises(bunri.RemoteError):
                worker.count_twice(1)
    told = [record.getMessage() for record in caplog.records if record.name == "bunri.service"]
    assert 500 < len(told) < 650 and "Broken.count failed for" in told[0]
    assert any("again and again" in text for text in told)


def test_a_failing_init_is_heard_where_the_worker_is_entered() -> None:
    with pytest.raises(bunri.RemoteError, match="RuntimeError: no"), parts.Fails.start():
        pass
    worker = parts.Fails.start()
    with pytest.raises(bunri.RemoteError, match="RuntimeError: no"):
        worker.ping()


def test_a_start_that_comes_behind_the_end_of_its_zygote_says_why_that_ended() -> None:
    """Between the look for a template and the request to it there is time for it to fail."""
    cls = never_ready.NeverReady
    template = program.current().role_for(cls).template_for(cls, cls.policy)
    until = time.monotonic() + 10
    while not template.ended:
        assert time.monotonic() < until
        time.sleep(0.005)

    def start() -> None:
        worker = template.make_worker(None)
        begin_init(worker, ())
        worker.wait_started()

    with pytest.raises(bunri.UsageError, match="the table is missing"):
        start()
    with pytest.raises(bunri.UsageError, match="the table is missing"):
        cls.start().ping()


def test_what_a_worker_said_last_is_heard_before_its_death_however_busy_the_program_is() -> None:
    """Whoever has taken its last packet may still wait for his turn to run when the end is reported."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    busy = threading.Thread(target=spin)
    busy.start()
    try:
        for _ in range(40):
            with pytest.raises(bunri.RemoteError, match="RuntimeError: no"), parts.Fails.start():
                pass
    finally:
        over.set()
        busy.join()


def test_a_death_fails_its_own_calls_with_the_cause() -> None:
    with parts.Plain.start() as other, parts.Plain.start() as worker:
        with pytest.raises(bunri.WorkerDied) as caught:
            worker.die()
        assert caught.value.exit.code == 7 or "channel" in str(caught.value)
        with pytest.raises(bunri.WorkerDied):
            worker.add(1)
        assert other.add(1) == 1


def test_sigkill_from_outside_is_a_death_with_its_signal() -> None:
    with parts.Plain.start() as worker:
        process = worker.process
        process.signal(signal.SIGKILL)
        assert process.wait().signal == signal.SIGKILL


def test_a_deadline_stops_the_work() -> None:
    with parts.Plain.start() as worker:
        begun = time.monotonic()
        with pytest.raises(bunri.DeadlineExceeded), bunri.deadline(0.2):
            worker.sleep(30)
        assert time.monotonic() - begun < 5
        with pytest.raises(bunri.WorkerDied):
            worker.add(1)


def test_an_infinite_deadline_lifts_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunri.process.serving.DEFAULT_DEADLINE", 0.2)

    async def go() -> None:
        async with parts.Plain.start() as worker:
            with bunri.deadline(math.inf):
                await bunri.call(worker.sleep, 0.6)
        async with parts.Plain.start() as worker:
            with pytest.raises(bunri.DeadlineExceeded):
                await bunri.call(worker.sleep, 0.6)

    asyncio.run(go())


def test_the_cpu_budget_of_a_call_is_kept() -> None:
    policy = parts.Plain.policy.with_(cpu="300ms")
    with parts.Plain.start_under(policy) as worker, pytest.raises(bunri.WorkerDied, match="CPU time"):
        worker.burn()


def test_an_item_of_a_stream_does_not_wait_for_the_next_one() -> None:
    """Whoever follows something slow gets each item when it is there."""
    reading, writing = os.pipe()
    with parts.Plain.start() as worker, bunri.File(reading) as pipe:
        items = worker.heard(pipe)
        for said in (b"one", b"two"):
            os.write(writing, said)
            assert next(items) == said
        os.close(writing)
        assert list(items) == []


def test_a_stream_arrives_in_order_and_can_be_closed_early() -> None:
    with parts.Plain.start() as worker:
        assert list(worker.rows(100)) == list(range(100))
        some = worker.rows(10_000)
        assert [next(some) for _ in range(20)] == list(range(20))
        some.close()  # type: ignore[attr-defined]
        assert worker.add(2) == 2


def test_many_calls_in_flight_come_back_each_with_its_own() -> None:
    with parts.Plain.start() as worker:
        calls = [bunri.call(worker.add, 1) for _ in range(3000)]
        assert [c.result() for c in calls] == list(range(1, 3001))


def test_calls_that_nobody_drives_end_too() -> None:
    import concurrent.futures

    with parts.Plain.start() as worker:
        calls = [bunri.call(worker.add, 1) for _ in range(50)]
        done = {c.result() for c in concurrent.futures.as_completed(calls, timeout=10)}
        assert done == set(range(1, 51))


def test_threads_take_turns() -> None:
    with parts.Plain.start() as worker:
        threads = [threading.Thread(target=lambda: [worker.add(1) for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert worker.add(0) == 400


def test_a_service_is_called_and_counts_in_the_monitor() -> None:
    counter = Here()
    with parts.Caller.start(counter) as worker:
        assert worker.count_twice(2) == 4
        assert worker.count_twice(3) == 10
    assert counter.total == 10


def test_a_file_is_lent_and_a_socket_crosses(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"content")
    ours, theirs = socket.socketpair()
    with parts.Handed.start() as worker, bunri.File.open(path) as file, ours, theirs:
        assert worker.read(file) == b"content"
        assert worker.read(file) == b"content"  # a description of its own each time
        worker.greet(theirs)
        assert ours.recv(10) == b"hello"


def test_a_pool_replaces_its_workers_after_each_call() -> None:
    with parts.Plain.pool(2) as pool:
        assert [pool.add(1) for _ in range(6)] == [1] * 6  # each from a fresh worker
        assert [c.result() for c in bunri.map(pool.add, range(10))] == list(range(10))


def test_a_pool_is_dropped_wherever_its_stub_is_collected() -> None:
    """In a thread that plays a worker's part, too (bunri.testing.unconfined)."""
    pool = parts.Plain.pool(1)
    worker = pool._bunri_target._idle[0]  # type: ignore[attr-defined]
    worker.wait_started()
    pid = worker.pid
    del worker
    stubs = [pool]
    del pool

    def play() -> None:
        here.become_worker_in_this_thread()
        stubs.clear()

    thread = threading.Thread(target=play)
    thread.start()
    thread.join()
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_pools_failure_is_one_calls() -> None:
    with parts.Plain.pool(2) as pool:
        calls = [bunri.call(pool.fail, "x"), bunri.call(pool.add, 1), bunri.call(pool.die), bunri.call(pool.add, 2)]
        with pytest.raises(bunri.RemoteError):
            calls[0].result(10)
        with pytest.raises(bunri.WorkerDied):
            calls[2].result(10)
        assert calls[1].result(10) == 1
        assert calls[3].result(10) == 2


def test_asyncio_calls_run_together() -> None:
    async def main() -> None:
        async with parts.Async.start() as worker:
            begun = time.monotonic()
            assert await asyncio.gather(*(worker.wait(0.6, i) for i in range(10))) == list(range(10))
            assert time.monotonic() - begun < 5
            assert await bunri.call(worker.now, 3) == 3
            assert [i async for i in worker.ticks(100)] == list(range(100))
            with pytest.raises(bunri.UsageError, match="await bunri.call"):
                worker.now(1)

    asyncio.run(main())


def test_cancelling_an_async_method_leaves_the_worker_alive() -> None:
    async def main() -> None:
        async with parts.Async.start() as worker:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bunri.call(worker.wait, 30, 1), 0.2)
            assert await worker.wait(0, 5) == 5

    asyncio.run(main())


def test_cancelling_a_plain_method_ends_the_worker() -> None:
    async def main() -> None:
        async with parts.Plain.start() as worker:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bunri.call(worker.sleep, 30.0), 0.3)
            with pytest.raises(bunri.WorkerDied):
                await bunri.call(worker.add, 1)

    asyncio.run(main())


def test_a_call_that_was_made_before_the_start_is_sent_when_nobody_waits() -> None:
    """The answer to __init__ takes the short way in; the call behind it must not be left lying."""
    with parts.Plain.pool(1) as pool:
        for _ in range(30):
            call = bunri.call(pool.add, 1)
            deadline = time.monotonic() + 10
            while not call.done() and time.monotonic() < deadline:
                time.sleep(0.002)
            assert call.done()


def test_a_budget_holds_also_after_a_long_rest() -> None:
    """The supervisor stops looking at idle workers; it must look again when they work."""
    with parts.Plain.start_under(parts.Plain.policy.with_(cpu="200ms")) as worker:
        worker.add(1)
        time.sleep(1.2)
        with pytest.raises(bunri.WorkerDied, match="CPU time"), bunri.deadline(10):
            worker.burn()


def test_a_mapping_leaves_no_descriptor_in_the_worker() -> None:
    """Not even the copy that Python's mmap would keep. The control: a file beside it is seen."""
    memory, other = os.memfd_create("memory"), os.memfd_create("other")
    try:
        os.write(memory, b"shared")
        with bunri.File(os.dup(other)) as file:
            with parts.Mapping.start(bunri.Mapped(memory, 6), file) as worker:
                assert worker.read() == b"shared"
                held = worker.held()
        assert os.fstat(memory).st_ino not in held
        assert os.fstat(other).st_ino in held
    finally:
        os.close(memory)
        os.close(other)


@pytest.mark.skipif(os.getuid() != 0, reason="only workers of root have uids of their own")
def test_more_workers_than_a_zygote_knows_uids_for() -> None:
    """A role's user namespace maps the uids that were there when it was made; for the next ones there is another role."""
    with contextlib.ExitStack() as alive:
        workers = [alive.enter_context(parts.Plain.start()) for _ in range(70)]
        assert [worker.add(1) for worker in workers] == [1] * 70
        assert len({_status(worker.process.pid, "Uid") for worker in workers}) == 70


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))


@pytest.mark.skipif(os.getuid() != 0, reason="only templates of root pin memory")
def test_huge_pages_are_refused_to_the_template_and_not_to_its_workers() -> None:
    """Of a huge page that is pinned in part a fork would copy all of it."""
    if not program.current().host.io_uring or _status(os.getpid(), "THP_enabled").strip() != "1":
        pytest.skip("this host has no io_uring, or no huge pages for us")
    with parts.Plain.start() as worker:
        template = program.current().role_for(parts.Plain).template_for(parts.Plain, parts.Plain.policy)
        assert _status(template.pid, "THP_enabled").strip() == "0"
        assert _status(worker.process.pid, "THP_enabled").strip() == "1"
