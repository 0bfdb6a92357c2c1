"""Runs in: the decoder, confined; pure. Capture files (pcap and pcapng) in pieces, and packets as pcap records.

A capture comes in chunks of any size. What is left of one is kept until the next; the cursor says how much that is, so
that another decoder can be started where this one died.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable
from typing import NamedTuple

from msgspec.structs import replace

from bunri.apps.dump.messages import BadCapture, Cursor, Interface, Swapped, Where

MOST_CAPTURED = 262144  # bytes of one packet, as libpcap has it
_MOST_BLOCK = 16 << 20
_MOST_SECTION_HEADER = 1 << 20
_MOST_INT = 0x7FFFFFFF
_MICRO, _NANO = 6, 9  # digits of a second's fraction, as pcapng's if_tsresol has them
_PATCHED = b"\x34\xcd\xb2\xa1"  # by Kuznetzov: eight bytes more before each packet
_MAGIC = {
    b"\xd4\xc3\xb2\xa1": _MICRO, b"\x4d\x3c\xb2\xa1": _NANO, _PATCHED: _MICRO,
}  # fmt: skip
_SECTION = b"\x0a\x0d\x0d\x0a"
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_SECTION_BLOCK, _INTERFACE, _PACKET, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6


class Packet(NamedTuple):
    """One packet as it stands in a capture."""

    second: int
    fraction: int  # of a second, in the precision that the capture's reader was asked for
    length: int  # on the wire
    data: bytes


class Capture:
    """Reads one capture. `digits` is 6 or 9: the precision of the fractions that come out."""

    def __init__(self, cursor: Cursor, digits: int) -> None:
        self._digits = digits
        self._unit = 10**digits
        self._rest = b""
        self.cursor = cursor

    def feed(self, chunk: bytes) -> Generator[Packet]:
        """The packets that are whole now. BadCapture where the file is none, or cannot be read on."""
        places = self.places(chunk)
        try:
            for second, fraction, length, buffer, start, stop in places:
                yield Packet(second, fraction, length, buffer[start:stop])
        finally:
            places.close()

    def places(self, chunk: bytes) -> Generator[Where]:
        """The same, uncopied."""
        buffer = self._rest + chunk if self._rest else chunk
        self._rest = buffer
        if not self.cursor.started:
            return self._first_places(buffer)
        return (self._blocks if self.cursor.next_generation else self._records)(buffer, 0)

    def _first_places(self, buffer: bytes) -> Generator[Where]:
        at = self._header(buffer)
        self._rest = buffer[at:]
        if self.cursor.started:
            yield from (self._blocks if self.cursor.next_generation else self._records)(buffer, at)

    def carry(self, rest: bytes) -> None:
        """Begin with these bytes."""
        self._rest = rest

    @property
    def carried(self) -> int:
        """Bytes that wait for more."""
        return len(self._rest)

    def finish(self) -> str:
        """What is wrong with the end of the file; empty where it is whole."""
        left = len(self._rest)
        if not self.cursor.started:
            return _cut_short(self._rest)
        if self.cursor.first < 0 and not left:
            return "the capture file has no Interface Description Blocks"
        if not left:
            return ""
        if self.cursor.next_generation:
            wanted, got = (8, left) if left < 8 else (self._block_size() - 8, left - 8)
            return f"truncated pcapng dump file; tried to read {wanted} bytes, only got {got}"
        head = self.cursor.head
        if left < head:
            return f"truncated dump file; tried to read {head} header bytes, only got {left}"
        wanted, _ = self._lengths(*struct.unpack_from(f"{self._order}II", self._rest, 8))
        if left - head < self.cursor.snap < wanted:
            wanted = self.cursor.snap
        return f"truncated dump file; tried to read {wanted} captured bytes, only got {left - head}"

    def _block_size(self) -> int:
        return int(struct.unpack_from(f"{self._order}I", self._rest, 4)[0])

    @property
    def _order(self) -> str:
        return ">" if self.cursor.big_endian else "<"

    def _header(self, buffer: bytes) -> int:
        """Read the file's header, once it is here whole; how many bytes of `buffer` that were."""
        magic = buffer[:4]
        if magic == _SECTION:
            return self._first_section(buffer)
        if len(magic) < 4:
            return 0
        order = "<" if magic in _MAGIC else ">"
        digits = _MAGIC.get(magic if order == "<" else magic[::-1])
        if digits is None:
            raise BadCapture("unknown file format")
        if len(buffer) < 24:
            return 0
        major, minor, _, _, snap, link = struct.unpack_from(f"{order}HHiIII", buffer, 4)
        if major < 2:
            raise BadCapture("archaic pcap savefile format")
        if (major, minor) != (543, 0) and (major > 2 or minor > 4):
            raise BadCapture(f"unsupported pcap savefile version {major}.{minor}")
        link &= 0x03FFFFFF
        patched = _PATCHED in (magic, magic[::-1])
        snap = _adjusted(snap)
        if patched and link == 1:
            snap = min(snap + 14, _MOST_INT)
        self.cursor = replace(
            self.cursor,
            started=True,
            big_endian=order == ">",
            first=link,
            snap=snap,
            head=24 if patched else 16,
            swapped=Swapped.ALWAYS if minor < 3 else Swapped.PERHAPS if minor == 3 else Swapped.NEVER,
            interfaces=[Interface(digits, 0)],
        )
        return 24

    def _lengths(self, captured: int, length: int) -> tuple[int, int]:
        """Of a packet, as captured and on the wire: before pcap 2.3 they stood the other way round, and in some of 2.3."""
        swapped = self.cursor.swapped
        if swapped is Swapped.ALWAYS or (swapped is Swapped.PERHAPS and captured > length):
            return length, captured
        return captured, length

    def _records(self, buffer: bytes, at: int) -> Generator[Where]:
        """pcap: sixteen bytes and the packet, again and again."""
        unpack = struct.Struct(f"{self._order}IIII").unpack_from
        head = self.cursor.head
        snap = self.cursor.snap
        digits = self.cursor.interfaces[0].resolution
        as_they_are = self.cursor.swapped is Swapped.NEVER and digits == self._digits
        end = len(buffer)
        last = end - head
        try:
            while at <= last:
                second, fraction, captured, length = unpack(buffer, at)
                if not as_they_are:
                    captured, length = self._lengths(captured, length)
                    fraction = self._scaled(fraction, digits)
                start = at + head
                stop = start + captured
                if captured > MOST_CAPTURED:
                    bound = f"snaplen of {snap}" if captured > snap else f"maximum of {MOST_CAPTURED}"
                    raise BadCapture(f"invalid packet capture length {captured}, bigger than {bound}")
                if stop > end:
                    break
                at = stop
                if captured > snap:
                    stop = start + snap
                yield second, fraction, length, buffer, start, stop
        finally:
            self._rest = buffer[at:]

    def _scaled(self, fraction: int, digits: int) -> int:
        """In the precision that was asked for; more than a second is scaled as C's integers are."""
        if digits == self._digits:
            return fraction
        if digits < self._digits:
            return fraction * 1000 & 0xFFFFFFFF
        if fraction >> 31 and not self.cursor.big_endian:
            return -(((1 << 32) - fraction) // 1000) & 0xFFFFFFFF
        return fraction // 1000

    def _first_section(self, buffer: bytes) -> int:
        if len(buffer) < 12:
            return 0
        order = _ORDERS.get(buffer[8:12])
        if order is None:
            raise BadCapture("unknown file format")
        size = int(struct.unpack_from(f"{order}I", buffer, 4)[0])
        if not 28 <= size <= _MOST_SECTION_HEADER:
            raise BadCapture(
                f"Section Header Block in pcapng dump file has invalid length 28 < _{size}_ < {_MOST_SECTION_HEADER} "
                "(BT_SHB_INSANE_MAX)"
            )
        if len(buffer) < size:
            return 0
        major, minor = struct.unpack_from(f"{order}HH", buffer, 12)
        if major != 1 or minor not in (0, 2):
            raise BadCapture(f"unsupported pcapng savefile version {major}.{minor}")
        self.cursor = replace(self.cursor, started=True, next_generation=True, big_endian=order == ">")
        return size

    def _blocks(self, buffer: bytes, at: int) -> Generator[Where]:
        """pcapng: blocks of a type and a length, which stands at both ends."""
        end = len(buffer)
        unpack = struct.Struct(f"{self._order}II").unpack_from
        try:
            while end - at >= 8:
                kind, size = unpack(buffer, at)
                if size < 12:
                    raise BadCapture(f"block in pcapng dump file has a length of {size} < 12")
                if size % 4:
                    raise BadCapture(f"block in pcapng dump file has a length of {size} that is not a multiple of 4")
                if size > _MOST_BLOCK:
                    raise BadCapture(f"pcapng block size {size} > maximum {_MOST_BLOCK}")
                if at + size > end:
                    break
                if buffer[at + 4 : at + 8] != buffer[at + size - 4 : at + size]:
                    raise BadCapture("block total length in header and trailer don't match")
                packet = self._block(kind, buffer[at + 8 : at + size - 4])
                at += size
                if packet is not None:
                    yield packet.second, packet.fraction, packet.length, packet.data, 0, len(packet.data)
        finally:
            self._rest = buffer[at:]

    def _block(self, kind: int, body: bytes) -> Packet | None:
        if self.cursor.first < 0:
            if kind in (_ENHANCED, _SIMPLE, _PACKET):
                raise BadCapture("the capture file has a packet block before any Interface Description Blocks")
            if kind != _INTERFACE:
                return None
        order = self._order
        try:
            if kind == _INTERFACE:
                self._interface(body)
            elif kind == _SECTION_BLOCK:
                self._section(body)
            elif kind == _ENHANCED:
                index, high, low, captured, length = struct.unpack_from(f"{order}IIIII", body)
                return self._packet(index, high << 32 | low, captured, length, body[20:])
            elif kind == _PACKET:
                index, _, high, low, captured, length = struct.unpack_from(f"{order}HHIIII", body)
                return self._packet(index, high << 32 | low, captured, length, body[20:])
            elif kind == _SIMPLE:
                length = int(struct.unpack_from(f"{order}I", body)[0])
                return self._packet(0, 0, min(length, self.cursor.snap), length, body[4:])
        except (struct.error, _TooShort):
            raise BadCapture(f"block of type {kind} in pcapng dump file is too short") from None
        return None

    def _section(self, body: bytes) -> None:
        """Another section, whose packets are of interfaces that it names itself."""
        magic, major = struct.unpack_from(f"{self._order}4sH10x", body)
        if magic not in _ORDERS:
            raise BadCapture("the file has a section with a bad byte order magic field")
        if _ORDERS[magic] != self._order:
            raise BadCapture("the file has sections with different byte orders")
        if major != 1:
            raise BadCapture(f"unknown pcapng savefile major version number {major}")
        self.cursor = replace(self.cursor, interfaces=[])

    def _interface(self, body: bytes) -> None:
        link, _, told = struct.unpack_from(f"{self._order}HHI", body)
        snap = _adjusted(told)
        if self.cursor.first < 0:
            self.cursor = replace(self.cursor, snap=snap)
        elif self.cursor.first != link:
            raise BadCapture(f"an interface has a type {link} different from the type of the first interface")
        elif self.cursor.snap != snap:
            raise BadCapture(
                f"an interface has a snapshot length {told} different from the snapshot length of the first interface"
            )
        if len(self.cursor.interfaces) >= 4096:
            raise BadCapture("more than 4096 interfaces in one section of the pcapng dump file")
        made = self._times(body[8:])
        self.cursor = replace(self.cursor, first=link, interfaces=[*self.cursor.interfaces, made])

    def _times(self, options: bytes) -> Interface:
        """What an interface's options say of its packets' times."""
        order = self._order
        resolution, offset = _MICRO, 0
        seen: set[int] = set()
        at = 0
        while at < len(options):
            code, size = struct.unpack_from(f"{order}HH", options, at)
            value = options[at + 4 : at + 4 + size]
            at += 4 + (size + 3 & ~3)
            if at > len(options):
                raise _TooShort
            if code not in _TIMES:
                continue
            name, wanted = _TIMES[code]
            if size != wanted:
                raise BadCapture(f"Interface Description Block has {name} option with length {size} != {wanted}")
            if code == 0:
                break
            if code in seen:
                raise BadCapture(f"Interface Description Block has more than one {name} option")
            seen.add(code)
            if code == _RESOLUTION:
                resolution = _checked(value[0])
            else:
                offset = int(struct.unpack(f"{order}q", value)[0])
        return Interface(resolution, offset)

    def _packet(self, index: int, stamp: int, captured: int, length: int, data: bytes) -> Packet:
        if index >= len(self.cursor.interfaces):
            raise BadCapture(
                f"a packet arrived on interface {index}, but there's no Interface Description Block for that interface"
            )
        if captured > self.cursor.snap:
            raise BadCapture(f"invalid packet capture length {captured}, bigger than snaplen of {self.cursor.snap}")
        if captured > len(data):
            raise _TooShort
        interface = self.cursor.interfaces[index]
        binary, exponent = interface.resolution & 0x80, interface.resolution & 0x7F
        one = 1 << exponent if binary else 10**exponent
        second, part = divmod(stamp, one)
        product = part * self._unit
        if binary:
            product &= 0xFFFFFFFFFFFFFFFF  # as libpcap computes it
        fraction = product // one
        return Packet(second + interface.offset & 0xFFFFFFFF, fraction, length, data[: min(captured, MOST_CAPTURED)])


class _TooShort(Exception):
    """A block ends before what it is said to hold."""


_RESOLUTION, _OFFSET = 9, 14
_TIMES = {0: ("opt_endofopt", 0), _RESOLUTION: ("if_tsresol", 1), _OFFSET: ("if_tsoffset", 8)}


def _checked(resolution: int) -> int:
    """if_tsresol: so many digits of a second's fraction, or with the highest bit so many bits. They are to fit in 64 bits."""
    exponent = resolution & 0x7F
    base, most = (2, 63) if resolution & 0x80 else (10, 19)
    if exponent > most:
        raise BadCapture(f"Interface Description Block if_tsresol option resolution {base}^-{exponent} is too high")
    return resolution


def _adjusted(snap: int) -> int:
    """A snapshot length that cannot be is the largest that can."""
    return snap if 0 < snap <= _MOST_INT else MOST_CAPTURED


def _cut_short(head: bytes) -> str:
    """What is wrong with a file whose header is not whole."""
    left = len(head)
    if left < 4:
        return f"truncated dump file; tried to read 4 file header bytes, only got {left}"
    if head[:4] != _SECTION:
        return f"truncated dump file; tried to read 24 file header bytes, only got {left - 4}"
    if left < 12 or head[8:12] not in _ORDERS:
        return "unknown file format"  # it may be a text
    size = int(struct.unpack_from(f"{_ORDERS[head[8:12]]}I", head, 4)[0])
    return f"truncated pcapng dump file; tried to read {size - 12} bytes, only got {left - 12}"


def file_header(link: int, snap: int, *, nanoseconds: bool) -> bytes:
    """The beginning of a pcap file."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, snap, link)


RECORD = struct.Struct("<IIII")  # the head of a packet in a pcap file


def record(packet: Packet) -> bytes:
    """A packet as it stands in a pcap file."""
    return RECORD.pack(packet.second, packet.fraction, len(packet.data), packet.length & 0xFFFFFFFF) + packet.data


def add_records(records: bytearray, places: Iterable[Where]) -> int:
    """Packets as they stand in a pcap file, behind what is there; how many they are."""
    pack = RECORD.pack
    count = 0
    for second, fraction, length, b, start, stop in places:
        records += pack(second, fraction, stop - start, length)
        records += b[start:stop]
        count += 1
    return count


_CAPTURED = struct.Struct("<8xI4x").unpack_from  # of a record's head


def are_records(data: bytes) -> bool:
    """Whether it is made of whole records, none of which says that it holds more than a packet may."""
    at, last = 0, len(data) - RECORD.size
    while at <= last:
        (captured,) = _CAPTURED(data, at)
        if captured > MOST_CAPTURED:
            return False
        at += 16 + captured
    return at == len(data)
