"""Runs in: the test process. tcpdump's own test suite, read where Debian's source package was unpacked; nothing of it is here.

    apt-get source tcpdump && BUNRI_TCPDUMP_SOURCE=tcpdump-4.99.3 pytest tests/dump/test_their_suite.py -s

A case is a name, a capture, the expected output and options. Those named in `equal_cases.txt` are equal, each of their
packets; the others print at least one packet of a protocol that is not here. `-s` shows the share.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bunri.apps.dump import options
from bunri.apps.dump.capture import Capture
from bunri.apps.dump.decode.core import Dissector
from bunri.apps.dump.decode.table import Tables
from bunri.apps.dump.messages import BadCapture, Cursor

SOURCE = os.environ.get("BUNRI_TCPDUMP_SOURCE", "")
NAMES = (Path(__file__).parent / "equal_cases.txt").read_text().split()


def cases() -> Iterator[tuple[str, Path, Path, list[str]]]:
    folder = Path(SOURCE) / "tests"
    for line in (folder / "TESTLIST").read_text().splitlines():
        words = shlex.split(line, comments=True)
        if len(words) >= 3:
            yield words[0], folder / words[1], folder / words[2], words[3:]


def printed(data: bytes, arguments: list[str]) -> str:
    """Also of a file that ends too soon: what could be read of it."""
    style = options.parse(["-#", "-n", *arguments]).style
    d = Dissector(style, Tables())
    reader = Capture(Cursor(), 9 if style.nanoseconds else 6)
    with contextlib.suppress(BadCapture):
        for place in reader.places(data):
            if d.captured == 0:
                d.set_link(reader.cursor.first)
            d.packet(*place)
    return d.taken().decode()


def is_equal(source: Path, expected: Path, arguments: list[str]) -> bool:
    try:
        return printed(source.read_bytes(), arguments) == expected.read_text("latin-1")
    except options.BadOption:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not SOURCE, reason="BUNRI_TCPDUMP_SOURCE does not say where tcpdump's source package is")
def test_their_own_cases_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "GMT0")
    time.tzset()
    found = {name: is_equal(source, expected, words) for name, source, expected, words in cases()}
    monkeypatch.undo()
    time.tzset()
    print(f"\n{sum(found.values())} of {len(found)} cases are equal")
    assert [name for name in NAMES if not found[name]] == []
    assert sorted(name for name in found if found[name]) == sorted(NAMES)
