"""Runs in: the decoder, confined; pure. LLDP (IEEE 802.1AB): what a switch says of itself. Organizations' own parts: lldp_private.py."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, Truncated, bits, shown, take, u16, u24, u32, word
from bunri.apps.dump.decode.lldp_private import PRINTERS

_END, _CHASSIS, _PORT, _TTL, _PORT_DESCRIPTION, _NAME, _DESCRIPTION, _CAPABILITIES, _ADDRESS, _PRIVATE = *range(9), 127
_TYPES = {
    0: "End", 1: "Chassis ID", 2: "Port ID", 3: "Time to Live", 4: "Port Description", 5: "System Name",
    6: "System Description", 7: "System Capabilities", 8: "Management Address", 127: "Organization specific",
}  # fmt: skip
_CHASSIS_KINDS = {
    1: "Chassis component", 2: "Interface alias", 3: "Port component", 4: "MAC address", 5: "Network address",
    6: "Interface name", 7: "Local",
}  # fmt: skip
_PORT_KINDS = {
    1: "Interface alias", 2: "Port component", 3: "MAC address", 4: "Network Address", 5: "Interface Name",
    6: "Agent circuit ID", 7: "Local",
}  # fmt: skip
_ABILITIES = (
    (1, "Other"), (2, "Repeater"), (4, "Bridge"), (8, "WLAN AP"), (16, "Router"), (32, "Telephone"), (64, "Docsis"),
    (128, "Station Only"),
)  # fmt: skip
_NUMBERINGS = {2: "Interface Index", 3: "System Port Number"}
_FAMILIES = {
    0: "Reserved", 1: "IPv4", 2: "IPv6", 3: "NSAP", 4: "HDLC", 5: "BBN 1822", 6: "802", 7: "E.163", 8: "E.164",
    9: "F.69", 10: "X.121", 11: "Novell IPX", 12: "Appletalk", 13: "Decnet IV", 14: "Banyan Vines",
    15: "E.164 with NSAP subaddress", 25: "VPLS", 196: "Layer-2 VPN",
}  # fmt: skip
_ORGANIZATIONS = {
    0x000000: "Ethernet", 0x00000C: "Cisco", 0x00005E: "IANA", 0x000081: "Nortel Networks SONMP",
    0x0000F8: "Cisco bridged", 0x0080C2: "Ethernet bridged", 0x00A03E: "ATM Forum", 0x00E02F: "DOCSIS Spanning Tree",
    0x080007: "Appletalk", 0x009069: "Juniper", 0x080009: "Hewlett-Packard", 0x00120F: "IEEE 802.3 Private",
    0x0012BB: "ANSI/TIA", 0x001B21: "DCBX", 0x002320: "Nicira Networks", 0x5C16C7: "Big Switch Networks",
    0xB0D2F5: "Vello Systems", 0x002481: "HP", 0x0004EA: "HP-Labs", 0x748771: "Infoblox Inc",
    0xA42305: "Open Networking Lab", 0x00049F: "Freescale", 0x0015AD: "Netronome", 0x001018: "Broadcom",
    0x00E004: "PMC-Sierra", 0xD0F0DB: "Ericsson",
}  # fmt: skip


def lldp(d: Dissector, o: int, length: int, captured: int, ether: int) -> None:
    """The parts of a message, each with a type and a length. Without -v the system's name only."""
    d.protocol = "lldp"
    d.write(f"LLDP, length {length}")
    try:
        _parts(d, o, length)
    except Truncated:
        d.mark()


def _parts(d: Dissector, o: int, length: int) -> None:
    while length >= 2:
        d.need(o, 2)
        head = u16(d.buffer, o)
        kind, size = head >> 9, head & 0x1FF
        o += 2
        length -= 2
        if d.verbose:
            d.write(f"\n\t{_TYPES.get(kind, 'Unknown')} TLV ({kind}), length {size}")
        if kind == _END or size == 0:
            return
        d.need(o, size)
        if length < size:
            d.end()
        raw = True
        if kind == _NAME:
            d.write(": ")
            raw = text(d, o, size)
        elif (d.verbose and _END < kind <= _ADDRESS) or kind == _PRIVATE:
            raw = bool(d.verbose) and _part(d, kind, o, size)
        if d.verbose > 1 or (d.verbose and raw):
            d.unknown(o, "\n\t  ", size)
        o += size
        length -= size


def text(d: Dissector, o: int, size: int) -> bool:
    """Text up to a zero byte. False: nothing of it is left to be dumped."""
    piece = d.buffer[o : o + size]
    whole, zero, _ = piece.partition(b"\0")
    d.write(shown(whole))
    if not zero and len(piece) < size:
        raise Truncated
    return False


def _part(d: Dissector, kind: int, o: int, size: int) -> bool:
    """What -v says of a part; whether its bytes are to be dumped, since nothing is known of it."""
    b = d.buffer
    w = d.write
    if size < {_CHASSIS: 2, _PORT: 2, _TTL: 2, _CAPABILITIES: 4, _PRIVATE: 3}.get(kind, 0):
        raise Truncated
    if kind == _CHASSIS:
        w(f"\n\t  Subtype {_CHASSIS_KINDS.get(b[o], 'Unknown')} ({b[o]}): ")
        return _identity(d, {4: "mac", 5: "network", 1: "text", 2: "text", 3: "text", 6: "text", 7: "text"}, o, size)
    if kind == _PORT:
        w(f"\n\t  Subtype {_PORT_KINDS.get(b[o], 'Unknown')} ({b[o]}): ")
        return _identity(d, {3: "mac", 4: "network", 1: "text", 2: "text", 5: "text", 6: "text", 7: "text"}, o, size)
    if kind == _TTL:
        w(f": TTL {u16(b, o)}s")
    elif kind == _PORT_DESCRIPTION:
        w(": ")
        text(d, o, size)
    elif kind == _DESCRIPTION:
        w("\n\t  ")
        text(d, o, size)
    elif kind == _CAPABILITIES:
        has, uses = u16(b, o), u16(b, o + 2)
        w(f"\n\t  System  Capabilities [{bits(_ABILITIES, has, 'none')}] (0x{has:04x})")
        w(f"\n\t  Enabled Capabilities [{bits(_ABILITIES, uses, 'none')}] (0x{uses:04x})")
    elif kind == _ADDRESS:
        _management(d, o, size)
    else:
        organization = u24(b, o)
        w(f": OUI {word(_ORGANIZATIONS, organization, 'Unknown')} (0x{organization:06x})")
        printer = PRINTERS.get(organization)
        return printer is None or printer(d, o, size)
    return False


def _identity(d: Dissector, kinds: dict[int, str], o: int, size: int) -> bool:
    kind = kinds.get(d.buffer[o])
    if kind == "mac":
        if size < 7:
            raise Truncated
        d.write(d.mac[take(d.buffer, o + 1, 6)])
    elif kind == "network":
        d.write(_network(d, o + 1, size - 1))
    elif kind == "text":
        text(d, o + 1, size - 1)
    return kind is None


def _network(d: Dissector, o: int, size: int) -> str:
    """An address of any family."""
    if size < 1:
        raise Truncated
    family = d.buffer[o]
    said = f"AFI {_FAMILIES.get(family, 'Unknown')} ({family})"
    wide = {1: 4, 2: 16, 6: 6}.get(family)
    if wide is None:
        return f"{said}, no AF printer !"
    if size - 1 < wide:
        raise Truncated
    address = take(d.buffer, o + 1, wide)
    return f"{said}: {d.ip4[address] if family == 1 else d.ip6[address] if family == 2 else d.mac[address]}"


def _management(d: Dissector, o: int, size: int) -> None:
    b = d.buffer
    long = b[o]
    o += 1
    size -= 1
    if size < long:
        raise Truncated
    d.write(f"\n\t  Management Address length {long}, {_network(d, o, long)}")
    o += long
    size -= long
    if size < 5:
        raise Truncated
    d.write(f"\n\t  {_NUMBERINGS.get(b[o], 'Unknown')} Interface Numbering ({b[o]}): {u32(b, o + 1)}")
    o += 5
    size -= 5
    if size:
        if size < 1 + b[o]:
            raise Truncated
        if b[o]:
            d.write(f"\n\t  OID length {b[o]}")
            text(d, o + 1, b[o])
