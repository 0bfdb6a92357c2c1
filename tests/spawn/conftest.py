"""Runs in: the test process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """One that everybody may read and one that everybody may write, wherever pytest's own are hidden."""
    made = [Path(tempfile.mkdtemp(prefix="bunri-")) for _ in range(2)]
    os.chmod(made[0], 0o755)
    os.chmod(made[1], 0o777)
    try:
        yield made[0], made[1]
    finally:
        for folder in made:
            shutil.rmtree(folder)
