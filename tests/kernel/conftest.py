"""Runs in: the test process. A folder that also another uid can reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bunri.process import program


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """bunri's own is ended: in a raw clone, which has this thread only, the interpreter's lock would be given to one that
    waited for it, for ever."""
    program.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, mode 755, under a path that everyone can pass."""
    made = Path(tempfile.mkdtemp(prefix="bunri-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)
