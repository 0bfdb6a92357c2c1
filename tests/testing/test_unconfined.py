"""Runs in: the test process. Unconfined: the same calls with the same outcome, in a thread; and only in a test run."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

import pytest
import unseen

import bunri
from bunri import testing

SOURCE = Path(__file__).resolve().parents[2] / "src"
HERE = Path(__file__).resolve().parent


class Kept(unseen.Log):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> int:
        self.notes.append(text)
        return len(self.notes)

    def guess(self, text: str) -> bool:
        return text == "y"

    async def slow(self, text: str) -> str:
        await asyncio.sleep(0.01)
        return text.upper()


@pytest.fixture(params=["thread", "process"])
def both(request: pytest.FixtureRequest) -> Iterator[str]:
    """A test that must come out alike, unconfined and confined."""
    if request.param == "thread":
        with testing.unconfined():
            yield request.param
    else:
        yield request.param


def test_an_unconfined_worker_is_a_thread_of_this_process(unconfined: None) -> None:
    unseen.warmed.clear()
    sys.modules.pop("colorsys", None)
    with unseen.Everything.start(5) as worker:
        assert worker.add(2) == 7
        pid, thread = worker.where()
        assert pid == os.getpid()
        assert thread == "unconfined Everything"
        assert worker.process.pid == os.getpid()
        report = worker.process.report
        assert not any(report.keeps(promise) for promise in bunri.Promise)
        assert "confined by nothing" in str(report)
    assert unseen.warmed == ["Everything"]
    assert "colorsys" in sys.modules
    assert isinstance(worker, unseen.Everything)


def test_calls_come_out_alike(both: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    with unseen.Everything.start() as worker:
        assert [worker.add(n) for n in range(5)] == [0, 1, 3, 6, 10]
        assert list(worker.rows(100)) == list(range(100))
        assert worker.echo(bytes(3_000_000)) == bytes(3_000_000)
        assert [call.result() for call in bunri.map(worker.echo, [b"a", b"b", b"c"])] == [b"a", b"b", b"c"]
        with pytest.raises(unseen.NotThere) as found:
            worker.find("one")
        assert found.value.name == "one"
        with pytest.raises(bunri.RemoteError, match="ValueError: bad"):
            worker.fail("bad")
        with pytest.raises(bunri.UsageError):
            worker.add("1")  # type: ignore[arg-type]  # on purpose
        with pytest.raises(bunri.RemoteError):
            worker.lies()
        with bunri.File.open(file, "r") as handle:
            assert worker.read(handle) == b"x" * 100
        one, other = socket.socketpair()
        with one, other:
            worker.greet(other)
            assert one.recv(10) == b"hello"
        with pytest.raises(bunri.UsageError):
            worker._n  # noqa: B018


def test_services_are_called_over_the_same_wire(both: str) -> None:
    log = Kept()
    with unseen.Everything.start(0, log) as worker:
        assert worker.note("one") == 1
        assert worker.note("two") == 2
        assert log.notes == ["one", "two"]
        with pytest.raises(bunri.WorkerDied, match="its limit is 2"):
            worker.guess(3)
    with unseen.Loop.start(log) as loop:
        assert bunri.call(loop.ask, "a").result() == "A"


def test_on_a_loop_calls_come_out_alike(both: str) -> None:
    async def main() -> None:
        log = Kept()
        async with unseen.Loop.start(log) as worker:
            many = await asyncio.gather(*(bunri.call(worker.wait, 0.01, i) for i in range(20)))
            assert many == list(range(20))
            assert [i async for i in worker.ticks(40)] == list(range(40))
            assert await worker.ask("b") == "B"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bunri.call(worker.wait, 30, 1), 0.1)
            assert await bunri.call(worker.was_cancelled) == 1
            with pytest.raises(bunri.UsageError, match=r"await bunri\.call"):
                worker.was_cancelled()

    asyncio.run(main())


def test_what_a_start_refuses_is_refused(both: str) -> None:
    class Local(bunri.Compartment):
        def ping(self) -> int:
            return 1

    with pytest.raises(bunri.UsageError, match="inside a function"):
        Local.start()
    with pytest.raises(bunri.UsageError, match="start_under"):
        unseen.Holes.start()
    with pytest.raises(bunri.UsageError, match="wider"):
        unseen.Everything.start_under(bunri.Policy(memory="1G"))
    with pytest.raises(bunri.RemoteError, match="RuntimeError: no"):
        with unseen.Fails.start():
            pass
    with unseen.Everything.start() as worker:
        with pytest.raises((bunri.UsageError, bunri.RemoteError), match="UsageError|start"):
            worker.start_another()


def test_a_pool_serves(both: str) -> None:
    with unseen.Everything.pool(2) as pool:
        assert [call.result() for call in bunri.map(pool.add, [1, 2, 3, 4, 5, 6])] == [1, 2, 3, 4, 5, 6]
        assert list(pool.rows(3)) == [0, 1, 2]
        with pytest.raises(bunri.UsageError):
            pool.process  # noqa: B018


def test_a_deadline_holds_and_what_is_late_is_told_so(both: str) -> None:
    with unseen.Everything.start() as worker:
        began = time.monotonic()
        with pytest.raises(bunri.DeadlineExceeded), bunri.deadline(0.2):
            worker.sleep(4.0)
        assert time.monotonic() - began < 3.0
        with pytest.raises(bunri.WorkerDied):
            worker.add(1)


def test_closing_and_waiting(both: str) -> None:
    worker = unseen.Everything.start()
    assert worker.add(1) == 1
    ended = bunri.call(worker.process.wait)
    worker.close()
    assert ended.result(5).cause == "it was closed"
    with pytest.raises(bunri.WorkerDied):
        worker.add(1)


def test_the_block_ends_what_was_begun_in_it() -> None:
    before, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with testing.unconfined():
        workers = [unseen.Everything.start(), unseen.Everything.start()]
        pool = unseen.Everything.pool(2)
        loop = unseen.Loop.start()
        assert [worker.add(1) for worker in workers] == [1, 1]
        assert pool.add(1) == 1
        assert bunri.call(loop.wait, 0.0, 1).result(5) == 1
    for worker in workers:
        with pytest.raises(bunri.WorkerDied, match="block has ended"):
            worker.add(1)
    with pytest.raises((bunri.WorkerDied, bunri.UsageError), match="ended"):
        pool.add(1)
    until = time.monotonic() + 5
    while threading.active_count() > before + 1 and time.monotonic() < until:  # the supervisor may be new
        time.sleep(0.01)
    assert threading.active_count() <= before + 1
    del workers, pool, loop, worker
    while len(os.listdir("/proc/self/fd")) > descriptors + 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3


def test_after_the_block_workers_are_confined_again() -> None:
    with testing.unconfined(), unseen.Everything.start() as worker:
        assert worker.where()[0] == os.getpid()
    with unseen.Everything.start() as worker:
        assert worker.where()[0] != os.getpid()
        assert worker.process.report.keeps(bunri.Promise.SYSCALLS)


def test_a_breakpoint_stops_in_the_method(unconfined: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: stopped.append(sys._getframe(1).f_locals["image"]))
    with unseen.Everything.start() as worker:
        assert worker.stop_here("cat") == "CAT"
    assert stopped == ["cat"]


class UnderUnittest(unittest.TestCase):
    """unittest is a test run too."""

    def test_it(self) -> None:
        with testing.unconfined(), unseen.Everything.start() as worker:
            assert worker.add(1) == 1


PROGRAM = """
import bunri
import bunri.testing
import unseen

if __name__ == "__main__":
    with bunri.testing.unconfined(), unseen.Everything.start() as worker:
        print(worker.stop_here("cat"))
"""


LIES = {"PYTEST_CURRENT_TEST": "lie", "PYTHONDEVMODE": "1"}


def program(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    path = f"{SOURCE}:{HERE}"
    return script, {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **LIES}


def test_a_program_cannot_run_unconfined(tmp_path: Path) -> None:
    """Also not when its environment says that a test is running."""
    script, environment = program(tmp_path)
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "UsageError" in done.stderr
    assert "python -X dev" in done.stderr


@pytest.mark.slow
def test_pdb_works_in_development_mode(tmp_path: Path) -> None:
    script, environment = program(tmp_path)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", str(script)], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**environment, "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen, asked, until = b"", False, time.monotonic() + 60
    try:
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.5)[0]:
                try:
                    piece = os.read(ours, 4096)
                except OSError:  # EIO: the other end is closed
                    break
                seen += piece
            if b"(Pdb)" in seen and not asked:
                asked = True
                os.write(ours, b"p 'image is ' + image\nc\n")
        assert process.wait(10) == 0, seen.decode()
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    text = seen.decode()
    assert "image is cat" in text
    assert "CAT" in text
    assert "ResourceWarning" not in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_a_users_pytest_has_the_fixture(tmp_path: Path) -> None:
    """In a test-suite of somebody else's, with his own settings."""
    (tmp_path / "decoder.py").write_text(
        "import os\nimport bunri\n\nclass Decoder(bunri.Compartment):\n    def pid(self) -> int:\n        return os.getpid()\n"
    )
    (tmp_path / "test_decoder.py").write_text(
        "import os\nimport decoder\n\n"
        "def test_there(unconfined):\n    with decoder.Decoder.start() as worker:\n        assert worker.pid() == os.getpid()\n\n"
        "def test_apart():\n    with decoder.Decoder.start() as worker:\n        assert worker.pid() != os.getpid()\n"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=100, cwd=tmp_path,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr
