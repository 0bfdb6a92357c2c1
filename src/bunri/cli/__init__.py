"""Runs in: the user's shell. The command `bunri`. A user's mistake ends it with one message, never with a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

# Of the commands: they start workers at once, and that is what is waited for. What their first worker's zygote imports.
_START_WORKERS = {"dump": ("bunri.apps.dump.work", "bunri.apps.dump.decoder"), "run": ()}
_HELP = (["-h"], ["--help"])
_STARTS_NOTHING = (["--version"], ["-D"], ["--list-interfaces"])
_MISSING = "bunri: the command needs the packages click and rich. Install them with: pip install 'bunri[cli]'"


def main() -> None:
    """The command. Exit status: 0 done, 1 it failed, 2 it was called wrongly, 130 interrupted."""
    with _interrupted_quietly():
        import importlib.util

        from bunri import early

        _fill_standard_numbers()
        if any(importlib.util.find_spec(name) is None for name in ("click", "rich")):
            print(_MISSING, file=sys.stderr)
            raise SystemExit(1)
        if sys.argv[1:2] and sys.argv[1] in _START_WORKERS:
            early.begin(*_START_WORKERS[sys.argv[1]])
        if sys.argv[1:2] == ["dump"] and sys.argv[2:] not in _HELP:
            from bunri.cli.status import status_of

            command: Callable[[], int] = partial(status_of, _dump)
        else:
            with early.imports():
                from bunri.cli.commands import run as command

    raise SystemExit(command())


def _dump() -> int:
    """Its options are tcpdump's, and it reads them itself: click has no part in it, and nobody waits for its import."""
    from bunri import early

    with early.imports():
        if sys.argv[2:] not in _STARTS_NOTHING:
            from bunri.apps.dump.decoder import Decoder
            from bunri.process import start

            start.ask_ahead(Decoder)  # it gets ready while this process imports the rest
        from bunri.apps.dump.command import main

    return main(sys.argv[2:])


@contextmanager
def _interrupted_quietly() -> Generator[None]:
    """Ctrl-C while it imports ends it as a signal does: a traceback out of the middle of a module helps nobody."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _fill_standard_numbers() -> None:
    """Of descriptors 0 to 2 those that the caller has closed become /dev/null, before anything is opened: else the next
    descriptor of ours has that number, and a command would be handed it as its stream."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
