"""Runs in: the test process, with tcpdump beside it. Capture files of every version, short, strange and lying: read as libpcap reads them."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable

import pytest
from packets import ENVIRONMENT, needs_tcpdump, udp4

from bunri.apps.dump import options
from bunri.apps.dump.capture import Capture, Packet
from bunri.apps.dump.decode.core import Dissector
from bunri.apps.dump.decode.table import Tables
from bunri.apps.dump.messages import BadCapture, Cursor

PACKET = udp4(40000, 50001, b"hello")
STAMP = 1_700_000_000_000_005
LARGE = (1 << 32) - 1


def header(
    order: str = "<", *, magic: int = 0xA1B2C3D4, version: tuple[int, int] = (2, 4), snap: int = 262144, link: int = 1
) -> bytes:
    return struct.pack(f"{order}IHHiIII", magic, *version, 0, 0, snap, link)


def record(
    order: str = "<", *, second: int = 1_700_000_000, fraction: int = 5, captured: int | None = None, length: int | None = None,
    data: bytes = PACKET, more: bytes = b"",
) -> bytes:  # fmt: skip
    sizes = (len(data) if each is None else each for each in (captured, length))
    return struct.pack(f"{order}IIII", second, fraction, *sizes) + more + data


def block(kind: int, body: bytes, order: str = "<", *, size: int | None = None, behind: int | None = None) -> bytes:
    body += bytes(-len(body) % 4)
    told = len(body) + 12 if size is None else size
    return struct.pack(f"{order}II", kind, told) + body + struct.pack(f"{order}I", told if behind is None else behind)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<", *, version: tuple[int, int] = (1, 0), size: int | None = None) -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, *version, -1), order, size=size)


def interface(order: str = "<", *, link: int = 1, snap: int = 0, options: bytes = b"") -> bytes:
    return block(1, struct.pack(f"{order}HHI", link, 0, snap) + options, order)


def enhanced(
    order: str = "<", *, index: int = 0, stamp: int = STAMP, captured: int | None = None, length: int | None = None,
    data: bytes = PACKET,
) -> bytes:  # fmt: skip
    sizes = (len(data) if each is None else each for each in (captured, length))
    return block(6, struct.pack(f"{order}IIIII", index, stamp >> 32, stamp & LARGE, *sizes) + data, order)


def simple(order: str = "<", *, length: int | None = None, data: bytes = PACKET) -> bytes:
    return block(3, struct.pack(f"{order}I", len(data) if length is None else length) + data, order)


def obsolete(order: str = "<") -> bytes:
    sizes = len(PACKET), len(PACKET)
    return block(2, struct.pack(f"{order}HHIIII", 0, 7, STAMP >> 32, STAMP & LARGE, *sizes) + PACKET, order)


PATCHED = header(magic=0xA1B2CD34)
START = section() + interface()
WHOLE = START + enhanced() + enhanced()
RESOLUTION, OFFSET, END = 9, 14, option(0, b"")


def with_options(*each: bytes) -> bytes:
    return section() + interface(options=b"".join(each)) + enhanced()


FILES: dict[str, bytes] = {
    **{
        f"version {major}.{minor} {order}": header(order, version=(major, minor))
        + record(order)
        + record(order, length=2000)
        + record(order, data=PACKET[:20], length=47)
        for major, minor in [(2, 2), (2, 3), (2, 4), (2, 5), (2, 0), (3, 0), (1, 9), (0, 0), (543, 0), (543, 1), (256, 4)]
        for order in "<>"
    },
    **{
        f"lengths the other way round {major}.{minor}": header(version=(major, minor))
        + record(data=PACKET[:20], captured=47, length=20) * 2
        for major, minor in [(2, 2), (2, 3), (2, 4), (543, 0)]
    },
    **{
        f"snapshot length {snap} {what}": header(snap=snap) + record() + more
        for snap in (0, 1, 30, 262143, 262144, 262145, 0x7FFFFFFF, 0x80000000, LARGE)
        for what, more in [
            ("small", b""), ("large", record(data=PACKET + bytes(70000))), ("too large", record(data=PACKET + bytes(263000))),
            ("on the wire", record(length=300000)), ("cut", record()[:-20]),
        ]
    },
    **{f"header of {size} bytes": header()[:size] for size in range(25)},
    **{f"record of {size} bytes": (header() + record() * 2)[: 24 + 63 + size] for size in range(0, 63, 3)},
    **{
        f"magic {magic:x} {order}": header(order, magic=magic) + record(order)
        for magic in (0xA1B23C4D, 0xA1B2CD34, 0xA1E2CB12, 0x4D3CB2A1, 0xA1B2C3D5, 0x0A0D0D0A, 0)
        for order in "<>"
    },
    **{
        f"fraction {fraction} {magic:x} {order}": header(order, magic=magic) + record(order, fraction=fraction)
        for fraction in (999_999, 1_000_000, 999_999_999, 1_000_000_000, 0x80000000, LARGE)
        for magic in (0xA1B2C3D4, 0xA1B23C4D)
        for order in "<>"
    },
    **{
        f"second {second} {order}": header(order) + record(order, second=second)
        for second in (0, 0x7FFFFFFF, 0x80000000, LARGE)
        for order in "<>"
    },
    "patched": PATCHED + record(more=bytes(8)) * 2 + record(more=bytes(8))[:30],
    "nothing captured": header() + record(data=b"", length=10) + record(data=b"") + record(length=10),
    **{
        f"section {major}.{minor} {order}": section(order, version=(major, minor)) + interface(order) + enhanced(order)
        for major, minor in [(1, 0), (1, 1), (1, 2), (2, 0), (0, 1)]
        for order in "<>"
    },
    **{f"blocks {order}": section(order) + interface(order) + simple(order) + obsolete(order) + enhanced(order) for order in "<>"},
    "simple packets are cut": section() + interface(snap=20) + simple(data=PACKET[:20], length=47) + simple(),
    **{
        f"resolution {value:#x}": with_options(option(RESOLUTION, bytes([value])), END)
        for value in (4, 5, 6, 7, 9, 12, 18, 19, 20, 63, 127, 0x8A, 0x94, 0xBE, 0xBF, 0xC0, 0xFF)
    },
    **{f"offset {value}": with_options(option(OFFSET, struct.pack("<q", value))) for value in (0, 1, -1, 3600, -(1 << 31))},
    "resolution of two bytes": with_options(option(RESOLUTION, b"\6\6")),
    "offset of four bytes": with_options(option(OFFSET, bytes(4))),
    "two resolutions": with_options(option(RESOLUTION, b"\6"), option(RESOLUTION, b"\6")),
    "two offsets": with_options(option(OFFSET, bytes(8)), option(OFFSET, bytes(8))),
    "options that are too long": with_options(struct.pack("<HH", 2, 100) + b"abcd"),
    "options that end early": with_options(b"\2\0"),
    "an end with a length": with_options(struct.pack("<HH", 0, 4) + b"abcd"),
    "options without an end": with_options(option(2, b"eth0")),
    "no interface": section() + enhanced(),
    "no interface, simple": section() + simple(),
    "only a section": section(),
    "only an interface": START,
    "another interface": START + enhanced(index=1),
    "two interfaces": START + interface() + enhanced(index=1),
    "two link types": START + enhanced() + interface(link=101) + enhanced(index=1),
    "two snapshot lengths": section() + interface(snap=100) + enhanced() + interface(snap=200) + enhanced(),
    "captured more than there is": START + enhanced(captured=1000) + enhanced(),
    "captured more than the snapshot length": section() + interface(snap=20) + enhanced(),
    "captured less": START + enhanced(captured=20),
    "captured too much": START + enhanced(data=PACKET + bytes(300000)),
    "two sections": WHOLE + WHOLE,
    "two byte orders": WHOLE + section(">") + interface(">") + enhanced(">"),
    "a second section of another version": WHOLE + section(version=(2, 0)) + interface() + enhanced(),
    "a second section without a byte order": WHOLE + block(0x0A0D0D0A, bytes(16)),
    "a first section without a byte order": block(0x0A0D0D0A, bytes(16)) + interface(),
    "unknown blocks": section() + block(0x99, b"abcd") + interface() + block(0xBAD, b"") + enhanced() + block(5, bytes(12)),
    "lengths that differ": START + enhanced() + block(6, bytes(40), behind=7),
    **{f"a block of {size} bytes": START + enhanced() + block(6, bytes(40), size=size) for size in (0, 8, 51, 16 << 20, (16 << 20) + 4, 0x7FFFFFF0)},
    **{f"a section of {size} bytes": section(size=size) + interface() + enhanced() for size in (0, 12, 29, 1 << 20, (1 << 20) + 4)},
    **{f"a short block of type {kind}": START + block(kind, bytes(size)) for kind, size in [(1, 0), (1, 4), (2, 8), (3, 0), (6, 16), (0x0A0D0D0A, 12)]},
    **{f"snapshot length {snap} of an interface": section() + interface(snap=snap) + enhanced() for snap in (1, 262144, 300000, LARGE)},
    **{f"blocks of {size} bytes": WHOLE[:size] for size in range(len(WHOLE))},
}  # fmt: skip


def printed(data: bytes, *arguments: str) -> tuple[str, str]:
    """The lines, and what is wrong with the file."""
    style = options.parse(arguments).style
    d = Dissector(style, Tables())
    reader = Capture(Cursor(), 9 if style.nanoseconds else 6)
    try:
        for place in reader.places(data):
            if d.captured == 0:
                d.set_link(reader.cursor.first)
            d.packet(*place)
    except BadCapture as bad:
        return d.taken().decode(), bad.said
    return d.taken().decode(), reader.finish()


def told(data: bytes, *arguments: str) -> tuple[str, str]:
    """The same, of tcpdump."""
    done = subprocess.run(
        [needs_tcpdump(), "-r", "-", *arguments], input=data, capture_output=True, env=ENVIRONMENT, check=False
    )
    said = [line for line in done.stderr.decode().splitlines() if line.startswith("tcpdump: ")]
    fault = said[-1].removeprefix("tcpdump: ").removeprefix("pcap_loop: ") if said else ""
    return done.stdout.decode("latin-1"), fault


@pytest.mark.parametrize("precision", ["--micro", "--nano"])
def test_a_file_is_read_as_libpcap_reads_it(precision: str) -> None:
    found = {name: (printed(data, "-nt", precision), told(data, "-nt", precision)) for name, data in FILES.items()}
    wrong = [
        f"{name}\n  ours:    {ours}\n  tcpdump: {theirs}" for name, (ours, theirs) in found.items() if ours != theirs
    ]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(FILES)} differ", *wrong[:10]])


@pytest.mark.parametrize("precision", ["--micro", "--nano"])
def test_its_times_are_those_that_libpcap_reads(precision: str) -> None:
    names = [name for name in FILES if name.startswith(("fraction", "second", "resolution", "offset", "blocks <"))]
    for name in names:
        for style in ("-n", "-ntt", "-nttttt"):
            assert printed(FILES[name], style, precision) == told(FILES[name], style, precision), name


def read(pieces: Iterable[bytes]) -> tuple[list[Packet], str]:
    """The packets, and what is wrong with the file."""
    reader = Capture(Cursor(), 6)
    found: list[Packet] = []
    try:
        for piece in pieces:
            for packet in reader.feed(piece):
                found.append(packet)
    except BadCapture as bad:
        return found, bad.said
    return found, reader.finish()


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_file_in_pieces_is_read_as_the_whole_is(size: int) -> None:
    for name, data in FILES.items():
        if len(data) < 2000:
            assert read(data[at : at + size] for at in range(0, len(data), size)) == read([data]), name
