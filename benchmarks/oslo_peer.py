"""Runs in: an interpreter of its own, and the helper that oslo.privsep forks from it. Calls of an oslo.privsep entry
point: a number of calls comes in on a line, the seconds of one go out."""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

cfg: Any = importlib.import_module("oslo_config.cfg")  # both of no extra but `bench`, and without types
priv_context: Any = importlib.import_module("oslo_privsep.priv_context")

context: Any = priv_context.PrivContext(__name__, cfg_section="bench", pypath=f"{__name__}.context", capabilities=[])


@context.entrypoint
def same(number: int) -> int:
    return number


def main() -> None:
    cfg.CONF([])
    context.start(priv_context.Method.FORK)
    same(7)
    for line in sys.stdin:
        count = int(line)
        begun = time.perf_counter()
        for _ in range(count):
            same(7)
        print((time.perf_counter() - begun) / count, flush=True)


if __name__ == "__main__":
    main()
