"""Runs in: a user's test run, under pytest, which loads it by its entry point. It loads nothing of the library before a test asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def unconfined() -> Iterator[None]:
    """Compartments of this test run in threads, unconfined: `bunri.testing.unconfined()` around it."""
    from bunri import testing

    with testing.unconfined():
        yield
