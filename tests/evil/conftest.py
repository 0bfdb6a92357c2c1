"""Runs in: the test process. The parts are importable by name, also for a zygote."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def deaths_are_forgiven() -> Iterator[None]:
    """These workers die by signals all day: without this, starts would be held back (THREATS 8)."""
    from bunri.process import program

    yield
    if program._current is not None:
        program._current.forgive()


@pytest.fixture
def mark(tmp_path: Path) -> object:
    from marked import Mark

    return Mark(tmp_path / "mark")
