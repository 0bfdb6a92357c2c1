"""Runs in: the decoder, confined; pure. Capture files (pcap and pcapng) in pieces, and packets as pcap records.

A capture comes in chunks of any size. What is left of one is kept until the next; the cursor says how much that is, so
that another decoder can be started where this one died.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import NamedTuple

from bunri.apps.dump.messages import BadCapture, Cursor, Interface, Where

MOST_CAPTURED = 262144  # bytes of one packet, as libpcap has it
_MOST_BLOCK = 16 << 20
_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000), b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000), b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000),
}  # fmt: skip
_SECTION = b"\x0a\x0d\x0d\x0a"


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
        at = 0
        if not self.cursor.started:
            at = self._header(buffer)
            self._rest = buffer[at:]
            if not self.cursor.started:
                return
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
            if left >= 4 and self._rest[:4] not in _MAGIC and self._rest[:4] != _SECTION:
                return "unknown file format"
            wanted = 4 if left < 4 else 24
            return f"truncated dump file; tried to read {wanted} file header bytes, only got {left if left < 4 else left - 4}"
        if not left:
            return ""
        if self.cursor.next_generation:
            return f"truncated pcapng dump file; tried to read {8 if left < 8 else self._block_size()} bytes, only got {left}"
        if left < 16:
            return f"truncated dump file; tried to read 16 header bytes, only got {left}"
        wanted = struct.unpack_from(f"{self._order}I", self._rest, 8)[0]
        return f"truncated dump file; tried to read {wanted} captured bytes, only got {left - 16}"

    def _block_size(self) -> int:
        return int(struct.unpack_from(f"{self._order}I", self._rest, 4)[0])

    @property
    def _order(self) -> str:
        return ">" if self.cursor.big_endian else "<"

    def _header(self, buffer: bytes) -> int:
        magic = buffer[:4]
        if len(magic) < 4:
            return 0
        if magic == _SECTION:
            self.cursor = replace(self.cursor, started=True, next_generation=True)
            return 0
        if magic not in _MAGIC:
            raise BadCapture("unknown file format")
        if len(buffer) < 24:
            return 0
        order, resolution = _MAGIC[magic]
        major, _, _, _, snap, link = struct.unpack_from(f"{order}HHiIII", buffer, 4)
        if major < 2:
            raise BadCapture(f"archaic pcap savefile format (version {major})")
        link &= 0x03FFFFFF
        self.cursor = replace(
            self.cursor,
            started=True,
            big_endian=order == ">",
            first=link,
            interfaces=[Interface(link, resolution, 0, snap if 0 < snap <= 0x7FFFFFFF else MOST_CAPTURED)],
        )
        return 24

    def _records(self, buffer: bytes, at: int) -> Iterator[Where]:
        """pcap: sixteen bytes and the packet, again and again."""
        unpack = struct.Struct(f"{self._order}IIII").unpack_from
        interface = self.cursor.interfaces[0]
        snap = interface.snap
        scale, shrink = self._scales(interface.resolution)
        end = len(buffer)
        try:
            while end - at >= 16:
                second, fraction, captured, length = unpack(buffer, at)
                stop = at + 16 + captured
                if captured > MOST_CAPTURED:
                    bound = f"snaplen of {snap}" if snap <= MOST_CAPTURED else f"maximum of {MOST_CAPTURED}"
                    raise BadCapture(f"invalid packet capture length {captured}, bigger than {bound}")
                if stop > end:
                    break
                start, at = at + 16, stop
                if captured > snap:
                    stop = start + snap
                yield second, fraction * scale // shrink, length, buffer, start, stop
        finally:
            self._rest = buffer[at:]

    def _scales(self, resolution: int) -> tuple[int, int]:
        if resolution < self._unit:
            return self._unit // resolution, 1
        return 1, resolution // self._unit

    def _blocks(self, buffer: bytes, at: int) -> Iterator[Where]:
        """pcapng: blocks of a type and a length, which stands at both ends."""
        end = len(buffer)
        try:
            while end - at >= 12:
                if buffer[at : at + 4] == _SECTION:
                    self._section(buffer, at)
                kind, size = struct.unpack_from(f"{self._order}II", buffer, at)
                if size < 12 or size % 4 or size > _MOST_BLOCK:
                    raise BadCapture(f"block in pcapng dump file has a length of {size} which is not possible")
                if at + size > end:
                    break
                packet = self._block(kind, buffer[at + 8 : at + size - 4])
                at += size
                if packet is not None:
                    yield packet.second, packet.fraction, packet.length, packet.data, 0, len(packet.data)
        finally:
            self._rest = buffer[at:]

    def _section(self, buffer: bytes, at: int) -> None:
        magic = buffer[at + 8 : at + 12]
        if magic not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
            raise BadCapture("unknown byte-order magic in a section of the pcapng dump file")
        if self.cursor.first >= 0 and self.cursor.big_endian is not (magic[0] == 0x1A):
            raise BadCapture("the file has sections with different byte orders")
        self.cursor = replace(self.cursor, big_endian=magic[0] == 0x1A, interfaces=[])

    def _block(self, kind: int, body: bytes) -> Packet | None:
        order = self._order
        try:
            if kind == 1:
                self._interface(body)
            elif kind == 6:
                index, high, low, captured, length = struct.unpack_from(f"{order}IIIII", body)
                return self._packet(index, high << 32 | low, captured, length, body[20:])
            elif kind == 2:
                index, _, high, low, captured, length = struct.unpack_from(f"{order}HHIIII", body)
                return self._packet(index, high << 32 | low, captured, length, body[20:])
            elif kind == 3:
                length = struct.unpack_from(f"{order}I", body)[0]
                snap = self.cursor.interfaces[0].snap if self.cursor.interfaces else 0
                return self._packet(0, 0, min(length, snap or length, len(body) - 4), length, body[4:])
        except struct.error:
            raise BadCapture(f"block of type {kind} in pcapng dump file is too short") from None
        return None

    def _interface(self, body: bytes) -> None:
        order = self._order
        link, _, snap = struct.unpack_from(f"{order}HHI", body)
        resolution, offset = 1_000_000, 0
        at = 8
        while at + 4 <= len(body):
            code, size = struct.unpack_from(f"{order}HH", body, at)
            value = body[at + 4 : at + 4 + size]
            if code == 0:
                break
            if code == 9 and size == 1:
                resolution = 1 << (value[0] & 127) if value[0] & 128 else 10 ** value[0]
            elif code == 14 and size == 8:
                offset = struct.unpack(f"{order}q", value)[0]
            at += 4 + (size + 3 & ~3)
        if resolution > 1 << 64:
            raise BadCapture("Interface Description Block has if_tsresol option value that's too large")
        if self.cursor.first not in (-1, link):
            raise BadCapture(f"an interface has a type {link} different from the type of the first interface")
        made = Interface(link, resolution, offset, snap if 0 < snap <= MOST_CAPTURED else MOST_CAPTURED)
        if len(self.cursor.interfaces) >= 4096:
            raise BadCapture("more than 4096 interfaces in one section of the pcapng dump file")
        self.cursor = replace(self.cursor, first=link, interfaces=[*self.cursor.interfaces, made])

    def _packet(self, index: int, stamp: int, captured: int, length: int, data: bytes) -> Packet:
        if index >= len(self.cursor.interfaces):
            raise BadCapture(
                f"a packet arrived on interface {index}, but there's no Interface Description Block for that interface"
            )
        if captured > len(data):
            raise BadCapture("block in pcapng dump file has a length that is too small for its packet")
        interface = self.cursor.interfaces[index]
        second, part = divmod(stamp, interface.resolution)
        fraction = part * self._unit // interface.resolution
        return Packet(second + interface.offset & 0xFFFFFFFF, fraction, length, data[: min(captured, MOST_CAPTURED)])


def file_header(link: int, snap: int, *, nanoseconds: bool) -> bytes:
    """The beginning of a pcap file."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, snap, link)


_RECORD = struct.Struct("<IIII")


def record(packet: Packet) -> bytes:
    """A packet as it stands in a pcap file."""
    return _RECORD.pack(packet.second, packet.fraction, len(packet.data), packet.length & 0xFFFFFFFF) + packet.data


def whole_records(data: bytes, check: Callable[[int, int], bool]) -> int:
    """How many records `data` is made of; -1 where it is something else. `check` is asked of both lengths."""
    at = count = 0
    while at < len(data):
        if len(data) - at < 16:
            return -1
        _, _, captured, length = _RECORD.unpack_from(data, at)
        at += 16 + captured
        if at > len(data) or not check(captured, length):
            return -1
        count += 1
    return count
