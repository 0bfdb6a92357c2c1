"""Runs in: the decoder, confined; pure. IPv4 (RFC 791), and which protocol it carries."""

from __future__ import annotations

import struct

from bunri.apps.dump.decode.core import Dissector, bits, checksum, should_be, take, u16, u32, word
from bunri.apps.dump.decode.numbers import IP_PROTOCOLS, PROTOCOL_NAMES

_HEADER = struct.Struct(">BBHHHBBH4s4s").unpack_from
_WITH_PORTS = frozenset({6, 17, 132, 33})
_FLAGS = ((0x2000, "+"), (0x4000, "DF"), (0x8000, "rsvd"))
_CONGESTION = ("", ",ECT(1)", ",ECT(0)", ",CE")
_OPTIONS = {
    0: "EOL", 1: "NOP", 68: "timestamp", 130: "security", 7: "RR", 137: "SSRR", 131: "LSRR", 148: "RA",
    82: "traceroute",
}  # fmt: skip


def ip4_frame(d: Dissector, o: int, length: int, captured: int, ether: int) -> None:
    """As the payload of a link."""
    ip4(d, o, length)


def ip4(d: Dissector, o: int, length: int) -> None:
    """An IPv4 packet at `o`, of which the layer below says that it has `length` bytes."""
    d.protocol = "ip"
    b = d.buffer
    w = d.write
    if b[o] >> 4 != 4:
        version = b[o] >> 4
        w("IP6, wrong link-layer encapsulation (invalid)" if version == 6 else f"IP{version} (invalid)")
        return
    if not d.link:
        w("IP ")
    if o + 20 > len(b):
        d.mark()
        return
    if length < 20:
        w(f"truncated-ip {length}")
        return
    first, service, total, ident, offset, ttl, protocol, stored, source, target = _HEADER(b, o)
    header = (first & 15) << 2
    if header < 20:
        w(f"bad-hlen {header}")
        return
    size = total
    if length < size:
        w(f"truncated-ip - {size - length} bytes missing! ")
    if size < header:
        w(f"bad-len {size}")
        return
    before = b
    if len(b) > o + size:
        d.buffer = b[: o + size]
    size -= header
    if d.verbose and not _verbose(d, o, header, service, ttl, ident, offset, protocol, total, stored):
        w(f"{d.ip4[source]} > {d.ip4[target]}: ")
        d.mark()
        d.buffer = before
        return
    if offset & 0x1FFF == 0:
        if protocol not in _WITH_PORTS:
            w(f"{d.ip4[source]} > {d.ip4[target]}: ")
        if o + header > len(d.buffer):
            w(f" [remaining caplen({len(d.buffer) - o}) < header length({header})]")
            d.end()
        carried(d, o + header, size, 4, bool(offset & 0x2000), ttl, protocol, o)
    elif d.quiet <= 1:
        name = PROTOCOL_NAMES.get(protocol) if not d.numeric else None
        w(f"{d.ip4[source]} > {d.ip4[target]}: {name or f'ip-proto-{protocol}'}")
    d.buffer = before


def _verbose(
    d: Dissector,
    o: int,
    header: int,
    service: int,
    ttl: int,
    ident: int,
    offset: int,
    protocol: int,
    total: int,
    stored: int,
) -> bool:
    """What -v adds in front; False where the options were cut short."""
    w = d.write
    lives = f", ttl {ttl}" if ttl else ""
    w(
        f"(tos 0x{service:x}{_CONGESTION[service & 3]}{lives}, id {ident}, offset {(offset & 0x1FFF) * 8}, "
        f"flags [{bits(_FLAGS, offset, 'none')}], proto {word(IP_PROTOCOLS, protocol, 'unknown')} ({protocol}), "
        f"length {total}"
    )
    whole = True
    if header > 20:
        w(", options (")
        whole = _options(d, o + 20, header - 20)
        w(")" if whole else " [truncated-option])")
    b = d.buffer
    if d.checked and o + header <= len(b):
        computed = checksum(b[o : o + header])
        if computed:
            w(f", bad cksum {stored:x} (->{should_be(stored, computed):x})!")
    w(")\n    ")
    return whole


def _options(d: Dissector, o: int, length: int) -> bool:
    b = d.buffer
    w = d.write
    separator = ""
    while length > 0:
        w(separator)
        separator = ","
        code = b[o]
        w(word(_OPTIONS, code, "unknown %u"))
        size = 1 if code in (0, 1) else b[o + 1]
        if (code > 1 and size < 2) or size > length:
            w(f" [bad length {size}]")
            return True
        if not d.has(o, size):
            return False
        if code == 0:
            return True
        if code == 68:
            if not _timestamps(d, o, size):
                return False
        elif code in (7, 131, 137):
            if not _route(d, o, size):
                return False
        elif code == 148:
            if size < 4:
                w(f" [bad length {size}]")
            elif u16(b, o + 2):
                w(f" value {u16(b, o + 2)}")
        o += size
        length -= size
    return True


def _route(d: Dissector, o: int, length: int) -> bool:
    b = d.buffer
    if length < 3:
        d.write(f" [bad length {length}]")
        return True
    if length + 1 & 3:
        d.write(f" [bad length {length}]")
    at = b[o + 2] - 1 & 0xFFFFFFFF  # as tcpdump computes it: 0 is a very large one
    if at < 3 or at + 1 & 3 or at > length + 1:
        d.write(f" [bad ptr {b[o + 2]}]")
    for each in range(3, length, 4):
        if not d.has(o + each, 4):
            return False
        d.write(f" {d.ip4[b[o + each : o + each + 4]]}{',' if at > each else ''}")
    return True


def _timestamps(d: Dissector, o: int, length: int) -> bool:
    b = d.buffer
    w = d.write
    if length < 4:
        w(f"[bad length {length}]")
        return True
    w(" TS{")
    kind = b[o + 3] & 15
    hop = 8 if kind else 4
    if length - 4 & hop - 1:
        w(f"[bad length {length}]")
    at = b[o + 2] - 1 & 0xFFFFFFFF  # as tcpdump computes it: 0 is a very large one
    if at < 4 or at - 4 & hop - 1 or at > length + 1:
        w(f"[bad ptr {b[o + 2]}]")
    name = {0: "TSONLY", 1: "TS+ADDR", 3: "PRESPEC"}.get(kind)
    each = 0
    if name is None:
        w(f"[bad ts type {kind}]")
    else:
        w(name)
        each = 4
        while each < length:
            if not d.has(o + each, hop):
                return False
            address = d.ip4[b[o + each : o + each + 4]] if hop == 8 else ""
            w(f"{' ^ ' if at == each else ' '}{u32(b, o + each + hop - 4)}@{address}")
            each += hop
    if at == each:
        w(" ^ ")
    missed = b[o + 3] >> 4
    w(f" [{missed} hops not recorded]}} " if missed else "}")
    return True


def carried(
    d: Dissector, o: int, length: int, version: int, fragmented: bool, ttl: int, protocol: int, header: int
) -> None:
    """What an IP packet carries, at `o`. `header` is where the IP header is: checksums and addresses need it."""
    printer = d.tables.ip.get(protocol)
    if printer is not None:
        printer(d, o, length, header, fragmented, version, ttl)
        return
    name = PROTOCOL_NAMES.get(protocol) if not d.numeric else None
    d.write(f" {name or f'ip-proto-{protocol}'} {length}")


def requires(version: int, protocol: int, found: int) -> str:
    """A protocol of one version of IP inside of the other; empty where it is at home."""
    if version == found:
        return ""
    return f"[{IP_PROTOCOLS.get(protocol, 'unknown')} requires IPv{version}] (invalid)"


def tunnel4(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """IPv4 inside of IP."""
    ip4(d, o, length)


def no_next(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """Protocol 59."""
    d.write("no next header")


def sun_nd(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """Protocol 77."""
    d.write(f" nd {length}")


def final_target(d: Dissector, header: int) -> bytes:
    """The address that the pseudo header takes: the last hop of a source route, where there is one."""
    b = d.buffer
    size = ((b[header] & 15) << 2) - 20
    at = header + 20
    while size > 0:
        code = b[at]
        if code == 0:
            break
        step = 1
        if code != 1:
            step = b[at + 1]
            if step < 2:
                break
        if size < step or not d.has(at, step):
            break
        if code in (131, 137) and step >= 7:
            return take(b, at + step - 4, 4)
        at += step
        size -= step
    return take(b, header + 16, 4)


def pseudo4(d: Dissector, header: int, length: int, protocol: int) -> bytes:
    """The pseudo header of a checksum over IPv4."""
    b = d.buffer
    target = b[header + 16 : header + 20] if b[header] & 15 == 5 else final_target(d, header)
    return struct.pack(">4s4sBBH", take(b, header + 12, 4), target, 0, protocol, length & 0xFFFF)
