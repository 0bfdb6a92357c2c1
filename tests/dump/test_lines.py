"""Runs in: the test process, with tcpdump beside it. Every line is the one that tcpdump prints.

For each protocol: its packets as they are, cut at each byte, captured short at each byte, and mutated. More of the
last with BUNRI_DUMP_MUTANTS (packets for each sample).
"""

from __future__ import annotations

import os
import random
import struct

import pytest
from corpus import ANSWERS, SAMPLES, ask, connections, dns, rr
from packets import (
    MAC,
    SIX,
    capture,
    different,
    ether,
    four,
    grown,
    ip4,
    ip6,
    mutated,
    needs_tcpdump,
    ours,
    six,
    tcp,
    tcpdump,
    udp,
    udp4,
)

from bunri.apps.dump import options
from bunri.apps.dump.capture import Capture
from bunri.apps.dump.decode.core import Dissector
from bunri.apps.dump.decode.table import Tables
from bunri.apps.dump.messages import Cursor

MUTANTS = int(os.environ.get("BUNRI_DUMP_MUTANTS", "60"))
STYLES = [(), ("-v", "-X"), ("-vvv", "-e"), ("-q", "-x")]


def shown(found: list[str]) -> str:
    return f"{len(found)} packets differ:\n" + "\n".join(found[:8])


@pytest.mark.parametrize("protocol", SAMPLES)
@pytest.mark.parametrize("style", STYLES, ids=" ".join)
def test_a_packet_is_printed_as_tcpdump_prints_it(protocol: str, style: tuple[str, ...]) -> None:
    found = different([sample.data for sample in SAMPLES[protocol]], *style)
    assert not found, shown(found)


@pytest.mark.parametrize("protocol", SAMPLES)
@pytest.mark.parametrize("style", [(), ("-vv", "-x")], ids=" ".join)
def test_a_packet_that_ends_early_gets_tcpdumps_mark(protocol: str, style: tuple[str, ...]) -> None:
    found: list[str] = []
    for sample in SAMPLES[protocol]:
        found += different([sample.data[:length] for length in range(1, len(sample.data))], *style)
    assert not found, shown(found)


@pytest.mark.parametrize("protocol", SAMPLES)
def test_a_packet_that_was_captured_short_gets_tcpdumps_mark(protocol: str) -> None:
    """The length on the wire stays, the bytes are fewer: as with a small snapshot length."""
    short = [(sample.data, snap) for sample in SAMPLES[protocol] for snap in range(14, len(sample.data))]
    found = different([data for data, _ in short], "-vv", "-x", kept=[snap for _, snap in short])
    assert not found, shown(found)


@pytest.mark.parametrize("protocol", SAMPLES)
@pytest.mark.parametrize("style", STYLES, ids=" ".join)
def test_a_mutated_packet_is_printed_as_tcpdump_prints_it(protocol: str, style: tuple[str, ...]) -> None:
    chance = random.Random(f"{protocol} {style}")
    packets = [
        chance.choice((mutated, grown))(sample.data, sample.start, sample.keep, chance)
        for sample in SAMPLES[protocol]
        for _ in range(MUTANTS // len(STYLES))
    ]
    found = different(packets, *style)
    assert not found, shown(found)


@pytest.mark.parametrize(
    "arguments", ["-x", "-xx", "-X", "-XX", "-A", "-e -x", "-S", "-K -vv", "-q -e", "-tt", "-ttt", "-tttt", "-ttttt"]
)
def test_each_way_to_show_a_packet(arguments: str) -> None:
    packets = [sample.data for every in SAMPLES.values() for sample in every]
    data = capture(packets)
    words = ["-n", *arguments.split()]
    assert ours(data, *words) == tcpdump(data, *words)


@pytest.mark.parametrize("link", [0, 12, 101, 108, 113, 228, 229, 276])
@pytest.mark.parametrize("style", [(), ("-e",), ("-vv",), ("-q", "-e")], ids=" ".join)
def test_every_link_type(link: int, style: tuple[str, ...]) -> None:
    four_, six_ = ip4(17, b"\x9c\x40\xc3\x51\0\x0c\0\0abcd"), ip6(59, b"")
    heads = {
        0: (struct.pack("<I", 2), struct.pack("<I", 10), struct.pack("<I", 99)),
        108: (struct.pack(">I", 2), struct.pack(">I", 24), struct.pack(">I", 99)),
        113: tuple(struct.pack(">HHH8sH", 0, 1, 6, MAC[:6], kind) for kind in (0x0800, 0x86DD, 0x1234)),
        276: tuple(struct.pack(">HHIHBB8s", kind, 0, 1, 1, 4, 6, MAC[:6]) for kind in (0x0800, 0x86DD, 0x1234)),
    }.get(link, (b"", b"", b"\0"))
    packets = [head + body for head, body in zip(heads, (four_, six_, b"payload"), strict=True)]
    packets += [packet[:length] for packet in packets for length in (1, 3, 10, 15, 18, 19, 25) if length < len(packet)]
    if link == 276:
        # The names of the interfaces are those of the host that prints.
        packets = [packet[:4] + b"\0\x0f\0\0" + packet[8:] for packet in packets if len(packet) > 8]
    found = different(packets, *style, link=link)
    assert not found, shown(found)


def test_sequence_numbers_count_from_the_start_of_a_connection() -> None:
    there = [
        four(6, tcp(40000, 60000, flags=2)),
        four(6, tcp(40000, 60000, b"abc")),
        four(6, tcp(40000, 60000, b"abcd")),
    ]
    back = [four(6, tcp(60000, 40000, flags=18)), four(6, tcp(60000, 40000, flags=16))]
    found = different([there[0], back[0], there[1], back[1], there[2], back[1]])
    assert not found, shown(found)


def test_connections_are_printed_as_tcpdump_prints_them() -> None:
    packets = connections(random.Random(7), 400)
    assert not (found := different(packets)), shown(found)
    assert not (found := different(packets, "-S")), shown(found)


def test_the_short_way_prints_what_the_long_way_prints() -> None:
    """Common packets are printed in one pass (common.py): with any bytes changed, the lines are the same without it."""
    chance = random.Random(8)
    packets = connections(chance, 400)
    for samples in SAMPLES.values():
        packets += [mutated(sample.data, 12, (), chance) for sample in samples for _ in range(20)]
    packets += [mutated(packet, 12, (), chance) for packet in connections(chance, 400)]
    header = [
        ether(0x0806, struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20)),
        four(1, b"\x08\0\xf7\xfd\0\1\0\1" + bytes(8)),
        *(made(17, udp(40000, 53, dns(0x0100, [ask(1)]))) for made in (four, six)),
        four(17, udp(40000, 53, dns(0x0110, [ask(28)], [], [], [rr(b"\0", 41, b"", 1232)]))),
        four(17, udp(53, 40000, dns(0x8180, [ask(28)], ANSWERS[:2]))),
        *(made(17, udp(40000, 50001, b"hello")) for made in (four, six)),
        *(made(6, tcp(40000, 50001, b"hello", flags=16)) for made in (four, six)),
        *(made(6, tcp(40000, 50001, flags=17, extra=b"\1\1\x08\x0a" + bytes(8))) for made in (four, six)),
    ]
    for packet in header:
        for at in range(12, min(len(packet), 140)):
            values = range(64) if at in (17, 19, 39, 59) else [packet[at] ^ 1 << bit for bit in range(8)]
            packets += [packet[:at] + bytes([value]) + packet[at + 1 :] for value in values]
        packets += [packet[:at] for at in range(12, len(packet))]
    kept = [chance.randrange(1, len(each) + 1) if chance.random() < 0.1 else len(each) for each in packets]
    data = capture(packets, 1, kept)
    short, long = (by_number(ours(data, "-n", "-#", tables=tables)) for tables in (Tables(), Tables(common={})))
    wrong = [
        f"{packets[number - 1].hex()}\n{short[number]}{long[number]}"
        for number in long
        if short[number] != long[number]
    ]
    assert not wrong, shown(wrong)


def test_a_packet_in_very_many_tunnels_is_printed_as_far_as_python_goes() -> None:
    packet = udp4(40000, 50001, b"hello")
    for _ in range(700):
        packet = udp4(40000, 4789, b"\x08" + bytes(7) + packet)
    text = ours(capture([packet]), "-n", "-t")
    assert text.startswith("IP 10.0.0.1.40000 > 10.0.0.2.4789: VXLAN, flags [I] (0x08), vni 0\nIP ")
    assert text.endswith(" [|nesting]\n")


def test_a_decoder_that_only_follows_prints_on_where_another_one_was() -> None:
    """Of each packet one of two prints the line and the other only takes note: together they print what one prints."""
    chance = random.Random(9)
    packets = connections(chance, 600)
    for at in range(0, len(packets), 7):  # in tunnels, where only printing tells what there is to note
        packets[at] = udp4(40000, 4789, b"\x08" + bytes(7) + packets[at])
    packets += [mutated(packet, 12, (), chance) for packet in packets]
    data = capture(packets)
    pair = [Dissector(options.parse(["-n", "-#"]).style, Tables()) for _ in range(2)]
    text = ""
    for second, fraction, length, captured in Capture(Cursor(), 6).feed(data):
        if chance.random() < 0.2:
            pair.reverse()
        for d in pair:
            d.set_link(1)
        where = (second, fraction, length, captured, 0, len(captured))
        pair[0].packets([where])
        pair[1].follow([where])
        text += pair[0].taken().decode()
        assert pair[1].taken() == b""
    assert text == ours(data, "-n", "-#")


def test_a_name_that_ends_in_a_pointer_is_read_anew_each_time() -> None:
    """The bytes are the same; what they point to, the number of the message, is another."""
    asked = [struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + b"\xc0\0\0\1\0\1" for number in (0x0161, 0x0162, 0x0161)]
    found = different([udp4(40000, 53, each) for each in asked])
    assert not found, shown(found)
    assert ours(capture([udp4(40000, 53, each) for each in asked]), "-n").count(" b.") == 1


@pytest.mark.parametrize(
    ("message", "said"),
    [(b"\x13\1\0\0abc", "igmp dvmrp [len 7]"), (b"\x13\1\0\0abcdefgh", "igmp dvmrp"), (b"\x14\1", "igmp pimv1")],
)
def test_of_what_igmp_carries_the_name_is_printed(message: bytes, said: str) -> None:
    data = capture([four(2, message)])
    assert ours(data, "-n", "-t") == f"IP 10.0.0.1 > 10.0.0.2: {said}\n"
    assert tcpdump(data, "-n", "-t").startswith(f"IP 10.0.0.1 > 10.0.0.2: {said}")


def test_without_n_addresses_of_ethernet_have_names() -> None:
    """Of a frame in which there is no address of IP, so that nobody is asked for a name."""
    data = capture(
        [b"\xff" * 6 + source + b"\x88\xcc" + bytes(2) for source in (MAC[6:], b"\0\0\x0c\1\2\3", b"\xff" * 6)]
    )
    assert ours(data, "-e") == tcpdump(data, "-e")
    assert ours(data, "-e").count("> Broadcast,") == 3
    assert "Broadcast" not in ours(data, "-n", "-e")


def test_names_of_ports_stand_without_n() -> None:
    needs_tcpdump()
    data = capture([udp4(40000, 50001, b"x"), four(6, tcp(22, 40000))])
    assert ours(data, "-n").count("10.0.0.1") == 2


@pytest.mark.parametrize("seed", range(8))
def test_no_bytes_make_the_decoder_raise(seed: int) -> None:
    """Whatever arrives, on every link type: a line comes out, and printable."""
    chance = random.Random(seed)
    for link in (0, 1, 12, 108, 113, 276, 77):
        packets = [chance.randbytes(chance.randrange(1, 200)) for _ in range(100)]
        packets += [mutated(sample.data, 0, (), chance) for every in SAMPLES.values() for sample in every if link == 1]
        for style in ("-vvv", "-e", "-q"):
            text = ours(capture(packets, link), "-n", "-#", "-t", style)
            assert len(by_number(text)) == len(packets)
            assert all(character.isprintable() or character in "\n\t" for character in text)


def by_number(text: str) -> dict[int, str]:
    from packets import by_packet

    return by_packet(text)


def test_an_address_of_version_6_is_written_in_the_short_way() -> None:
    assert SIX[0].hex() in six(59, b"").hex()
    found = different([six(59, b"")])
    assert not found, shown(found)
