"""A call ends for everybody who waits for it, in whatever way, and no way of calling goes around the rules."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator

import parts
import pytest

import bunri


def test_calls_end_for_those_who_wait_for_several() -> None:
    with parts.Plain.start() as worker:
        worker.add(0)
        calls = [bunri.call(worker.add, 1) for _ in range(300)]
        assert sorted(done.result() for done in concurrent.futures.as_completed(calls, 20)) == list(range(1, 301))
        done, left = concurrent.futures.wait([bunri.call(worker.add, 1) for _ in range(40)], 20)
        assert (len(done), len(left)) == (40, 0)


def test_a_callback_is_called_without_anybody_waiting() -> None:
    told = threading.Event()
    with parts.Plain.start() as worker:
        worker.add(0)
        bunri.call(worker.add, 1).add_done_callback(lambda _: told.set())
        assert told.wait(5)


def test_a_timeout_leaves_the_call_running() -> None:
    with parts.Plain.start() as worker:
        slow = bunri.call(worker.sleep, 0.3)
        with pytest.raises(TimeoutError):
            slow.result(0.05)
        assert slow.result(5) is None


def test_waiting_threads_are_told_of_a_cancellation() -> None:
    with parts.Plain.start() as worker:
        worker.add(0)
        slow = bunri.call(worker.sleep, 30)
        found: list[BaseException] = []

        def wait() -> None:
            try:
                slow.result(20)
            except concurrent.futures.CancelledError as fault:
                found.append(fault)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        assert slow.cancel()
        thread.join(5)
        assert found


def test_errors_in_a_shared_packet_reach_their_own_calls() -> None:
    with parts.Plain.start() as worker:
        worker.add(0)
        calls = [bunri.call(worker.fail, str(i)) if i % 3 == 0 else bunri.call(worker.add, 1) for i in range(200)]
        for i, made in enumerate(calls):
            fault = made.exception(20)
            assert (fault is None) == (i % 3 != 0)
            if fault is not None:
                assert f"ValueError: {i}" in str(fault)


def test_a_forked_child_is_refused_on_the_short_way_too() -> None:
    with parts.Plain.start() as worker:
        assert worker.add(1) == 1
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                worker.add(1)
            except bunri.UsageError:
                os.write(writer, b"refused")
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        assert os.read(reader, 16) == b"refused"
        os.close(reader)
        assert worker.add(1) == 2


def test_a_wrong_argument_on_the_short_way_never_leaves() -> None:
    with parts.Plain.start() as worker:
        assert worker.add(1) == 1
        for wrong in ("1", 2**63, True, None, 1.5):
            with pytest.raises(bunri.UsageError):
                worker.add(wrong)  # type: ignore[arg-type]  # on purpose
        assert worker.add(1) == 2


class CallsBack(parts.Counter):
    """A service whose method runs what it is given, while the worker is blocked in it."""

    def __init__(self, inside: Callable[[], object]) -> None:
        self._inside = inside

    def count(self, by: int) -> int:
        self._inside()
        return by


def test_a_callback_from_a_second_thread_into_a_blocked_worker_is_refused() -> None:
    """API decision 2: a thread that works for the service's code, as asyncio.to_thread makes one, has its context."""
    refused: list[BaseException] = []

    def from_a_thread() -> None:
        def go() -> None:
            for ask in (lambda: worker.count_twice(1), lambda: bunri.call(worker.count_twice, 1).result()):
                try:
                    ask()
                except bunri.UsageError as fault:
                    refused.append(fault)

        thread = threading.Thread(target=contextvars.copy_context().run, args=(go,))
        thread.start()
        thread.join(10)

    worker = parts.Caller.start(CallsBack(from_a_thread))
    with worker:
        begun = time.monotonic()
        assert worker.count_twice(3) == 3
        assert len(refused) == 4
        assert all("blocked" in str(fault) for fault in refused)
        assert time.monotonic() - begun < 5


def test_a_thread_that_has_nothing_to_do_with_it_waits_its_turn() -> None:
    """The control: it asks while the worker is blocked, and is answered after."""
    answers: list[int] = []
    threads: list[threading.Thread] = []

    def meanwhile() -> None:
        if not threads:
            threads.append(threading.Thread(target=lambda: answers.append(worker.count_twice(5))))
            threads[0].start()
            time.sleep(0.1)
            assert not answers

    worker = parts.Caller.start(CallsBack(meanwhile))
    with worker:
        assert worker.count_twice(3) == 3
        threads[0].join(10)
        assert answers == [5]


class Feed(parts.Feed):
    async def lines(self, n: int) -> AsyncIterator[bytes]:
        for i in range(n):
            if i % 16 == 0:
                await asyncio.sleep(0)
            yield i.to_bytes(4, "big") * 500


@pytest.mark.slow
def test_streams_of_services_on_a_loop_under_load() -> None:
    """Several workers take streams from the monitor's loop, each bounded by its credit, while calls go on beside them."""

    async def run() -> None:
        workers = [parts.Taker.start(Feed()) for _ in range(3)]
        try:
            takes = [bunri.call(worker.take, 1500) for worker in workers for _ in range(2)]
            answers = await asyncio.gather(*[bunri.call(w.now, i) for i in range(300) for w in workers])
            assert answers == [i for i in range(300) for _ in workers]
            assert await asyncio.wait_for(asyncio.gather(*takes), 40) == [1500] * 6
        finally:
            for worker in workers:
                await worker.__aexit__(None, None, None)

    asyncio.run(run())


def test_a_channel_that_was_closed_in_the_same_turn_is_not_read() -> None:
    """The loop had seen a packet, and another callback closed the channel before its turn came."""

    async def late() -> None:
        async with parts.Plain.start() as worker:
            await bunri.call(worker.add, 1)
            side = vars(worker)["_bunri_target"].side
            side.link.close()
            side.on_loop_readable()

    asyncio.run(late())


@pytest.mark.parametrize("before", [0, 8])
def test_calls_that_ask_a_service_are_served_in_the_order_they_came(before: int) -> None:
    """While one of them waits for the service, later ones are read; `before`: calls that make the rest share packets."""
    with parts.Noter.start(CallsBack(lambda: None)) as worker:
        worker.seen()
        first = [bunri.call(worker.note, -1) for _ in range(before)]
        calls = [bunri.call(worker.note, n) for n in range(400)]
        assert [call.result(20) for call in calls] == list(range(400))
        assert all(call.result(20) == -1 for call in first)
        assert worker.seen() == [-1] * before + list(range(400))


@pytest.mark.slow
def test_calls_of_several_threads_keep_each_threads_order() -> None:
    """More than fit the window: some wait, and are begun by whoever takes an answer."""

    def call_many(name: int) -> None:
        calls = [bunri.call(worker.note, name * 10_000 + n) for n in range(1500)]
        assert [call.result(30) % 10_000 for call in calls] == list(range(1500))

    with parts.Noter.start(CallsBack(lambda: None)) as worker:
        with concurrent.futures.ThreadPoolExecutor(3) as threads:
            for done in [threads.submit(call_many, name) for name in range(3)]:
                done.result(60)
        seen = worker.seen()
    for name in range(3):
        assert [n for n in seen if n // 10_000 == name] == [name * 10_000 + n for n in range(1500)]


def test_a_worker_that_asks_a_service_is_answered_while_the_program_only_waits() -> None:
    with parts.Noter.start(CallsBack(lambda: None)) as worker:
        calls = [bunri.call(worker.note, n) for n in range(50)]
        assert sorted(done.result() for done in concurrent.futures.as_completed(calls, 20)) == list(range(50))
        told = threading.Event()
        bunri.call(worker.note, 1).add_done_callback(lambda _: told.set())
        assert told.wait(5)
        assert worker.note(2) == 2


def test_an_answer_that_another_thread_took_is_seen() -> None:
    with parts.Plain.start() as worker:
        worker.add(0)
        first = bunri.call(worker.add, 1)
        thread = threading.Thread(target=bunri.call(worker.sleep, 1).result)
        thread.start()
        time.sleep(0.05)
        assert first.result() == 1
        assert thread.is_alive()  # still inside its own call, and reading
        thread.join(10)


def test_an_answer_on_the_loops_own_thread_does_not_wake_the_loop_up() -> None:
    """Control: what ends elsewhere does. The loop sleeps, and nothing else would tell it."""

    async def woken() -> int:
        loop = asyncio.get_running_loop()
        before, count = loop.call_soon_threadsafe, 0

        def counted(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            return before(*args, **kwargs)

        async with parts.Plain.start() as worker:
            assert await bunri.call(worker.add, 1) == 1
            loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
            try:
                for number in range(2, 12):
                    assert await bunri.call(worker.add, 1) == number
                here, count = count, 0
                elsewhere: bunri.Call[None] = bunri.Call()
                threading.Timer(0.05, elsewhere.finish, (None, None)).start()
                await elsewhere
            finally:
                loop.call_soon_threadsafe = before  # type: ignore[method-assign]
        return here if count == 1 else -1

    assert asyncio.run(woken()) == 0


def test_whoever_awaits_is_told_of_a_cancellation_and_cancels_by_being_cancelled() -> None:
    async def run() -> tuple[bool, float]:
        async with parts.Async.start() as worker:
            call = bunri.call(worker.wait, 30.0, 1)
            asyncio.get_running_loop().call_later(0.05, call.cancel)
            with pytest.raises(asyncio.CancelledError):
                await call
            with pytest.raises(asyncio.CancelledError):
                await call  # once more: it is over
            begun = time.monotonic()
            other = bunri.call(worker.wait, 30.0, 1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(other, 0.05)
            assert await worker.wait(0.0, 2) == 2  # it is still there: the method was cancelled, and no worker killed
            return other.cancelled(), time.monotonic() - begun

    cancelled, took = asyncio.run(run())
    assert cancelled
    assert took < 10


def test_a_call_is_awaited_as_often_as_one_likes() -> None:
    async def run() -> None:
        async with parts.Plain.start() as worker:
            call = bunri.call(worker.add, 1)
            assert await asyncio.gather(call, call, call) == [1, 1, 1]
            assert (await call, call.result()) == (1, 1)
            failing = bunri.call(worker.fail, "no")
            for _ in range(2):
                with pytest.raises(bunri.RemoteError, match="no"):
                    await failing

    asyncio.run(run())


def test_a_call_that_ends_after_its_loop_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    call: bunri.Call[int] = bunri.Call()

    async def leave() -> None:
        waiting = call.__await__()
        waiting.send(None)  # as a task that is dropped with its loop

    asyncio.run(leave())
    call.finish(1, None)
    assert call.result() == 1
    assert not caplog.records


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_call_that_has_ended_waits_for_no_collector() -> None:
    """It holds what drives and stops it, and these hold it: a program of many calls would spend its time on looking for them."""
    with parts.Plain.start() as worker, without_collector():
        ended = bunri.call(worker.add, 1)
        assert ended.result() == 1
        failed = bunri.call(worker.fail, "why")
        assert isinstance(failed.exception(), bunri.RemoteError)
        (cancelled := bunri.call(worker.sleep, 60)).cancel()
        left = [weakref.ref(each) for each in (ended, failed, cancelled)]
        del ended, failed, cancelled
        with pytest.raises(bunri.WorkerDied):  # by then all is over with the third as well
            worker.add(1)
        assert [each() for each in left] == [None] * 3


def test_a_call_that_was_awaited_waits_for_no_collector() -> None:
    async def main() -> None:
        async with parts.Plain.start() as worker:
            await bunri.call(worker.add, 1)
            with without_collector():
                call = bunri.call(worker.add, 1)
                assert await call == 2
                left = weakref.ref(call)
                del call
                assert left() is None

    asyncio.run(main())
