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


def show(columns: dict[str, Found]) -> None:
    for name, found in columns.items():
        print(f"\n### {name}\n\n| promise | kept by |\n|---|---|")
        for promise in PROMISES:
            lacking = "**missing.** " if promise in found.missing else ""
            print(f"| {promise} | {lacking}{', '.join(found.kept.get(promise, ['nothing']))} |")
        print(f"\n{len(found.passed)} tests pass.", end="")
        print(" Otherwise than on a bare host:\n" if found.failed or found.skipped else "")
        for test, text in found.failed.items():
            print(f"- `{test.rpartition('::')[2]}`: {_short(text)}")
        for test, text in found.skipped.items():
            print(f"- `{test.rpartition('::')[2]}`: not run, {text}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) < 150 else line[:147] + "..."


if __name__ == "__main__":
    sys.exit(main())
