"""Runs in: the user's shell. The command `bunri`. A user's mistake ends it with one message, never with a traceback."""

from __future__ import annotations

import importlib.util
import sys

_MISSING = "bunri: the command needs the packages click and rich. Install them with: pip install 'bunri[cli]'"


def main() -> None:
    """The command. Exit status: 0 done, 1 it failed, 2 it was called wrongly, 130 interrupted."""
    if any(importlib.util.find_spec(name) is None for name in ("click", "rich")):
        print(_MISSING, file=sys.stderr)
        raise SystemExit(1)
    from bunri.cli.commands import run

    raise SystemExit(run())
