"""Runs in: the developer's machine. The enforcement suite inside containers, as a table for the docs (`make containers`).

As root all kinds are tried, as an ordinary user the one that he can make.
"""

from __future__ import annotations

import sys
import time

from container import KINDS
from inside import Found, NotPossible, look_inside, refuse_what_cannot_be

PROMISES = ("files", "network", "identity", "processes", "syscalls", "memory", "time")
TESTS = ["tests/threats", "tests/process/test_grants.py", "tests/process/test_workers.py"]


def main() -> int:
    columns: dict[str, Found] = {}
    for kind, what in KINDS.items():
        try:
            refuse_what_cannot_be(what.needs_root, bool(what.uid))
        except NotPossible as reason:
            print(f"{what.what}: not tried, {reason}", file=sys.stderr)
            continue
        started = time.monotonic()
        columns[what.what] = look_inside(kind, TESTS)
        print(f"{what.what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    show(columns)
    return 0 if columns else 1


def show(found: dict[str, Found]) -> None:
    print(f"| container | {' | '.join(PROMISES)} | attacks refused |")
    print(f"|---|{'---|' * len(PROMISES)}---|")
    for name, one in found.items():
        cells = ["**missing**" if promise in one.missing else _word(one, promise) for promise in PROMISES]
        print(f"| {name} | {' | '.join(cells)} | {_attacks(one)} |")
    for name, one in found.items():
        print(f"\n{name}:\n")
        for promise in PROMISES:
            print(f"- {promise}: {', '.join(one.kept.get(promise, ['nothing']))}")
        for test, text in one.failed.items():
            print(f"- `{test.rpartition('::')[2]}` {_short(text)}", file=sys.stderr)


def _word(one: Found, promise: str) -> str:
    return "per process" if all("per process" in layer for layer in one.kept.get(promise, [])) else "kept"


def _attacks(one: Found) -> str:
    """How many, and the numbers of the others."""
    refused = [name for name in one.passed if "_attack" in name]
    others = sorted(name.rpartition("threat_")[2][:2] for name in one.failed if "_attack" in name)
    return f"{len(refused)}" + (f"; not {', '.join(others)}" if others else "")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) < 150 else line[:147] + "..."


if __name__ == "__main__":
    sys.exit(main())
