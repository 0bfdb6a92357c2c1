"""Runs in: the test process. Packets as values, from a confined decoder."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import struct
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from corpus import SAMPLES
from packets import SECOND, capture, ether, four, ip4, mutated, ours, six, tcp, udp, udp4
from test_capture import FILES
from veth import Capturing, Wire, wire

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


def test_what_is_wrong_in_the_middle_is_told_behind_the_packets_before_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.pcap"
    path.write_bytes(capture([udp4(1, 2, b"x")] * 3) + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30))
    found = dump.packets(path)
    assert [next(found).number for _ in range(3)] == [1, 2, 3]
    with pytest.raises(dump.BadCapture, match="invalid packet capture length"):
        next(found)


def test_packets_come_out_of_a_pipe_as_it_has_them_and_a_closed_iterator_has_it_no_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writing = os.open(path, os.O_RDWR)
    os.write(writing, capture([udp4(1, 2, b"first")]))
    found = dump.packets(path)
    assert next(found).text.endswith("UDP, length 5")
    assert _open_here(path) == 2
    found.close()  # type: ignore[attr-defined]
    assert _open_here(path) == 1
    os.close(writing)


def _open_here(path: Path) -> int:
    """Descriptors of this process for that file."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # bunri's own come and go
            found += os.path.samefile(f"/proc/self/fd/{number}", path)
    return found


LISTENER = """
import sys
from bunri.apps.dump import listen
sys.stderr.write("listening on\\n")
sys.stderr.flush()
found = listen(sys.argv[1], *sys.argv[2:])
try:
    for packet in found:
        print(packet.number, packet.text, packet.carried.target, len(packet.data), flush=True)
        if packet.text.endswith("43"):
            break
except Exception as fault:
    print(type(fault).__name__, fault)
found.close()
print("sockets left:", len(open("/proc/net/packet").readlines()) - 1)
"""


@pytest.mark.slow
def test_packets_that_arrive_are_values_too() -> None:
    with wire() as cable, cable.capture("near", "udp port 50001", program=("-c", LISTENER)) as listening:
        assert first_line(listening, cable) == "1 IP 10.0.0.1.40000 > 10.0.0.2.50001: UDP, length 41 50001 83\n"
        cable.send([udp4(1, 2, bytes(40)), udp4(40000, 50001, bytes(43))])
        assert listening.end() == 0
    *_, last, left = listening.out.splitlines()
    assert last.split(" ", 1)[1] == "IP 10.0.0.1.40000 > 10.0.0.2.50001: UDP, length 43 50001 85"
    assert left == "sockets left: 0"


def first_line(listening: Capturing, cable: Wire) -> str:
    """What it says of the first packet that it hears."""
    heard = threading.Event()

    def send() -> None:
        while not heard.wait(0.2):
            cable.send([udp4(40000, 50001, bytes(41))])

    sender = threading.Thread(target=send)
    sender.start()
    assert listening.process.stdout is not None
    line = listening.process.stdout.readline()
    heard.set()
    sender.join()
    return line


@pytest.mark.slow
def test_an_interface_that_is_none_or_goes_away_is_an_error() -> None:
    with wire() as cable:
        with cable.capture("nowhere", program=("-c", LISTENER)) as listening:
            assert listening.end() == 0
        assert listening.out.startswith("OSError nowhere: No such device exists")
        with cable.capture("near", "udp udp", program=("-c", LISTENER)) as listening:
            assert listening.end() == 0
        assert listening.out.startswith("BadExpression can't parse filter expression: syntax error")
        with cable.capture("near", program=("-c", LISTENER)) as listening:
            assert first_line(listening, cable)
            cable.ip("link", "del", "near")
            assert listening.end() == 0
        assert listening.out.splitlines()[-2:] == ["OSError near: The interface disappeared", "sockets left: 0"]
