"""Runs in: the user's shell. How a command ends: its exit status, and one sentence where it failed."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bunri.text import printable

# Exit statuses of every command (`run` has the statuses of what it runs as well).
DONE, FINDING, USAGE, HOST, INTERRUPTED = 0, 1, 2, 3, 130


def status_of(command: Callable[[], object]) -> int:
    """Run a command; the exit status: what it returns, if that is one. A fault of ours is raised: its traceback is wanted."""
    try:
        outcome = command()
    except KeyboardInterrupt:
        return interrupted()
    except BrokenPipeError:
        return _closed_pipe()
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        return _fail(f"{where}{fault.strerror or fault}", FINDING)
    except Exception as fault:
        return _of_bunri(fault)
    return outcome if isinstance(outcome, int) else DONE


def interrupted() -> int:
    """By Ctrl-C."""
    return _fail("interrupted", INTERRUPTED)


def _of_bunri(fault: Exception) -> int:
    """bunri's own errors. Here, and not above: what loads them is what `--help` does without."""
    from bunri.errors import BunriError, HostError, InternalError, UsageError

    if not isinstance(fault, BunriError) or isinstance(fault, InternalError):
        raise fault
    status = USAGE if isinstance(fault, UsageError) else HOST if isinstance(fault, HostError) else FINDING
    return _fail(str(fault), status)


def _fail(message: str, status: int) -> int:
    print(f"bunri: {printable(message, keep_newlines=True)}", file=sys.stderr)
    return status


def _closed_pipe() -> int:
    """Whoever read has had enough (`bunri ... | head`): no message, and none from the interpreter's own flush."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13
