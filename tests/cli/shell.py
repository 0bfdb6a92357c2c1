"""Runs in: the test process. The command `bunri` as a user runs it: a process of its own, with or without a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
COMMAND = [sys.executable, "-P", "-m", "bunri"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1", **more}


def bunri(*arguments: str | Path, timeout: float = 100, **more: str) -> subprocess.CompletedProcess[str]:
    """The command's outcome, without a terminal."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, env=environment(**more), stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def bunri_on_terminal(*arguments: str | Path, timeout: float = 60) -> tuple[int, str]:
    """Exit status and what a terminal was sent."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm-256color", COLUMNS="100"),
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen, until = b"", time.monotonic() + timeout
    try:
        while time.monotonic() < until and select.select([ours], [], [], 1.0) is not None:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not piece:
                break
            seen += piece
        return process.wait(timeout=5), seen.decode()
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
