"""Runs in: the test process, as the control. The same code in a plain process beside: no bunri between it and the kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_RUN = "import sys; sys.path[:0] = sys.argv[2:]; import owned; print(owned.run(sys.argv[1]))"


def run(code: str, **how: object) -> str:
    """What the code puts into `result` in an ordinary process."""
    paths = [str(Path(__file__).parent), *sys.path]
    command = [sys.executable, "-c", _RUN, code, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **how)  # type: ignore[call-overload]
    return str(done.stdout).strip() if done.returncode == 0 else f"died {done.returncode} {done.stderr[-300:]}"
