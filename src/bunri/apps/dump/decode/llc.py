"""Runs in: the decoder, confined; pure. 802.2 LLC and SNAP."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, u16, u24, word
from bunri.apps.dump.decode.numbers import ETHERTYPES
from bunri.apps.dump.decode.vendors import VENDORS

_POINTS = {
    0x00: "Null", 0xFF: "Global", 0x02: "802.1B I", 0x03: "802.1B G", 0x06: "IP", 0x04: "SNA", 0x0E: "ProWay NM",
    0x42: "STP", 0x4E: "RS511", 0x7E: "ISO8208", 0x8E: "ProWay", 0xAA: "SNAP", 0xE0: "IPX", 0xF0: "NetBeui",
    0xFE: "OSI",
}  # fmt: skip
_COMMANDS = {
    0x03: "ui", 0xE3: "test", 0xAF: "xid", 0x63: "ua", 0x43: "disc", 0x0F: "dm", 0x6F: "sabme", 0x87: "frmr",
}  # fmt: skip
_FLAGS = {0: "Command", 1: "Response", 0x10: "Poll", 0x11: "Final", 0x100: "Poll", 0x101: "Final"}
_SUPERVISORY = {0: "Receiver Ready", 1: "Receiver not Ready", 2: "Reject"}
_CISCO = {0x2000: "CDP", 0x2003: "VTP", 0x2004: "DTP", 0x0111: "UDLD", 0x010B: "PVST", 0x010C: "VLAN Bridge"}
_BRIDGED = {
    1: "Ethernet + FCS", 2: "802.4 + FCS", 3: "Token Ring + FCS", 4: "FDDI + FCS", 5: "802.6 + FCS",
    7: "Ethernet w/o FCS", 8: "802.4 w/o FCS", 9: "Token Ring w/o FCS", 10: "FDDI w/o FCS", 11: "802.6 w/o FCS",
    14: "BPDU",
}  # fmt: skip
_PROTOCOLS = {0x000000: ETHERTYPES, 0x0000F8: ETHERTYPES, 0x080007: ETHERTYPES, 0x00000C: _CISCO, 0x0080C2: _BRIDGED}
_STP, _IP, _SNAP, _UI, _XID = 0x42, 0x06, 0xAA, 0x03, 0xAF


def llc(d: Dissector, p: int, length: int, captured: int, ether: int) -> int:
    """An LLC frame; the header's length, negative where what follows is not known. `ether`: its Ethernet header."""
    d.protocol = "llc"
    b = d.buffer
    if captured < 3 or length < 3:
        d.mark()
        d.dump(p, captured)
        return captured if captured < 3 else length
    to, source, control = b[p], b[p + 1], b[p + 2]
    unnumbered = control & 3 == 3
    size = 3 if unnumbered else 4
    if not unnumbered:
        if captured < 4 or length < 4:
            d.mark()
            d.dump(p, captured)
            return captured if captured < 4 else length
        control |= b[p + 3] << 8
    dsap, ssap = to & 0xFE, source & 0xFE
    if d.link:
        digits = f"{control:02x}" if unnumbered else f"{control:04x}"
        d.write(
            f"LLC, dsap {_POINTS.get(dsap, 'Unknown')} (0x{dsap:02x}) {'Group' if to & 1 else 'Individual'}, "
            f"ssap {_POINTS.get(ssap, 'Unknown')} (0x{ssap:02x}) {_FLAGS[source & 1]}, ctrl 0x{digits}: "
        )
    p += size
    length -= size
    captured -= size
    if control == _UI and ssap == dsap:
        if ssap == _SNAP:
            return size + 5 if snap(d, p, length, captured, ether) else -(size + 5)
        known = d.tables.llc_points.get(ssap)
        if known is not None:
            known(d, p, length, captured, ether)
            return size
    if not d.link:
        d.write(_points(d, ssap, dsap, ether))
    if unnumbered:
        return _unnumbered(d, p, length, captured, source, control)
    flags = _FLAGS.get(source & 1 | control & 0x100, "?")
    if control & 3 == 1:
        kind = word(_SUPERVISORY, control >> 2 & 3, "?")
        d.write(f"Supervisory, {kind}, rcv seq {control >> 9 & 127}, Flags [{flags}], length {length + 4}")
        return size
    seen = f"send seq {control >> 1 & 127}, rcv seq {control >> 9 & 127}"
    d.write(f"Information, {seen}, Flags [{flags}], length {length + 4}")
    return -size


def _points(d: Dissector, ssap: int, dsap: int, ether: int) -> str:
    b = d.buffer
    to = word(_POINTS, dsap, "Unknown DSAP 0x%02x")
    source = "" if ssap == dsap else word(_POINTS, ssap, "Unknown SSAP 0x%02x")
    if ether < 0:
        return f"{source} > {to} " if source else f"{to} "
    sender, receiver = d.mac[b[ether + 6 : ether + 12]], d.mac[b[ether : ether + 6]]
    return f"{sender} {source} > {receiver} {to} " if source else f"{sender} > {receiver} {to} "


def _unnumbered(d: Dissector, p: int, length: int, captured: int, source: int, control: int) -> int:
    b = d.buffer
    flags = _FLAGS.get(source & 1 | control & 0x10, "?")
    d.write(f"Unnumbered, {word(_COMMANDS, control & 0xEF, '%02x')}, Flags [{flags}], length {length + 3}")
    if control & 0xEF == _XID:
        if length == 0:
            return 3
        if captured < 1:
            d.mark()
            return 3
        if b[p] == 0x81:
            if captured < 3 or length < 3:
                d.mark()
                d.dump(p, captured)
            else:
                d.write(f": {b[p + 1]:02x} {b[p + 2]:02x}")
            return 3
    return -3


def snap(d: Dissector, p: int, length: int, captured: int, ether: int) -> bool:
    """The protocol's number by the organisation that gave it; whether something printed it."""
    d.protocol = "snap"
    b = d.buffer
    if not d.has(p, 5) or captured < 5 or length < 5:
        d.mark()
        return True
    organisation, kind = u24(b, p), u16(b, p + 3)
    vendor = VENDORS.get(organisation, "Unknown")
    name = _PROTOCOLS.get(organisation, {}).get(kind, "Unknown")
    if d.link:
        what = "pid" if organisation else "ethertype"
        d.write(f"oui {vendor} (0x{organisation:06x}), {what} {name} (0x{kind:04x}), length {length - 5}: ")
    p += 5
    length -= 5
    captured -= 5
    ethernet = organisation in (0x000000, 0x0000F8)
    printer = d.tables.ethertypes.get(kind) if ethernet else d.tables.snap.get((organisation, kind))
    if printer is not None:
        printer(d, p, length, captured, ether)
        return True
    if not d.link:
        if ether >= 0:
            d.write(f"{d.mac[b[ether + 6 : ether + 12]]} > {d.mac[b[ether : ether + 6]]} ")
        if organisation == 0:
            d.write(f"SNAP, ethertype {name} (0x{kind:04x}), length {length}: ")
        else:
            d.write(f"SNAP, oui {vendor} (0x{organisation:06x}), pid {name} (0x{kind:04x}), length {length}: ")
    return False


def bridged(d: Dissector, p: int, length: int, captured: int, ether: int) -> None:
    """RFC 2684: an Ethernet frame behind two bytes of padding."""
    d.need(p, 2)
    d.tables.ether(d, p + 2, length - 2, captured - 2)
