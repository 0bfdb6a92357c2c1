"""Runs in: the test process. The programs are importable by name, also for a zygote."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "programs"), str(HERE)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may read: a worker's uid is another, and pytest takes its own back from others at each start."""
    made = Path(tempfile.mkdtemp(prefix="bunri-hosts-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)
