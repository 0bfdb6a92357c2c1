"""Runs in: the decoder, confined; pure. Tunnels: GRE (RFC 2784, 2890, 2637) and VXLAN (RFC 7348)."""

from __future__ import annotations

import socket

from bunri.apps.dump.decode.core import Dissector, bits, u16, u24
from bunri.apps.dump.decode.ip4 import ip4
from bunri.apps.dump.decode.ip6 import ip6
from bunri.apps.dump.decode.numbers import ETHERTYPES
from bunri.apps.dump.decode.text import invalid

_CHECKSUM, _ROUTING, _KEY, _SEQUENCE, _ACKNOWLEDGED = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080
_FLAGS = (
    (_CHECKSUM, "checksum present"), (_ROUTING, "routing present"), (_KEY, "key present"),
    (_SEQUENCE, "sequence# present"), (0x0800, "source routing present"), (_ACKNOWLEDGED, "ack present"),
)  # fmt: skip


class _Cut(Exception):
    """The header says more than there is."""


class _Header:
    """Walks over a header; raises _Cut at its end."""

    def __init__(self, d: Dissector, at: int, left: int) -> None:
        self._d = d
        self.at = at
        self.left = left

    def take(self, size: int) -> int:
        """The next field, big-endian."""
        if not self._d.has(self.at, size) or self.left < size:
            raise _Cut
        value = int.from_bytes(self._d.buffer[self.at : self.at + size])
        self.skip(size)
        return value

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        if self.left < size:
            raise _Cut
        self.at += size
        self.left -= size


def gre(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """A packet in GRE."""
    d.protocol = "gre"
    walk = _Header(d, o, length)
    try:
        flags = walk.take(2)
        d.write(f"GREv{flags & 7}")
        if flags & 7 > 1:
            d.write(" ERROR: unknown-version")
            return
        if d.verbose:
            d.write(f", Flags [{bits(_FLAGS, flags, 'none')}]")
        kind = walk.take(2)
        if flags & 7:
            _point_to_point(d, walk, flags, kind, length)
            return
        _fields(d, walk, flags)
    except _Cut:
        d.mark()
        return
    _carried(d, walk, kind, length)


def _fields(d: Dissector, walk: _Header, flags: int) -> None:
    if flags & (_CHECKSUM | _ROUTING):
        stored = walk.take(2)
        if d.verbose:
            d.write(f", sum 0x{stored:x}")
        d.write(f", off 0x{walk.take(2):x}")
    if flags & _KEY:
        d.write(f", key=0x{walk.take(4):x}")
    if flags & _SEQUENCE:
        d.write(f", seq {walk.take(4)}")
    while flags & _ROUTING:
        family, offset, size = walk.take(2), walk.take(1), walk.take(1)
        if family == 0 and size == 0:
            return
        _route(d, family, offset, size, walk)
        walk.skip(size)


def _route(d: Dissector, family: int, offset: int, size: int, walk: _Header) -> None:
    """One entry of a source route (RFC 1701)."""
    known = {0x0800: ("ip", 4), 0xFFFE: ("asn", 2)}.get(family)
    if known is None:
        d.write(f", (rtaf=0x{family:x})")
        return
    word, wide = known
    d.write(f", (rtaf={word}")
    if offset % wide:
        d.write(f", badoffset={offset}")
    elif size % wide:
        d.write(f", badlength={size}")
    elif offset >= size:
        d.write(f", badoff/len={offset}/{size}")
    else:
        for at in range(0, size, wide):
            if not d.has(walk.at + at, wide) or walk.left < at + wide:
                d.write(")")
                raise _Cut
            hop = d.buffer[walk.at + at : walk.at + at + wide]
            shown = socket.inet_ntop(socket.AF_INET, hop) if wide == 4 else f"{u16(hop, 0):x}"
            d.write(f" {'*' if at == offset else ''}{shown}")
    d.write(")")


def _point_to_point(d: Dissector, walk: _Header, flags: int, kind: int, length: int) -> None:
    """Version 1: PPTP."""
    if flags & _KEY:
        d.write(f", call {walk.take(4) & 0xFFFF}")
    if flags & _SEQUENCE:
        d.write(f", seq {walk.take(4)}")
    if flags & _ACKNOWLEDGED:
        d.write(f", ack {walk.take(4)}")
    if not flags & _SEQUENCE:
        d.write(", no-payload")
    if d.link:
        d.write(f", proto {ETHERTYPES.get(kind, 'unknown')} (0x{kind:04x})")
    d.write(f", length {length}")
    if flags & _SEQUENCE:
        d.write("\n\t" if d.verbose else ": ")
        d.write(f"gre-proto-0x{kind:x}")


def _carried(d: Dissector, walk: _Header, kind: int, length: int) -> None:
    if d.link:
        d.write(f", proto {ETHERTYPES.get(kind, 'unknown')} (0x{kind:04x})")
    d.write(f", length {length}")
    d.write("\n\t" if d.verbose else ": ")
    if kind == 0x0800:
        ip4(d, walk.at, walk.left)
    elif kind == 0x86DD:
        ip6(d, walk.at, walk.left)
    elif kind == 0x6558:
        d.tables.ether(d, walk.at, walk.left, max(len(d.buffer) - walk.at, 0))
    else:
        d.write(f"gre-proto-0x{kind:x}")


def vxlan(d: Dissector, o: int, length: int) -> None:
    """An Ethernet frame in UDP."""
    d.protocol = "vxlan"
    d.write("VXLAN")
    if length < 8:
        invalid(d)
        return
    b = d.buffer
    flags = b[o]
    d.write(f", flags [{'I' if flags & 8 else 'invalid'}] (0x{flags:02x}), ")
    d.write(f"vni {u24(b, o + 4)}\n")
    d.need(o + 7, 1)
    d.tables.ether(d, o + 8, length - 8, max(len(b) - o - 8, 0))
