"""Runs in: the test process. Packets as values, from a confined decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus import SAMPLES
from packets import SECOND, capture, ours, udp4
from test_capture import FILES

from bunri.apps import dump

EVERY = [sample.data for every in SAMPLES.values() for sample in every]


def test_packets_are_values(tmp_path: Path) -> None:
    path = tmp_path / "every.pcap"
    path.write_bytes(capture(EVERY))
    found = list(dump.packets(path))
    assert [packet.data for packet in found] == EVERY
    assert [packet.number for packet in found] == list(range(1, len(EVERY) + 1))
    assert (found[1].second, found[1].nanosecond, found[1].length) == (SECOND, 1_000_000, len(EVERY[1]))
    assert "\n".join(packet.text for packet in found) + "\n" == ours(capture(EVERY), "-n", "-t")


def test_an_expression_chooses_and_verbose_tells_more(tmp_path: Path) -> None:
    path = tmp_path / "every.pcap"
    path.write_bytes(capture(EVERY))
    found = list(dump.packets(path, "udp port 53", verbose=2))
    assert 0 < len(found) < len(EVERY)
    assert all(".53" in packet.text and "ttl 64" in packet.text for packet in found)
    assert found[0].number > 1


def test_any_file_is_read_that_the_command_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(FILES["pcapng, nanoseconds"])
    assert next(dump.packets(path)).nanosecond == 123456789


def test_what_is_no_capture_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(b"GIF89a" + bytes(60))
    with pytest.raises(dump.BadCapture, match="unknown file format"):
        list(dump.packets(path))
    path.write_bytes(capture([udp4(1, 2, b"x")] * 3)[:-3])
    found = dump.packets(path)
    assert [next(found).number for _ in range(2)] == [1, 2]
    with pytest.raises(dump.BadCapture, match="truncated dump file"):
        next(found)
    with pytest.raises(dump.BadExpression, match="syntax error"):
        list(dump.packets(path, "udp udp udp"))
    with pytest.raises(FileNotFoundError):
        list(dump.packets(tmp_path / "none"))
