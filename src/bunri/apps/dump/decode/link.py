"""Runs in: the decoder, confined; pure. Link layers: Ethernet with VLAN tags, Linux cooked, raw IP, BSD null."""

from __future__ import annotations

import struct
from collections.abc import Callable

from bunri.apps.dump.decode.core import Dissector, hex_and_ascii, u16, u32, word
from bunri.apps.dump.decode.numbers import ETHERTYPES

MOST_LENGTH = 1500  # an ethertype field up to this is a length: 802.3
_TAGS = frozenset({0x8100, 0x9100, 0x9200, 0x88A8})
_ARISTA, _JUMBO, _MACSEC = 0xD28B, 0x8870, 0x88E5
_PACKET_TYPES = {0: "In", 1: "B", 2: "M", 3: "P", 4: "Out"}
_FAMILIES = {2: "IPv4", 6: "NS", 7: "ISO", 16: "Appletalk", 23: "IPX", 24: "IPv6", 28: "IPv6", 30: "IPv6"}


def _addresses(d: Dissector, ether: int) -> str:
    b = d.buffer
    return f"{d.mac[b[ether + 6 : ether + 12]]} > {d.mac[b[ether : ether + 6]]}, "


def _type(d: Dissector, kind: int) -> str:
    if d.quiet:
        return word(ETHERTYPES, kind, "Unknown Ethertype (0x%04x)")
    return f"ethertype {ETHERTYPES.get(kind, 'Unknown')} (0x{kind:04x})"


def _vlan(tag: int) -> str:
    return f"vlan {tag & 0xFFF}, p {tag >> 13}{', DEI' if tag & 0x1000 else ''}"


def ethernet(d: Dissector, data: bytes, length: int, captured: int) -> int:
    """DLT_EN10MB."""
    d.protocol = "ether"
    if captured < 14:
        d.mark()
        return captured
    return ether(d, 0, length, captured)


def ether(d: Dissector, o: int, length: int, captured: int) -> int:
    """An Ethernet frame at `o`, on a wire or in a tunnel; the length of its header."""
    d.protocol = "ether"
    if length < captured:
        d.write(f"[length {length} < caplen {captured}] (invalid)")
        return length
    if captured < 14:
        d.mark()
        return captured
    b = d.buffer
    kind = b[o + 12] << 8 | b[o + 13]
    if d.link:
        d.write(_addresses(d, o))
    p = o + 14
    full = length
    length -= 14
    captured -= 14
    told = False
    if kind == _MACSEC:
        return _unknown(d, o, p, kind, full, captured)
    while kind in _TAGS:
        if captured < 4 or length < 4:
            d.protocol = "vlan"
            d.mark()
            return p - o + min(captured, length) if captured < 4 else p - o + length
        if d.link:
            d.write(f"{_type(d, kind)}, " if told else f"{_type(d, kind)}, length {full}: ")
            d.write(f"{_vlan(u16(b, p))}, ")
            told = True
        kind = u16(b, p + 2)
        p += 4
        length -= 4
        captured -= 4
    if kind <= MOST_LENGTH:
        return _length_field(d, o, p, kind, length, captured, told)
    if kind == _JUMBO:
        return p - o + _llc(d, p, length, captured, o)
    if d.link:
        d.write(f"{_type(d, kind)}, " if told else f"{_type(d, kind)}, length {full}: ")
    printer = d.tables.ethertypes.get(kind)
    if printer is not None:
        printer(d, p, length, captured, o)
        return p - o
    if not d.link:
        d.write(f"{_addresses(d, o)}{_type(d, kind)}, length {full}: ")
    d.raw(p, captured)
    return p - o


def _unknown(d: Dissector, o: int, p: int, kind: int, full: int, captured: int) -> int:
    if d.link:
        d.write(f"{_type(d, kind)}, length {full}: ")
    else:
        d.write(f"{_addresses(d, o)}{_type(d, kind)}, length {full}: ")
    d.raw(p, captured)
    return p - o


def _length_field(d: Dissector, o: int, p: int, kind: int, length: int, captured: int, told: bool) -> int:
    """802.3: the field is the length of what follows, and LLC follows."""
    if kind < length:
        length = kind
        captured = min(captured, length)
    before = d.cut(p + length)
    if d.link:
        d.write("802.3" if told else f"802.3, length {length}: ")
    header = _llc(d, p, length, captured, o)
    d.buffer = before
    return p - o + header


def _llc(d: Dissector, p: int, length: int, captured: int, ether: int) -> int:
    header = d.tables.llc(d, p, length, captured, ether)
    if header < 0:
        d.raw(p, captured)
    return abs(header)


def _cooked_type(d: Dissector, kind: int, length: int) -> str:
    if d.quiet:
        return ""
    if kind > MOST_LENGTH:
        said = f"ethertype {ETHERTYPES.get(kind, 'Unknown')} (0x{kind:04x})"
    else:
        said = {1: "802.3", 4: "802.2"}.get(kind, f"ethertype Unknown (0x{kind:04x})")
    return f"{said}, length {length}: "


def cooked(d: Dissector, data: bytes, length: int, captured: int) -> int:
    """DLT_LINUX_SLL: the header that a capture of several devices has."""
    d.protocol = "sll"
    d.need(0, 16)
    packet_type, _, address_length, address, kind = struct.unpack_from(">HHH8sH", data)

    def header(length: int) -> str:
        d.protocol = "sll"
        mac = f"{d.mac[address[:6]]} " if address_length == 6 else ""
        return f"{_PACKET_TYPES.get(packet_type, '?'):>3} {mac}{_cooked_type(d, kind, length)}"

    if d.link:
        d.write(header(length))
    return 16 + _after_cooked(d, 16, kind, length - 16, captured - 16, header, 16)


def cooked2(d: Dissector, data: bytes, length: int, captured: int) -> int:
    """DLT_LINUX_SLL2: the same, with the device."""
    d.protocol = "sll2"
    d.need(0, 20)
    kind, _, index, _, packet_type, address_length, address = struct.unpack_from(">HHIHBB8s", data)

    def header(length: int) -> str:
        d.protocol = "sll2"
        mac = f"{d.mac[address[:6]]} " if address_length == 6 else ""
        return f"ifindex {index} {mac}{_cooked_type(d, kind, length)}"

    d.write(f"{d.interfaces.get(index, '?'):<5} {_PACKET_TYPES.get(packet_type, '?'):<3} ")
    if d.link:
        d.write(header(length))
    return 20 + _after_cooked(d, 20, kind, length - 20, captured - 20, header, 20)


def _after_cooked(
    d: Dissector, p: int, kind: int, length: int, captured: int, header: Callable[[int], str], size: int
) -> int:
    start = p
    while True:
        if kind <= MOST_LENGTH:
            if kind == 4:
                llc = d.tables.llc(d, p, length, captured, -1)
                if llc >= 0:
                    return p - start + llc
            d.raw(p, captured)
            return p - start
        if kind != 0x8100:
            break
        if captured < 4:
            d.protocol = "vlan"
            d.mark()
            return p - start + captured
        if d.link:
            d.write(f"{_vlan(u16(d.buffer, p))}, ")
        kind = u16(d.buffer, p + 2)
        if kind <= MOST_LENGTH:
            kind = 4
        if not d.quiet:
            d.write(f"ethertype {ETHERTYPES.get(kind, 'Unknown')}, ")
        p += 4
        length -= 4
        captured -= 4
    printer = d.tables.ethertypes.get(kind)
    if printer is not None:
        printer(d, p, length, captured, -1)
        return p - start
    if not d.link:
        d.write(header(length + size))
    d.raw(p, captured)
    return p - start


def null(d: Dissector, data: bytes, length: int, captured: int) -> int:
    """DLT_NULL and DLT_LOOP: an address family in the byte order of the host that captured."""
    d.protocol = "null"
    d.need(0, 4)
    family = int.from_bytes(data[:4], "little")
    if family & 0xFFFF0000:
        family = u32(data, 0)

    def header(length: int) -> str:
        if d.quiet:
            return f"{word(_FAMILIES, family, 'Unknown AF %u')}, length {length}: "
        return f"AF {_FAMILIES.get(family, 'Unknown')} ({family}), length {length}: "

    if d.link:
        d.write(header(length))
    kind = {2: 0x0800, 24: 0x86DD, 28: 0x86DD, 30: 0x86DD}.get(family)
    if kind is not None:
        d.tables.ethertypes[kind](d, 4, length - 4, captured - 4, -1)
        return 4
    if not d.link:
        d.write(header(length))
    d.raw(4, captured - 4)
    return 4


def raw_ip(d: Dissector, data: bytes, length: int, captured: int) -> int:
    """DLT_RAW, DLT_IPV4, DLT_IPV6: the packet starts with its IP header."""
    d.protocol = "raw"
    if d.link:
        d.write("ip: ")
    any_ip(d, 0, length)
    return 0


def any_ip(d: Dissector, o: int, length: int) -> None:
    """IPv4 or IPv6, whatever the first byte says."""
    d.protocol = "ipn"
    if length < 1:
        d.write(f"truncated-ip {length}")
        return
    version = d.buffer[o] >> 4
    if version in (4, 6):
        d.tables.ethertypes[0x0800 if version == 4 else 0x86DD](d, o, length, length, -1)
    else:
        d.write(f"unknown ip {version}")


def unsupported(d: Dissector, data: bytes, length: int, captured: int) -> int:
    """Any other link."""
    d.protocol = "unsupported"
    d.write("UNSUPPORTED" + hex_and_ascii(data))
    return 0
