"""Runs in: a program of its own. It does with processes what programs do, and says what came of it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType

from sizes import Sizes, gif

import bunri


def in_child(action: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forks_after_start() -> None:
    """The child may not use what is its parent's, and starts its own; the parent's goes on, also when the child ends."""
    held: dict[str, Sizes] = {"dropped": Sizes.start()}
    worker, pool = Sizes.start(), Sizes.pool(2)
    assert worker.size(gif(1, 1)) == (1, 1)
    assert held["dropped"].size(gif(1, 1)) == (1, 1)

    def child() -> None:
        for call in (worker.size, pool.size):
            try:
                call(gif(1, 1))
            except bunri.UsageError:
                pass
            else:
                raise AssertionError("a child used its parent's worker")
        worker.close()
        held.clear()  # its stub is collected, here
        gc.collect()
        with Sizes.start() as own:
            assert own.size(gif(2, 2)) == (2, 2)

    for _ in range(3):
        assert in_child(child) == 0
        assert worker.size(gif(3, 3)) == (3, 3)
        assert pool.size(gif(4, 4)) == (4, 4)
        assert held["dropped"].size(gif(5, 5)) == (5, 5)
    worker.close()
    pool.close()
    held["dropped"].close()


def forks_in_a_stream() -> None:
    """The child's end of it, by the collector, is no word to the worker."""
    with Sizes.start() as worker:
        rows = [worker.counts()]
        assert next(rows[0]) == 0

        def child() -> None:
            rows.clear()
            gc.collect()

        assert in_child(child) == 0
        assert [next(rows[0]) for _ in range(40)] == list(range(1, 41))
        rows.clear()


def leaves_by_exit() -> None:
    """The child ends as an interpreter does: with all that is done at exit."""
    worker = Sizes.start()
    assert worker.size(gif(1, 1)) == (1, 1)
    if os.fork() == 0:
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    assert worker.size(gif(2, 2)) == (2, 2)
    worker.close()


def has_few_descriptors_in_its_child() -> None:
    """What the parent's workers are reached by is closed in the child."""
    workers = [Sizes.start() for _ in range(5)]
    for each in workers:
        assert each.size(gif(1, 1)) == (1, 1)

    def child() -> None:
        left = [
            os.readlink(f"/proc/self/fd/{name}")
            for name in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{name}")
        ]
        ours = [link for link in left if link.startswith(("socket:", "anon_inode:", "/memfd:"))]
        assert not ours, ours

    assert in_child(child) == 0
    for each in workers:
        each.close()


def daemon() -> None:
    """As daemons do: fork twice after `prepare`, the parents end, the grandchild works."""
    bunri.prepare(Sizes)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            with Sizes.start() as worker:
                os.write(writer, repr(worker.size(gif(5, 5))).encode())
        os._exit(0)
    os.wait()
    os.close(writer)
    answer = b""
    while piece := os.read(reader, 100):
        answer += piece
    assert answer == b"(5, 5)", answer


def changes_folder() -> None:
    """Its path was relative to where it began."""
    os.chdir("/")
    with Sizes.start() as worker:
        assert worker.size(gif(6, 6)) == (6, 6)


def _size_in_child(n: int) -> tuple[int, int]:
    with Sizes.start() as worker:
        return worker.size(gif(n, n))


def multiprocesses() -> None:
    with Sizes.start() as worker:
        assert worker.size(gif(1, 1)) == (1, 1)
        for method in ("fork", "spawn"):
            with multiprocessing.get_context(method).Pool(2) as children:
                assert children.map(_size_in_child, [7, 8]) == [(7, 7), (8, 8)]
        assert worker.size(gif(2, 2)) == (2, 2)


def waits_for_any() -> None:
    """It reaps whatever is a child of its process, ours too; and zygotes that die are noticed all the same."""
    reaped: list[int] = []

    def reap(number: int, frame: FrameType | None) -> None:
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                reaped.append(found[0])
        except ChildProcessError:
            return

    signal.signal(signal.SIGCHLD, reap)
    _life_with_a_dying_zygote()
    assert reaped, "no child of this process was ours"


def ignores_children() -> None:
    """SIGCHLD ignored: the kernel reaps, and whoever waits is told that there is no such child. It is inherited by what is executed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _life_with_a_dying_zygote()


def blocks_signals() -> None:
    """A thread that blocks all signals starts the first worker; the mask is inherited by what is executed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()))
    _life_with_a_dying_zygote()


def _life_with_a_dying_zygote() -> None:
    from bunri.process import program

    with Sizes.start() as worker:
        assert worker.size(gif(1, 1)) == (1, 1)
        try:
            worker.size(b"DIE")
        except bunri.WorkerDied as fault:
            assert fault.exit.code == 9, fault
    worker = Sizes.start()
    assert worker.size(gif(1, 1)) == (1, 1)
    current = program._current
    assert current is not None
    os.kill(current._bases[-1]._process.pid, signal.SIGKILL)
    try:
        for _ in range(200):
            worker.size(gif(1, 1))
            time.sleep(0.01)
    except bunri.WorkerDied as fault:
        assert "zygote" in str(fault), fault
    else:
        raise AssertionError("the death of the zygotes was not noticed")
    with Sizes.start() as another:
        assert another.size(gif(2, 2)) == (2, 2)


def closed_streams() -> None:
    """Started as by a careless daemon: without standard input, output and error."""
    for number in (0, 1, 2):
        os.close(number)
    with Sizes.start() as worker:
        if worker.size(gif(1, 2)) != (1, 2):
            os._exit(1)
    os._exit(0)


def subprocesses() -> None:
    """Its other children inherit nothing of ours."""
    with Sizes.start() as worker:
        worker.size(gif(1, 1))
        listing = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False
        )
        assert "socket:" not in listing.stdout, listing.stdout
        assert "pidfd" not in listing.stdout, listing.stdout


if __name__ == "__main__":
    globals()[sys.argv[1]]()
