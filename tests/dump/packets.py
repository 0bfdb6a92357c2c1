"""Runs in: the test process. Captures made byte by byte, and tcpdump as the one who knows how they are printed."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

import pytest

from bunri.apps.dump import options
from bunri.apps.dump.capture import Capture, Packet, file_header, record
from bunri.apps.dump.decode.core import Dissector
from bunri.apps.dump.decode.table import Tables
from bunri.apps.dump.messages import Cursor

Dump = Callable[..., "subprocess.CompletedProcess[str]"]
"""`bunri dump ARGUMENTS`: the fixtures `dump` and `shell`."""

SECOND = 1_700_000_000
MAC = bytes.fromhex("020000000001020000000002")
ENVIRONMENT = {**os.environ, "TZ": "UTC0"}


@cache
def tcpdump_path() -> str:
    path = shutil.which("tcpdump", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin")
    if path is None:
        return ""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return path if "tcpdump version 4.99" in said.stdout + said.stderr else ""


def needs_tcpdump() -> str:
    """The oracle. Another version of it prints other words."""
    if not tcpdump_path():
        pytest.skip("tcpdump 4.99 is not here: it is what the lines are compared with")
    return tcpdump_path()


def capture(packets: Iterable[bytes], link: int = 1, kept: Sequence[int] = ()) -> bytes:
    """A pcap file: a packet each millisecond; of each as many bytes as `kept` says, where it says so."""
    made = [file_header(link, 262144, nanoseconds=False)]
    for number, data in enumerate(packets):
        second, thousandth = divmod(number, 1000)
        short = data[: kept[number]] if kept else data
        made.append(record(Packet(SECOND + second, thousandth * 1000, len(data), short)))
    return b"".join(made)


def tcpdump(data: bytes, *arguments: str) -> str:
    """What tcpdump prints of a capture."""
    done = subprocess.run(
        [needs_tcpdump(), "-r", "-", *arguments], input=data, capture_output=True, env=ENVIRONMENT, check=False
    )
    return done.stdout.decode("latin-1")


def ours(data: bytes, *arguments: str, tables: Tables | None = None) -> str:
    """What our decoder prints of it, here in this process: what is printed does not depend on where."""
    style = options.parse(arguments).style
    d = Dissector(style, tables or Tables())
    reader = Capture(Cursor(), 6)
    packets = list(reader.places(data))
    d.set_link(reader.cursor.first)
    d.packets(packets)
    return d.taken().decode()


_NUMBER = re.compile(r"^ *(\d+)  ", re.MULTILINE)


def by_packet(text: str) -> dict[int, str]:
    """Output of -#, taken apart by packet."""
    pieces = _NUMBER.split(text)
    return {int(number): said for number, said in zip(pieces[1::2], pieces[2::2], strict=True)}


def different(packets: Sequence[bytes], *arguments: str, link: int = 1, kept: Sequence[int] = ()) -> list[str]:
    """The packets that are not printed as tcpdump prints them, with both texts."""
    data = capture(packets, link, kept)
    theirs = by_packet(tcpdump(data, "-n", "-#", "-t", *arguments))
    mine = by_packet(ours(data, "-n", "-#", "-t", *arguments))
    return [
        f"{packets[number - 1][: kept[number - 1] if kept else None].hex()}\n"
        f"  tcpdump: {theirs.get(number)!r}\n  bunri:   {mine.get(number)!r}"
        for number in sorted(theirs.keys() | mine.keys())
        if theirs.get(number) != mine.get(number)
    ]


# Headers.


def ether(kind: int, payload: bytes) -> bytes:
    return MAC + struct.pack(">H", kind) + payload


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(protocol: int, payload: bytes, *, ttl: int = 64, offset: int = 0, extra: bytes = b"") -> bytes:
    size = 20 + len(extra)
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x40 | size // 4, 0, size + len(payload), 7, offset, ttl, protocol, 0,
        socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2"),
    ) + extra  # fmt: skip
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


SIX = [socket.inet_pton(socket.AF_INET6, each) for each in ("2001:db8::1", "fe80::2")]


def ip6(following: int, payload: bytes, *, hops: int = 255) -> bytes:
    return struct.pack(">IHBB16s16s", 6 << 28, len(payload), following, hops, *SIX) + payload


def udp(sport: int, dport: int, payload: bytes) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(sport: int, dport: int, payload: bytes = b"", *, flags: int = 0x18, extra: bytes = b"") -> bytes:
    size = 20 + len(extra)
    return struct.pack(">HHIIBBHHH", sport, dport, 1000, 2000, size // 4 << 4, flags, 512, 0, 0) + extra + payload


def four(protocol: int, payload: bytes) -> bytes:
    return ether(0x0800, ip4(protocol, payload))


def six(following: int, payload: bytes) -> bytes:
    return ether(0x86DD, ip6(following, payload))


def udp4(sport: int, dport: int, payload: bytes) -> bytes:
    return four(17, udp(sport, dport, payload))


def cut(packet: bytes, least: int = 0) -> Iterator[bytes]:
    """The packet as if it had ended at each of its bytes."""
    for length in range(least, len(packet)):
        yield packet[:length]


def mutated(packet: bytes, start: int, keep: Iterable[int], chance: random.Random) -> bytes:
    """A few bytes from `start` on are something else, but for those that choose who prints it."""
    kept = set(keep)
    made = bytearray(packet)
    places = [at for at in range(start, len(made)) if at not in kept]
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        if places:
            at = chance.choice(places)
            made[at] = chance.choice((0, 1, 255, 128, made[at] ^ 1 << chance.randrange(8), chance.randrange(256)))
    if chance.random() < 0.2:
        del made[chance.randrange(start, len(made) + 1) :]
    return bytes(made)


def grown(packet: bytes, start: int, keep: Iterable[int], chance: random.Random) -> bytes:
    """Bytes behind the ones that choose who prints it come, go, and are doubled; the lengths in the headers fit again."""
    made = bytearray(packet)
    start = max([start, *(at + 1 for at in keep)])
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(start, len(made) + 1) if start <= len(made) else len(made)
        size = chance.choice((1, 1, 2, 3, 4, 8, 20))
        piece = bytes(made[at : at + size])
        what = chance.randrange(6)
        if what == 0:
            del made[at : at + size]
        elif what == 1:
            made[at:at] = chance.randbytes(size)
        elif what == 2:
            made[at:at] = piece * chance.randrange(1, 4)
        elif what == 3:
            made[at : at + size] = bytes([chance.choice((0, 255, 1, 0x80, 0x20))]) * len(piece)
        elif what == 4:
            made[at : at + 2] = struct.pack(">H", chance.choice((0, 1, 3, 7, 12, len(made) - at, 0xFFFF)))[: len(piece)]
        elif piece:
            made[at] = chance.choice((made[at] ^ 1 << chance.randrange(8), chance.randrange(32), chance.randrange(256)))
    return fitted(bytes(made))


def fitted(frame: bytes) -> bytes:
    """A frame whose headers tell its length: 802.3, IPv4, IPv6 and UDP."""
    made = bytearray(frame)
    at = 12
    while made[at : at + 2] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    kind, o = int.from_bytes(made[at : at + 2]), at + 2
    protocol = -1
    if kind <= 1500:
        made[at : at + 2] = struct.pack(">H", min(max(len(made) - o, 0), 1500))
    elif kind == 0x0800 and len(made) >= o + 20:
        size = (made[o] & 15) << 2
        made[o + 2 : o + 4] = struct.pack(">H", len(made) - o)
        made[o + 10 : o + 12] = bytes(2)
        made[o + 10 : o + 12] = struct.pack(">H", checksum(bytes(made[o : o + size])))
        protocol, o = made[o + 9], o + size
    elif kind == 0x86DD and len(made) >= o + 40:
        made[o + 4 : o + 6] = struct.pack(">H", len(made) - o - 40)
        protocol, o = made[o + 6], o + 40
    if protocol == 17 and len(made) >= o + 8:
        made[o + 4 : o + 6] = struct.pack(">H", len(made) - o)
    return bytes(made)
