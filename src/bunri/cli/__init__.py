"""Runs in: the user's shell. The command `bunri`. A user's mistake ends it with one message, never with a traceback."""

from __future__ import annotations

import importlib.util
import os
import sys

from bunri import early

_START_WORKERS = ("dump", "run")  # of the commands: at once, and where their start is what is waited for
_MISSING = "bunri: the command needs the packages click and rich. Install them with: pip install 'bunri[cli]'"


def main() -> None:
    """The command. Exit status: 0 done, 1 it failed, 2 it was called wrongly, 130 interrupted."""
    _fill_standard_numbers()
    if any(importlib.util.find_spec(name) is None for name in ("click", "rich")):
        print(_MISSING, file=sys.stderr)
        raise SystemExit(1)
    if sys.argv[1:2] and sys.argv[1] in _START_WORKERS:
        early.begin()
    with early.imports():
        from bunri.cli.commands import run

    raise SystemExit(run())


def _fill_standard_numbers() -> None:
    """Of descriptors 0 to 2 those that the caller has closed become /dev/null, before anything is opened: else the next
    descriptor of ours has that number, and a command would be handed it as its stream."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
