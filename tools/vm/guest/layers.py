"""Runs in: a guest of `make test-vm`, as root or as an ordinary user. Starts a worker and writes down its report.

Usage: python -m tools.vm.guest.layers FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bunri
from bunri.confine import detect
from bunri.errors import HostError


class Plain(bunri.Compartment):
    """Under the default policy."""

    def answer(self) -> int:
        return 42


def main() -> None:
    host = detect()
    found: dict[str, Any] = {
        "kernel": list(host.kernel),
        "arch": host.arch,
        "landlock": host.landlock_abi,
        "remarks": dict(host.remarks),
    }
    try:
        with Plain.start() as worker:
            found["answer"] = worker.answer()
            found["layers"] = [
                {
                    "promise": each.promise.value if each.promise else "always",
                    "name": each.name,
                    "state": each.state.value,
                    "seen": each.observed_by.value if each.observed_by else "",
                    "detail": each.detail,
                }
                for each in worker.process.report.layers
            ]
    except HostError as fault:
        found["refused"] = str(fault)
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
