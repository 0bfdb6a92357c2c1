"""Runs in: the decoder, confined; pure. ARP and its relatives (RFC 826, 903, 2390)."""

from __future__ import annotations

from bunri.apps.dump.decode.addresses import hardware
from bunri.apps.dump.decode.core import Dissector, take, u16, word
from bunri.apps.dump.decode.numbers import ETHERTYPES

_HARDWARE = {
    1: "Ethernet", 6: "TokenRing", 7: "ArcNet", 15: "FrameRelay", 23: "Strip", 24: "IEEE 1394", 19: "ATM",
    32: "InfiniBand",
}  # fmt: skip
_OPERATIONS = {
    1: "Request", 2: "Reply", 3: "Reverse Request", 4: "Reverse Reply", 8: "Inverse Request", 9: "Inverse Reply",
    10: "NACK Reply",
}  # fmt: skip
_IP = (0x0800, 0x1000)
_FRAME_RELAY, _ATM = 15, 19


def arp(d: Dissector, o: int, length: int, captured: int, ether: int) -> None:
    """One ARP message."""
    d.protocol = "arp"
    b = d.buffer
    d.need(o, 8)
    kind, protocol, operation = u16(b, o), u16(b, o + 2), u16(b, o + 6)
    if kind == _ATM:
        _atm(d, o, length, captured)
        return
    hard, soft = b[o + 4], b[o + 5]
    p = o + 8
    d.need(p, 2 * (hard + soft))
    sender, source = b[p : p + hard], b[p + hard : p + hard + soft]
    target, to = b[p + hard + soft : p + 2 * hard + soft], b[p + 2 * hard + soft : p + 2 * (hard + soft)]
    w = d.write
    if not d.link:
        w("ARP, ")
    if protocol not in _IP or soft != 4 or hard == 0 or d.verbose:
        w(
            f"{word(_HARDWARE, kind, 'Unknown Hardware (%u)')} (len {hard}), "
            f"{word(ETHERTYPES, protocol, 'Unknown Protocol (0x%04x)')} (len {soft})"
        )
        if not d.verbose:
            w(f", length {length}")
            return
        w(", ")
    w(f"{word(_OPERATIONS, operation, 'Unknown (%u)')} ")

    def ip(address: bytes) -> str:
        if protocol not in _IP:
            return "<wrong proto type>"
        return d.ip4[address] if soft == 4 else "<wrong len>"

    def mac(address: bytes) -> str:
        if kind == _FRAME_RELAY and address:
            return _circuit(address)
        return d.mac[address] if hard == 6 else hardware(address)

    if operation == 1:
        asked = f" ({mac(target)})" if any(target) else ""
        w(f"who-has {ip(to)}{asked} tell {ip(source)}")
    elif operation == 2:
        w(f"{ip(source)} is-at {mac(sender)}")
    elif operation in (3, 8):
        w(f"who-is {mac(target)} tell {mac(sender)}")
    elif operation == 4:
        w(f"{mac(target)} at {ip(to)}")
    elif operation == 9:
        w(f"{mac(sender)} at {ip(source)}")
    else:
        d.dump(o, captured)
        return
    w(f", length {length}")


def _circuit(address: bytes) -> str:
    """Frame Relay's address (Q.922): the number of a circuit, in two to four bytes, of which the last is odd."""
    size = next((at for at, each in enumerate(address, 1) if each & 1), 0)
    if size == 1 or (not size and len(address) >= 4) or size > 4:
        return "<Invalid DLCI>"
    if not size:
        return "<Truncated>"
    number = (address[0] & 0xFC) << 2 | address[1] >> 4
    if size == 4:
        number = number << 7 | address[2] >> 1
    if size > 2:
        number = number << 6 | address[size - 1] >> 2
    return f"DLCI {number}"


def _atm(d: Dissector, o: int, length: int, captured: int) -> None:
    """ATM has two addresses on each side (RFC 2225)."""
    b = d.buffer
    d.need(o, 12)
    kind, protocol, operation = u16(b, o), u16(b, o + 2), u16(b, o + 6)
    lengths = [b[o + 4] & 0x3F, b[o + 5] & 0x3F, b[o + 8], b[o + 9] & 0x3F, b[o + 10] & 0x3F, b[o + 11]]
    d.need(o + 12, sum(lengths))
    fields: list[bytes] = []
    at = o + 12
    for size in lengths:
        fields.append(take(b, at, size))
        at += size
    sender, sender_sub, source, target, target_sub, to = fields
    w = d.write
    if not d.link:
        w("ARP, ")
    if protocol not in _IP or lengths[2] != 4 or lengths[5] != 4 or d.verbose:
        w(
            f"{word(_HARDWARE, kind, 'Unknown Hardware (%u)')}, "
            f"{word(ETHERTYPES, protocol, 'Unknown Protocol (0x%04x)')} (len {lengths[2]}/{lengths[5]})"
        )
        if not d.verbose:
            w(f", length {length}")
            return
        w(", ")
    w(f"{word(_OPERATIONS, operation, 'Unknown (%u)')} ")

    def ip(address: bytes, which: str) -> str:
        if protocol not in _IP:
            return "<wrong proto type>"
        return d.ip4[address] if len(address) == 4 else f"<wrong {which}len>"

    def atm(address: bytes, sub: bytes) -> str:
        if not address:
            return "<No address>"
        return hardware(address) + (f",{hardware(sub)}" if sub else "")

    if operation == 1:
        asked = f" ({atm(target, target_sub)})" if target else ""
        w(f"who-has {ip(to, 'tp')}{asked} tell {ip(source, 'sp')}")
    elif operation == 2:
        w(f"{ip(source, 'sp')} is-at {atm(sender, sender_sub)}")
    elif operation == 8:
        w(f"who-is {atm(target, target_sub)} tell {atm(sender, sender_sub)}")
    elif operation == 9:
        w(f"{atm(sender, sender_sub)}at {ip(source, 'sp')}")
    elif operation == 10:
        w(f"for {ip(source, 'sp')}")
    else:
        d.dump(o, captured)
        return
    w(f", length {length}")
