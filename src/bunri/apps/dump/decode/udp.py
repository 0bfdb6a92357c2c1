"""Runs in: the decoder, confined; pure. UDP (RFC 768), and what it carries by port."""

from __future__ import annotations

import struct

from bunri.apps.dump.decode.core import Dissector, checksum, should_be, u16
from bunri.apps.dump.decode.ip4 import pseudo4
from bunri.apps.dump.decode.ip6 import pseudo6

_HEADER = struct.Struct(">HHHH").unpack_from


def udp(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """A datagram at `o`."""
    d.protocol = "udp"
    b = d.buffer
    w = d.write
    if b[header] >> 4 == 6:
        own = b[header + 6] == 17
        addresses = b[header + 8 : header + 40]
    else:
        own = b[header + 9] == 17
        addresses = b[header + 12 : header + 20]
    if o + 8 > len(b):
        _short(d, o, length, addresses, own)
        return
    sport, dport, size, stored = _HEADER(b, o)
    if own:
        source, target = d.ends(addresses)
        w(f"{source}.{d.udp_ports[sport]} > {target}.{d.udp_ports[dport]}: ")
    else:
        w(f"{d.udp_ports[sport]} > {d.udp_ports[dport]}: ")
    if length < 8:
        w(f"truncated-udp {length}")
        return
    if size == 0 and length > 65535:
        size = length  # a jumbogram
    if size < 8:
        w(f"truncated-udplength {size}")
        return
    size -= 8
    length = min(length - 8, size)
    p = o + 8
    if d.type:
        printer = d.tables.types.get(d.type)
        if printer is not None:
            printer(d, p, length)
        return
    if d.verbose and d.checked and not fragmented:
        _checksum(d, o, length, header, stored)
    ports = d.tables.udp_ports
    if not d.quiet and (sport in ports or dport in ports):
        carried(d, p, length, sport, dport)
        return
    if size > length and not fragmented:
        w(f"UDP, bad length {size} > {length}")
    else:
        w(f"UDP, length {size}")


def carried(d: Dissector, o: int, length: int, sport: int, dport: int) -> None:
    """What a datagram carries, where one of its ports is known."""
    for port in d.tables.udp_order:
        if port in (sport, dport):
            d.tables.udp_ports[port](d, o, length)
            return


def _short(d: Dissector, o: int, length: int, addresses: bytes, own: bool) -> None:
    """Fewer bytes than a header."""
    b = d.buffer
    source, target = d.ends(addresses)
    if o + 4 > len(b):
        d.write(f"{source} > {target}: " if own else "")
        d.mark()
        return
    sport, dport = d.udp_ports[u16(b, o)], d.udp_ports[u16(b, o + 2)]
    d.write(f"{source}.{sport} > {target}.{dport}: " if own else f"{sport} > {dport}: ")
    if length < 8:
        d.write(f"truncated-udp {length}")
    elif o + 6 <= len(b) and u16(b, o + 4) < 8 and not (u16(b, o + 4) == 0 and length > 65535):
        d.write(f"truncated-udplength {u16(b, o + 4)}")
    else:
        d.mark()


def _checksum(d: Dissector, o: int, length: int, header: int, stored: int) -> None:
    b = d.buffer
    six = b[header] >> 4 == 6
    if not six and d.verbose < 2:
        return
    if not six and stored == 0:
        d.write("[no cksum] ")
        return
    if not d.has(o + 8, length):
        return
    pseudo = pseudo6(d, header, length + 8, 17) if six else pseudo4(d, header, length + 8, 17)
    computed = checksum(pseudo, b[o : o + length + 8])
    if computed:
        d.write(f"[bad udp cksum 0x{stored:04x} -> 0x{should_be(stored, computed):04x}!] ")
    else:
        d.write("[udp sum ok] ")
