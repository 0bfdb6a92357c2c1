"""Runs in: the test process. Programs that fork, wait for everybody's children, ignore signals, close descriptors."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hosting import PROGRAMS, environment

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "what",
    [
        "forks_after_start", "daemon", "changes_folder", "waits_for_any", "ignores_children", "blocks_signals", "closed_streams",
        "subprocesses", "forks_in_a_stream", "leaves_by_exit", "has_few_descriptors_in_its_child",
        pytest.param("multiprocesses", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_program_that(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "forks.py", what], cwd=PROGRAMS, env=environment(),
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr}"
    assert "Exception ignored" not in done.stderr, done.stderr
