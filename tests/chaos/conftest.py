"""Runs in: the test process. The modules beside this file are importable by name, also for a zygote."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def deaths_are_forgiven() -> Iterator[None]:
    """Many workers die by signals here: without this, starts would be held back (THREATS 8)."""
    from bunri.process import program

    yield
    if program._current is not None:
        program._current.forgive()
