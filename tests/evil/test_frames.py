"""Generated and kept inputs, fed to the real ends of a conversation. `make fuzz` does it for longer, and by coverage."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Iterator

import fuzz
import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def eventfds() -> int:
    """What the frames bring are eventfds."""
    gc.collect()
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += "eventfd" in os.readlink(f"/proc/self/fd/{number}")
    return found


def test_generated_frames_end_their_sender_or_are_answered() -> None:
    before = eventfds()
    frames, seen = fuzz.generated(20_000, 2)
    assert frames >= 20_000
    assert len(seen) > 80  # they get far: that many ways to be refused
    assert seen["answered"] > 500
    assert eventfds() == before


@pytest.mark.parametrize("name", sorted(path.name for path in fuzz.CORPUS.iterdir()))
def test_an_input_that_was_kept_is_survived(name: str) -> None:
    fuzz.play((fuzz.CORPUS / name).read_bytes())


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data: bytes) -> None:
    fuzz.play(data)
