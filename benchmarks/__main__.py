"""Runs in: the benchmark. `python -m benchmarks [NAME...]`: all, or those named, in one run."""

from __future__ import annotations

import os
import platform
import sys
import time

from benchmarks.measure import Row, Skipped
from benchmarks.subjects import ALL

HEAD = Row("what", "bunri: median / min", "beside it: median / min", "ratio", "budget", "")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"no benchmark is called {unknown[0]!r}. There are: {', '.join(ALL)}", file=sys.stderr)
        return 2
    user = "root" if os.getuid() == 0 else "an ordinary user"
    cores = len(os.sched_getaffinity(0))
    system = f"Linux {platform.release()}, {platform.machine()}, {cores} cores"
    print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {system}, as {user},")
    print(f"load {os.getloadavg()[0]:.1f} before the run. Ratios are of medians / of minima; the medians decide.\n")
    begun = time.monotonic()
    show(HEAD)
    for name in names or ALL:
        try:
            for row in ALL[name]():
                show(row)
        except Skipped as why:
            show(Row(name, f"skipped: {why}"))
    print(f"\n{time.monotonic() - begun:.0f} s in all.")
    return 0


def show(row: Row) -> None:
    line = f"{row.what:<34} {row.measured:<22} {row.beside:<44} {row.ratio:<12} {row.budget:<12} {row.verdict}"
    print(line.rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
