"""Runs in: the test process. Packets as values, from a confined decoder."""

from __future__ import annotations

import ipaddress
import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from corpus import SAMPLES
from packets import SECOND, capture, ether, four, ip4, mutated, ours, six, tcp, udp, udp4
from test_capture import FILES

from bunri.apps import dump
from bunri.apps.dump.decode.fields import fields
from bunri.apps.dump.values import _checked

EVERY = [sample.data for every in SAMPLES.values() for sample in every]


def test_packets_are_values(tmp_path: Path) -> None:
    path = tmp_path / "every.pcap"
    path.write_bytes(capture(EVERY))
    found = list(dump.packets(path))
    assert [packet.data for packet in found] == EVERY
    assert [packet.number for packet in found] == list(range(1, len(EVERY) + 1))
    assert (found[1].second, found[1].nanosecond, found[1].length) == (SECOND, 1_000_000, len(EVERY[1]))
    assert "\n".join(packet.text for packet in found) + "\n" == ours(capture(EVERY), "-n", "-t")


def test_many_small_packets_are_values(tmp_path: Path) -> None:
    """A piece of the file has as many of them as one answer of the decoder may carry."""
    path = tmp_path / "acks.pcap"
    path.write_bytes(capture([four(6, tcp(40000, 50001, flags=16))] * 6000 + [b""] * 6000))
    assert sum(1 for _ in dump.packets(path)) == 12000


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


def headers(packets: list[bytes], tmp_path: Path, link: int = 1) -> list[tuple[dump.Network | None, object]]:
    path = tmp_path / "headers.pcap"
    path.write_bytes(capture(packets, link))
    return [(packet.ip, packet.carried) for packet in dump.packets(path)]


TWO = [ipaddress.ip_address(each).packed for each in ("10.0.0.1", "10.0.0.2", "2001:db8::1", "fe80::2")]


def test_headers_are_values_too(tmp_path: Path) -> None:
    options = b"\1\1\x08\x0a" + bytes(8)
    hop, piece = bytes([17, 0, 5, 2, 0, 0, 1, 0]), struct.pack(">BBHI", 17, 0, 8, 9)
    tagged = ether(0x8100, b"\0\7\x08\0" + udp4(5, 6, b"tagged")[14:])
    found = headers(
        [
            four(6, tcp(40000, 80, b"hello", flags=24, extra=options)) + bytes(3),
            six(17, udp(5353, 53, b"asked")),
            six(0, hop + udp(1, 2, b"behind")),
            six(44, piece + b"rest"),
            ether(0x0800, ip4(17, b"rest", offset=9)),
            tagged,
            ether(0x0806, bytes(28)),
            four(6, tcp(1, 2))[:40],
        ],
        tmp_path,
    )
    v4, v6 = dump.Network(4, TWO[0], TWO[1], 17, 64, False), dump.Network(6, TWO[2], TWO[3], 17, 255, False)
    assert found == [
        (replace(v4, protocol=6), dump.Segment(40000, 80, 1000, 2000, 24, 512, b"hello")),
        (v6, dump.Datagram(5353, 53, b"asked")),
        (v6, dump.Datagram(1, 2, b"behind")),
        (replace(v6, later=True), None),
        (replace(v4, later=True), None),
        (v4, dump.Datagram(5, 6, b"tagged")),
        (None, None),
        (replace(v4, protocol=6), None),
    ]


def test_headers_of_other_links(tmp_path: Path) -> None:
    packet = ip4(17, udp(5, 6, b"x"))
    for link, head in ((101, b""), (0, b"\2\0\0\0"), (113, bytes(14) + b"\x08\0"), (276, b"\x08\0" + bytes(18))):
        ((ip, carried),) = headers([head + packet], tmp_path, link)
        assert (ip, carried) == (dump.Network(4, TWO[0], TWO[1], 17, 64, False), dump.Datagram(5, 6, b"x")), link


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_have_headers_or_none(seed: int) -> None:
    chance = random.Random(seed)
    for link in (0, 1, 12, 113, 276, 77):
        for each in EVERY:
            fields(link, mutated(each, 0, (), chance))
            fields(link, each[: chance.randrange(len(each))])


def test_an_address_that_a_decoder_invented_is_not_passed_on() -> None:
    lie = dump.Decoded(
        1, 0, 0, 1, b"x", "\x1b[2J", dump.Network(4, b"\x7f", b"\x7f\0\0\1", 6, 1, False), dump.Datagram(1, 2, b"")
    )
    told = _checked(lie)
    assert (told.ip, told.carried, told.text) == (None, None, "\\x1b[2J")
