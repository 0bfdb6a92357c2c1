"""Runs in: the decoder, confined; pure. The outermost IP header of a packet and what it carries, as values for programs.

Not what is printed: nothing inside of a tunnel, no checksum, no reassembly. What was not captured whole is None.
"""

from __future__ import annotations

import struct

from bunri.apps.dump.decode.core import ENDS, take, u16, u32
from bunri.apps.dump.messages import Datagram, Network, Segment

_TAGS = frozenset({0x8100, 0x9100, 0x9200, 0x88A8})
_IP4 = struct.Struct(">BBHHHBBH4s4s").unpack_from
_IP6 = struct.Struct(">IHBB16s16s").unpack_from
_TCP = struct.Struct(">HHIIBBHHH").unpack_from
_PASSED = frozenset({0, 43, 60, 135})  # extension headers that have a length in units of eight bytes
_FRAGMENT = 44
_HEADERS: dict[int, tuple[int, int]] = {1: (14, 12), 113: (16, 14), 276: (20, 0)}
"""By link type: bytes of the link's header, and where in it the ethertype stands."""

Found = tuple[Network | None, Segment | Datagram | None]


def fields(link: int, data: bytes) -> Found:
    """IP and what it carries; None for what is not there, or not whole."""
    try:
        o = _network_at(link, data)
        version = data[o] >> 4 if o >= 0 else 0
        if version == 4:
            return _ip4(data, o)
        return _ip6(data, o) if version == 6 else (None, None)
    except ENDS:
        return None, None


def _network_at(link: int, b: bytes) -> int:
    """Where IP begins; -1 where it is something else."""
    if link in (0, 108):
        return 4
    if link in (12, 14, 101, 228, 229):
        return 0
    if link not in _HEADERS:
        return -1
    o, at = _HEADERS[link]
    kind = u16(b, at)
    while kind in _TAGS:
        kind = u16(b, o + 2)
        o += 4
    return o if kind in (0x0800, 0x86DD) else -1


def _ip4(b: bytes, o: int) -> Found:
    first, _, total, _, offset, hops, protocol, _, source, target = _IP4(b, o)
    header = (first & 15) << 2
    if header < 20 or total < header:
        return None, None
    later = bool(offset & 0x1FFF)
    network = Network(4, source, target, protocol, hops, later)
    return network, None if later else _carried(protocol, b[: o + total], o + header)


def _ip6(b: bytes, o: int) -> Found:
    _, size, following, hops, source, target = _IP6(b, o)
    b = b[: o + 40 + size]
    p = o + 40
    later = False
    try:
        while not later and (following in _PASSED or following == _FRAGMENT):
            before, following = following, b[p]
            later = before == _FRAGMENT and u16(b, p + 2) & 0xFFF8 != 0
            p += 8 if before == _FRAGMENT else (b[p + 1] + 1) << 3
    except ENDS:
        return Network(6, source, target, following, hops, later), None
    return Network(6, source, target, following, hops, later), None if later else _carried(following, b, p)


def _carried(protocol: int, b: bytes, o: int) -> Segment | Datagram | None:
    try:
        if protocol == 6:
            sport, dport, seq, ack, size, flags, window, _, _ = _TCP(b, o)
            take(b, o, size >> 4 << 2)
            if size >> 4 < 5:
                return None
            return Segment(sport, dport, seq, ack, flags, window, b[o + (size >> 4 << 2) :])
        if protocol == 17:
            ports = u32(b, o)
            size = u16(b, o + 4)
            u16(b, o + 6)
            return Datagram(ports >> 16, ports & 0xFFFF, b[o + 8 : o + size] if size >= 8 else b"")
    except ENDS:
        pass  # the header was not captured whole
    return None
