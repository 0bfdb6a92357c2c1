"""Runs in: the test process. `parts` is importable by name, also for a zygote."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a worker behind, but for those that bunri keeps ready."""
    from bunri.process import program

    yield
    current = program._current
    if current is None:
        return
    import time

    def alive() -> list[str]:
        roles = list(current._roles.values())
        templates = [t for r in roles for t in r._all.values()]
        return [w.describe() for t in templates for w in t.workers.values() if w not in t.spares]

    until = time.monotonic() + 5
    while alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive()
