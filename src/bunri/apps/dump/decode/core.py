"""Runs in: the decoder, confined; pure. One packet after another becomes text.

Every printer takes the dissector and an offset into `d.buffer`, the bytes that were captured (fewer while a header
says that its packet ends earlier). It appends to `d.write`. Reading past the end raises: an index, or struct. That is
how a printer stops at the end of what was captured: `d.packet` catches it and prints tcpdump's mark, `[|tcp]`, with
the name of the protocol that was at work (`d.protocol`). So no printer checks a bound for its own safety; it checks
where tcpdump prints something else there.

The words and the layout are those of tcpdump 4.99.3, to the byte.
"""

from __future__ import annotations

import datetime
import io
import struct
import zoneinfo
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Never

from bunri.apps.dump.decode.addresses import Ip4Names, Ip6Names, MacNames, Pairs, PortNames
from bunri.apps.dump.messages import Style, Where

if TYPE_CHECKING:
    from bunri.apps.dump.decode.table import Tables

MOST_CAPTURED: Final = 262144
_U16: Final = struct.Struct(">H").unpack_from
_U32: Final = struct.Struct(">I").unpack_from
_U64: Final = struct.Struct(">Q").unpack_from


class Truncated(Exception):
    """The packet was not captured as far as this."""


ENDS: Final = (IndexError, struct.error, Truncated)

Resolve = Callable[[bytes], str]


def u16(buffer: bytes, offset: int) -> int:
    """Two bytes, big-endian; raises where they were not captured."""
    return _U16(buffer, offset)[0]  # type: ignore[no-any-return]


def u24(buffer: bytes, offset: int) -> int:
    """Three bytes, big-endian."""
    return buffer[offset] << 16 | buffer[offset + 1] << 8 | buffer[offset + 2]


def u32(buffer: bytes, offset: int) -> int:
    """Four bytes, big-endian."""
    return _U32(buffer, offset)[0]  # type: ignore[no-any-return]


def u64(buffer: bytes, offset: int) -> int:
    """Eight bytes, big-endian."""
    return _U64(buffer, offset)[0]  # type: ignore[no-any-return]


def take(buffer: bytes, offset: int, count: int) -> bytes:
    """`count` bytes, or none at all."""
    piece = buffer[offset : offset + count]
    if len(piece) != count:
        raise Truncated
    return piece


def word(table: Mapping[int, str], value: int, unknown: str = "#%d") -> str:
    """The word for a value; `unknown` may show it with one %."""
    found = table.get(value)
    if found is not None:
        return found
    return unknown % value if "%" in unknown else unknown


def bits(table: Sequence[tuple[int, str]], value: int, none: str = "#%08x", separator: str = ", ") -> str:
    """The words for the bits that are set."""
    found = [text for bit, text in table if bit and value & bit == bit]
    if found:
        return separator.join(found)
    return none % value if "%" in none else none


def _shown(code: int) -> str:
    """One byte as tcpdump shows text: ^X for control characters, M- for those above 127."""
    text = "M-" if code > 127 else ""
    code &= 127
    return text + (chr(code) if 32 <= code < 127 else "^" + chr(code ^ 0x40))


SHOWN: Final = tuple(_shown(code) for code in range(256))
GRAPHIC: Final = "".join(chr(code) if 33 <= code < 127 else "." for code in range(256))
PRINTABLE: Final = frozenset(range(32, 127))


def shown(data: bytes) -> str:
    """Bytes as tcpdump shows text."""
    return "".join([SHOWN[code] for code in data])


def checksum(*pieces: bytes) -> int:
    """The Internet checksum over the pieces, each but the last of an even length; 0 where the stored one is right."""
    total = 0
    for piece in pieces:
        if len(piece) & 1:
            piece += b"\0"
        total += sum(struct.unpack(f">{len(piece) // 2}H", piece))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def should_be(stored: int, computed: int) -> int:
    """What the checksum should have been, where `computed` came out of it."""
    total = stored + computed
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


def seconds_in_words(seconds: int) -> str:
    """1d2h: the largest units first."""
    if seconds == 0:
        return "0s"
    text = ""
    for unit, length in (("y", 31536000), ("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length:
            text += f"{seconds // length}{unit}"
            seconds %= length
    return text


class Dissector:
    """Everything that printing a packet needs: options, tables, names, and what earlier packets left."""

    def __init__(self, style: Style, tables: Tables, resolve: Resolve | None = None) -> None:
        self.style = style
        self.tables = tables
        self.verbose = style.verbose
        self.quiet = style.quiet
        self.link = style.link
        self.numeric = style.numeric
        self.checked = not style.unchecked
        self.absolute = style.absolute
        self.type = style.type
        # Without it no payload is dumped where its protocol is unknown: it is dumped below anyway.
        self.dumps_unknown = not (style.quiet or style.hexadecimal or style.hex_ascii)
        self._dumps_all = bool(style.hexadecimal or style.hex_ascii or style.ascii)
        self.lines: list[str] = []
        self.write = self.lines.append
        self.buffer = b""
        self.protocol = ""
        self.done: list[bytes] = []  # the lines of whole packets, one entry for each
        self.before = 0  # packets whose lines were taken
        self.streams: dict[bytes, int] = {}  # TCP: see tcp.py
        self.names: dict[bytes, str] = {}  # DNS: see names.py
        self.questions: dict[bytes, bytes] = {}  # DNS: see domain.py
        self.chains: object = None  # the same
        self.interfaces: Mapping[int, str] = {}  # index -> name, for captures of the "any" device
        known = resolve if not style.numeric else None
        self.ip4 = Ip4Names(known, Truncated, short=style.no_domains)
        self.ip6 = Ip6Names(known, Truncated, short=style.no_domains)
        self.pairs = Pairs(self.ends)
        self.mac = MacNames(Truncated, vendors=not style.numeric)
        self.tcp_ports = PortNames({} if style.numeric else style.services.get("tcp", {}))
        self.udp_ports = PortNames({} if style.numeric else style.services.get("udp", {}))
        self.reference: tuple[int, int] | None = None
        self._zone: datetime.tzinfo | None = None
        if style.zone:
            self._zone = zoneinfo.ZoneInfo.from_file(io.BytesIO(style.zone))
        self._printer: LinkPrinter
        self._common: Common | None
        self._followed: Common | None
        self.set_link(-1)
        self.second = -1  # for which `clock` is
        self.clock = b""  # 12:34:56.
        # Below it a fraction is six digits behind the clock, and there is nothing else in front of a line.
        self._time = style.time
        self.plain = 0 if style.nanoseconds or style.time or style.number else 1_000_000

    @property
    def captured(self) -> int:
        """How many packets there were so far, for -#."""
        return self.before + len(self.done)

    def taken(self) -> bytes:
        """The text so far, which is forgotten."""
        text = b"".join(self.done)
        self.before = self.captured
        self.done.clear()
        return text

    def set_link(self, kind: int) -> None:
        """The link type of the packets that follow."""
        self._printer = self.tables.link(kind)
        self._common = self.tables.common.get(kind) if self.style.brief else None
        self._followed = self.tables.followed.get(kind) if self.style.brief else None

    # One packet.

    def packets(self, places: Iterable[Where]) -> None:
        """Print packets, the common ones in fewer steps."""
        if self._common is not None:
            self._common(self, places)
            return
        for place in places:
            self.long_way(*place)

    def packet(self, second: int, fraction: int, length: int, b: bytes, start: int, stop: int) -> None:
        """Print a packet: when it came, its length on the wire, and where in `b` is what was captured of it."""
        self.packets(((second, fraction, length, b, start, stop),))

    def long_way(self, second: int, fraction: int, length: int, b: bytes, start: int, stop: int) -> None:
        """Print any packet, whatever its lengths are."""
        if 0 < stop - start <= length <= MOST_CAPTURED:
            self.layers(self.stamp(second, fraction), length, b[start:stop])
        else:
            self.done.append(self._numbered() + _invalid(stop - start, length))

    def layers(self, stamp: bytes, length: int, data: bytes) -> None:
        """Print a packet layer by layer, from the outermost one on."""
        self._layers(length, data)
        self.done.append(stamp + "".join(self.lines).encode("ascii", "replace"))
        self.lines.clear()

    def follow(self, places: Iterable[Where]) -> None:
        """Take note of packets that another decoder prints."""
        if self._followed is not None:
            self._followed(self, places)
            return
        for _, _, length, b, start, stop in places:
            self.before += 1
            self.unprinted(length, b[start:stop])

    def unprinted(self, length: int, data: bytes) -> None:
        """What printing this packet would leave behind, layer by layer, but for its text."""
        if 0 < len(data) <= length <= MOST_CAPTURED:
            self._layers(length, data)
            self.lines.clear()

    def _layers(self, length: int, data: bytes) -> None:
        write = self.write
        self.buffer = data
        self.protocol = ""
        try:
            header = self._printer(self, data, length, len(data))
        except ENDS:
            write(f" [|{self.protocol}]")
            header = 0
        except RecursionError:
            write(" [|nesting]")
            header = 0
        if self._dumps_all:
            self.buffer = data
            self._dump(header, data)
        write("\n")

    def _dump(self, header: int, data: bytes) -> None:
        style = self.style
        for level, show in (
            (style.hex_ascii, hex_and_ascii),
            (style.hexadecimal, hexadecimal),
            (style.ascii, ascii_text),
        ):
            if level:
                if level > 1:
                    self.write(show(data))
                elif len(data) > header:
                    self.write(show(data[header:]))
                return

    # What stands in front of a line.

    def stamp(self, second: int, fraction: int) -> bytes:
        """The number and the time of the next packet, as they were asked for."""
        return self._numbered() + (self._other_time if self._time else self._clock)(second, fraction).encode()

    def _numbered(self) -> bytes:
        return b"%5d  " % (self.captured + 1) if self.style.number else b""

    def _clock(self, second: int, fraction: int) -> str:
        if second >= 0x80000000:
            return f"{_BAD_TIME} "
        if second != self.second:
            self.second, self.clock = second, f"{self._local(second):%H:%M:%S}.".encode()
        return f"{self.clock.decode()}{fraction:0{9 if self.style.nanoseconds else 6}} "

    def _local(self, second: int) -> datetime.datetime:
        if self._zone is not None:
            return datetime.datetime.fromtimestamp(second, self._zone)
        return datetime.datetime.fromtimestamp(second)

    def _other_time(self, second: int, fraction: int) -> str:
        digits = 9 if self.style.nanoseconds else 6
        if self._time == 1:
            return ""
        if self._time in (3, 5):
            return self._since(second, fraction, digits)
        if second >= 0x80000000:
            return f"{_BAD_TIME} "
        if self._time == 2:
            return f"{second}.{fraction:0{digits}} "
        return f"{self._local(second):%Y-%m-%d %H:%M:%S}.{fraction:0{digits}} "

    def _since(self, second: int, fraction: int, digits: int) -> str:
        """-ttt: since the packet before; -ttttt: since the first."""
        if not self.reference or not any(self.reference):
            self.reference = (second, fraction)
        one = 10**digits
        passed = (second - self.reference[0]) * one + fraction - self.reference[1]
        if self._time == 3:
            self.reference = (second, fraction)
        whole, rest = divmod(abs(passed), one)
        sign = "-" if passed < 0 else " "
        if whole >= 0x80000000:
            return f"{sign}{_BAD_TIME} "
        return f"{sign}{whole // 3600 % 24:02}:{whole // 60 % 60:02}:{whole % 60:02}.{rest:0{digits}} "

    # What printers share.

    def cut(self, end: int) -> bytes:
        """From here on the packet ends at `end`, if it was captured that far; the buffer before, to be put back."""
        before = self.buffer
        if end < len(before):
            self.buffer = before[: max(end, 0)]
        return before

    def need(self, offset: int, count: int) -> None:
        """Raise where fewer than `count` bytes were captured from `offset` on."""
        if offset + count > len(self.buffer):
            raise Truncated

    def has(self, offset: int, count: int) -> bool:
        """Whether `count` bytes were captured from `offset` on."""
        return count >= 0 and offset + count <= len(self.buffer)

    def end(self) -> Never:
        """Stop here, with the mark of the protocol at work."""
        raise Truncated

    def ends(self, addresses: bytes) -> tuple[str, str]:
        """Two addresses, one behind the other, of whichever version of IP."""
        if len(addresses) == 8:
            return self.ip4[addresses[:4]], self.ip4[addresses[4:]]
        return self.ip6[addresses[:16]], self.ip6[addresses[16:]]

    def mark(self) -> None:
        """The mark of a protocol that was cut short; printing goes on above it."""
        self.write(f" [|{self.protocol}]")

    def dump(self, offset: int, length: int) -> None:
        """The bytes of a protocol that has no printer, in hex and ASCII; a packet that is cut short ends there."""
        data = self.buffer[offset : offset + length] if length > 0 else b""
        self.write(hex_and_ascii(data))
        if len(data) < length:
            raise Truncated

    def unknown(self, offset: int, indent: str, length: int) -> None:
        """Bytes in hex, as far as they were captured."""
        if offset > len(self.buffer):
            self.write(f"{indent}Dissector error: print_unknown_data called with pointer past end of packet")
            return
        self.write(hexadecimal(self.buffer[offset : offset + max(length, 0)], indent))

    def raw(self, offset: int, length: int) -> None:
        """Dump what an unknown protocol carries, where nothing else will dump it."""
        if self.dumps_unknown:
            self.dump(offset, length)


LinkPrinter = Callable[[Dissector, bytes, int, int], int]
"""Prints a packet from its link layer on: bytes, length on the wire, bytes captured. Returns the header's length."""

Common = Callable[[Dissector, Iterable[Where]], None]
"""Prints packets of one link, those that it knows in one pass; or remembers what printing them would."""

_BAD_TIME: Final = "[Error converting time]"


def _invalid(captured: int, length: int) -> bytes:
    said: list[str] = []
    if captured == 0:
        said.append("caplen==0")
    if length == 0:
        said.append("len==0")
    elif length < captured:
        said.append(f"len({length}) < caplen({captured})")
    if captured > MOST_CAPTURED:
        said.append(f"caplen({captured}) > {MOST_CAPTURED}")
    if length > MOST_CAPTURED:
        said.append(f"len({length}) > {MOST_CAPTURED}")
    return f"[Invalid header: {', '.join(said)}]\n".encode()


# Dumps.


def hexadecimal(data: bytes, indent: str = "\n\t", start: int = 0) -> str:
    """-x: eight groups of two bytes a line."""
    text: list[str] = []
    for offset in range(0, len(data), 16):
        piece = data[offset : offset + 16].hex()
        groups = " ".join([piece[at : at + 4] for at in range(0, len(piece), 4)])
        text.append(f"{indent}0x{start + offset:04x}:  {groups}")
    return "".join(text)


def hex_and_ascii(data: bytes, indent: str = "\n\t") -> str:
    """-X: the same, with the characters beside."""
    text: list[str] = []
    for offset in range(0, len(data), 16):
        piece = data[offset : offset + 16]
        digits = piece.hex()
        groups = "".join([" " + digits[at : at + 4] for at in range(0, len(digits), 4)])
        characters = piece.decode("latin-1").translate(GRAPHIC)
        text.append(f"{indent}0x{offset:04x}: {groups:40}  {characters}")
    return "".join(text)


_ASCII: Final = "".join(chr(code) if 33 <= code < 127 or code in b"\t \n" else "." for code in range(256))


def ascii_text(data: bytes) -> str:
    """-A: text as it is, but for what a terminal would obey."""
    if b"\r" not in data:
        return "\n" + data.decode("latin-1").translate(_ASCII)
    text = ["\n"]
    for index, code in enumerate(data):
        if code != 13:
            text.append(_ASCII[code])
        elif len(data) - index > 2 and data[index + 1] != 10:
            text.append(".")
    return "".join(text)
