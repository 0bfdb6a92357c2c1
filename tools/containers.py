"""Runs in: the developer's machine. `make containers`: tests/containers/table.py, from a copy that every user may read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import runs


def main() -> int:
    with runs.copies() as top:
        python = runs.copied_venv(Path(sys.prefix), top)
        return subprocess.run([python, top / "checkout/tests/containers/table.py"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
