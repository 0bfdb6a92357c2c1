"""Runs in: a user's test run. What test-suites of programs built on bunri need.

`unconfined()` runs compartments in threads, for pdb, coverage and profilers. With pytest there is a fixture of that
name (`bunri.testing.plugin`, found by itself). `check_filter` tests a system call filter by a table, without a kernel;
`filter_of` is that filter as a value.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Generator

from bunri.errors import UsageError
from bunri.process import here
from bunri.process import unconfined as _unconfined
from bunri.testing._filters import check_filter, filter_of

__all__ = ["check_filter", "filter_of", "unconfined"]

# A frame of one of these, below ours: a test is running.
_TEST_RUNNERS = frozenset({"_pytest.runner", "_pytest.python", "_pytest.fixtures", "unittest.case", "unittest.suite"})


@contextlib.contextmanager
def unconfined() -> Generator[None]:
    """In the block, `start`, `start_under` and `pool` make the object in a thread of this process.

    Contract, frames, checks, services and streams are the same; nothing is confined. So `breakpoint()`, coverage and
    profilers work in a compartment's methods, and what they print goes where the test prints. `preload` and `warm_up`
    happen here. There are no budgets and no default deadline (`bunri.deadline` still holds); a thread cannot be
    killed: what would kill a worker ends its calls, and the thread goes on until its method returns. The report of
    such a worker says so.

    Raises UsageError outside of a test run (pytest, unittest) and without `python -X dev`: a program must not be able to lose its
    confinement by a line that was left in it.

        with bunri.testing.unconfined():
            with Thumbnailer.start() as worker:
                assert worker.thumbnail(photo)      # set a breakpoint in there
    """
    if not (here.in_development_mode() or _is_test_run()):
        raise UsageError(
            "bunri.testing.unconfined() confines nothing, so it works only in a test run (pytest, unittest), "
            "or when Python runs in development mode. Start the program with: python -X dev"
        )
    from bunri.process.in_thread import Threads

    threads = Threads()
    before = _unconfined.exchange(threads)
    try:
        yield
    finally:
        _unconfined.exchange(before)
        threads.close()


def _is_test_run() -> bool:
    """Whether a test, or a fixture, called us: by the frames, which no environment variable can forge."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") in _TEST_RUNNERS:
            return True
        frame = frame.f_back
    return False
