"""Runs in: the test process. Capture files in every byte order and precision, cut into pieces, cut short, and lying."""

from __future__ import annotations

import itertools
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from packets import SECOND, capture, tcpdump, udp4

from bunri.apps.dump.capture import MOST_CAPTURED, Capture, Packet, are_records, file_header, record
from bunri.apps.dump.messages import BadCapture, Cursor

PACKETS = [udp4(40000, 50001, bytes(size)) for size in (1, 7, 100)]


def pcap(order: str, magic: int, fraction: int) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    return head + b"".join(
        struct.pack(f"{order}IIII", SECOND, fraction, len(each), len(each)) + each for each in PACKETS
    )


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def pcapng(order: str, *options: bytes, stamp: int = SECOND * 1_000_000 + 123456) -> bytes:
    section = block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    interface = block(order, 1, struct.pack(f"{order}HHI", 1, 0, 0) + b"".join(options))
    other = block(order, 0x0BAD, b"skipped")
    enhanced = [
        block(order, 6, struct.pack(f"{order}IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(each), len(each)) + each)
        for each in PACKETS
    ]
    simple = block(order, 3, struct.pack(f"{order}I", len(PACKETS[0])) + PACKETS[0])
    return section + interface + other + b"".join(enhanced) + simple


def resolution(order: str, value: int) -> bytes:
    return struct.pack(f"{order}HHB3x", 9, 1, value)


FILES = {
    "pcap, little, micro": pcap("<", 0xA1B2C3D4, 123456),
    "pcap, big, micro": pcap(">", 0xA1B2C3D4, 123456),
    "pcap, little, nano": pcap("<", 0xA1B23C4D, 123456789),
    "pcap, big, nano": pcap(">", 0xA1B23C4D, 123456789),
    "pcapng, little": pcapng("<"),
    "pcapng, big": pcapng(">"),
    "pcapng, nanoseconds": pcapng("<", resolution("<", 9), stamp=SECOND * 10**9 + 123456789),
    "pcapng, powers of two": pcapng("<", resolution("<", 0x80 | 20), stamp=(SECOND << 20) + 500000),
    "pcapng, two sections": pcapng("<") + pcapng("<"),
}


def read(data: bytes, digits: int = 6) -> list[Packet]:
    return list(Capture(Cursor(), digits).feed(data))


def lines(packets: list[Packet], digits: int) -> list[str]:
    return [f"{packet.second}.{packet.fraction:0{digits}}" for packet in packets]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("digits", [6, 9])
def test_times_and_packets_are_those_that_tcpdump_reads(name: str, digits: int) -> None:
    found = read(FILES[name], digits)
    said = tcpdump(FILES[name], "-tt", "-n", "--nano" if digits == 9 else "--micro").splitlines()
    assert [line.split()[0] for line in said] == lines(found, digits)
    assert [packet.data for packet in found][:3] == PACKETS


@pytest.mark.parametrize("name", FILES)
@given(cuts=st.lists(st.integers(0, 900), max_size=6))
def test_a_capture_may_come_in_pieces_of_any_size(name: str, cuts: list[int]) -> None:
    data = FILES[name]
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    capture = Capture(Cursor(), 6)
    found = [packet for begin, end in itertools.pairwise(edges) for packet in capture.feed(data[begin:end])]
    assert found == read(data)
    assert capture.finish() == ""


@pytest.mark.parametrize("name", FILES)
@given(at=st.integers(0, 900))
def test_another_decoder_goes_on_where_one_stopped(name: str, at: int) -> None:
    """The cursor and the bytes that were carried over are all that it needs."""
    data = FILES[name]
    first = Capture(Cursor(), 6)
    found = list(first.feed(data[:at]))
    rest = data[:at][-first.carried :] if first.carried else b""
    second = Capture(replace(first.cursor), 6)
    second.carry(rest)
    assert found + list(second.feed(data[at:])) == read(data)


def test_what_is_cut_short_is_said_in_libpcaps_words() -> None:
    data = capture(PACKETS)
    for cut in (3, 10, 24 + 5, 24 + 16 + 9, len(data) - 1):
        reader = Capture(Cursor(), 6)
        list(reader.feed(data[:cut]))
        assert "truncated dump file; tried to read" in reader.finish(), cut


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GIF89a" + bytes(30), "unknown file format"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 1, 4, 0, 0, 65535, 1), "archaic"),
        (file_header(1, 65535, nanoseconds=False) + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), "bigger than snaplen"),
        (pcapng("<")[:28] + struct.pack("<III", 6, 13, 0), "length of 13"),
        (block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block("<", 6, bytes(20)), "before any Interface"),
        (block("<", 0x0A0D0D0A, bytes(16)), "unknown file format"),
        (pcapng("<") + pcapng(">"), "block size 469762048 > maximum 16777216"),
        (pcapng("<")[:48] + block("<", 1, bytes.fromhex("9900000000000000")), "different from the type"),
    ],
)  # fmt: skip
def test_a_file_that_lies_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadCapture) as caught:
        read(data)
    assert said in caught.value.said


@given(data=st.binary(max_size=400), name=st.sampled_from(sorted(FILES)), seed=st.integers(0, 10**6))
def test_no_file_makes_the_reader_raise_anything_else(data: bytes, name: str, seed: int) -> None:
    chance = random.Random(seed)
    made = bytearray(FILES[name])
    for _ in range(chance.randrange(1, 6)):
        made[chance.randrange(len(made))] = chance.randrange(256)
    for hostile in (bytes(made), FILES[name][:24] + data, data):
        reader = Capture(Cursor(), 6)
        try:
            for packet in reader.feed(hostile):
                assert len(packet.data) <= 262144
        except BadCapture as bad:
            assert bad.said
        reader.finish()


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_records_are_records_and_anything_else_is_none(payloads: list[bytes]) -> None:
    data = b"".join(record(Packet(1, 2, len(each), each)) for each in payloads)
    assert are_records(data)
    for less in range(1, min(len(data), 16)):
        assert not are_records(data + bytes(less))
        assert not are_records(data[:-less])
    assert are_records(data + struct.pack("<IIII", 1, 2, MOST_CAPTURED, 4) + bytes(MOST_CAPTURED))
    assert not are_records(data + struct.pack("<IIII", 1, 2, MOST_CAPTURED + 1, 4) + bytes(MOST_CAPTURED + 1))
