"""Runs in: the decoder, confined; pure. IPv6 (RFC 8200) and its extension headers."""

from __future__ import annotations

import struct

from bunri.apps.dump.decode.core import Dissector, take, u16, u32, word
from bunri.apps.dump.decode.ip4 import carried, requires
from bunri.apps.dump.decode.mobility import mobility
from bunri.apps.dump.decode.numbers import IP_PROTOCOLS

_HEADER = struct.Struct(">IHBB16s16s").unpack_from
_WITH_PORTS = frozenset({6, 17, 132, 33})
_HOPS, _ROUTING, _FRAGMENT, _TARGET, _MOBILITY_OLD, _MOBILITY = 0, 43, 44, 60, 62, 135


def ip6_frame(d: Dissector, o: int, length: int, captured: int, ether: int) -> None:
    """As the payload of a link."""
    ip6(d, o, length)


def tunnel6(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """IPv6 inside of IP."""
    ip6(d, o, length)


def ethernet6(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """A frame inside of IPv6 (RFC 8986)."""
    if version == 6:
        d.tables.ether(d, o, length, len(d.buffer) - o)
    else:
        d.write(requires(6, 143, version))


def ip6(d: Dissector, o: int, length: int) -> None:
    """An IPv6 packet at `o`, of which the layer below says that it has `length` bytes."""
    d.protocol = "ip6"
    b = d.buffer
    w = d.write
    if o + 40 > len(b):
        d.mark()
        return
    if length < 40:
        w(f"truncated-ip6 {length}")
        return
    if not d.link:
        w("IP6 ")
    flow, payload, following, hops, source, target = _HEADER(b, o)
    if flow >> 28 != 6:
        w(f"version error: {flow >> 28} != 6")
        return
    size = length + 40
    if payload:
        size = payload + 40
        if length < size:
            w(f"truncated-ip6 - {size - length} bytes missing!")
    if d.verbose:
        kind = f"class 0x{flow >> 20 & 255:02x}, " if flow & 0x0FF00000 else ""
        label = f"flowlabel 0x{flow & 0xFFFFF:05x}, " if flow & 0xFFFFF else ""
        w(
            f"({kind}{label}hlim {hops}, next-header {word(IP_PROTOCOLS, following, 'unknown')} ({following}) "
            f"payload length: {payload}) "
        )
    if len(b) > o + size:
        d.buffer = b[: o + size]
    if following not in _WITH_PORTS:
        w(f"{d.ip6[source]} > {d.ip6[target]}: ")
    _headers(d, o, following, size, payload, length, hops, b)
    d.buffer = b


def _headers(
    d: Dissector, o: int, following: int, size: int, payload: int, length: int, hops: int, whole: bytes
) -> None:
    """One extension header after the other, then what the packet carries."""
    w = d.write
    p = o
    step = 40
    passed = 0
    jumbo = extended = fragmented = hop_options = False
    while p < len(d.buffer) and step > 0:
        if size < step:
            d.mark()
            return
        p += step
        size -= step
        passed += step
        if following == _HOPS:
            if hop_options:
                w("[The Hop-by-Hop Options header was already found] (invalid)")
                return
            if extended:
                w("[The Hop-by-Hop Options header don't follow the IPv6 header] (invalid)")
                return
            step, told = _hop_options(d, p, payload)
            if told:
                jumbo, payload = True, told
            if payload == 0 and not jumbo:
                w("[No valid Jumbo Payload Hop-by-Hop option found] (invalid)")
                return
            hop_options = True
        elif following == _TARGET:
            step = _target_options(d, p)
        elif following == _FRAGMENT:
            step = _fragment(d, p, o)
            if step < 0 or len(d.buffer) <= p + step:
                return
            fragmented = True
        elif following in (_MOBILITY, _MOBILITY_OLD):
            mobility(d, p)
            return
        elif following == _ROUTING:
            if not d.has(p, 1):
                d.mark()
                return
            step = _routing(d, p)
        else:
            if jumbo:
                size = payload + 40
                if size < passed:
                    d.mark()
                    return
                if length < size:
                    w(f"truncated-ip6 - {size - length} bytes missing!")
                d.buffer = whole[: o + size]
                size -= passed
            elif payload == 0:
                if extended:
                    d.mark()
                    return
                size = 0
                d.buffer = whole[: o + 40]
            carried(d, p, size, 6, fragmented, hops, following, o)
            return
        if step < 0:
            return
        extended = True
        following = d.buffer[p]
        d.protocol = "ip6"


def _hop_options(d: Dissector, p: int, payload: int) -> tuple[int, int]:
    """The length of the header, negative where it is bad; and the length of a jumbogram."""
    d.protocol = "hbhopt"
    size = (d.buffer[p + 1] + 1) << 3
    if not d.has(p, size):
        d.mark()
        return -1, 0
    d.write("HBH ")
    good, jumbo = _options(d, p + 2, size - 2, payload)
    if not good:
        d.mark()
        return -1, jumbo
    return size, jumbo


def _target_options(d: Dissector, p: int) -> int:
    d.protocol = "dstopt"
    size = (d.buffer[p + 1] + 1) << 3
    if not d.has(p, size):
        d.mark()
        return -1
    d.write("DSTOPT ")
    if d.verbose and not _options(d, p + 2, size - 2, None)[0]:
        d.mark()
        return -1
    return size


def _options(d: Dissector, o: int, length: int, payload: int | None) -> tuple[bool, int]:
    """Whether the options are whole; and the length that a Jumbo option gave. `payload` is None for target options."""
    b = d.buffer
    say = d.write if d.verbose else _nothing
    found = False
    jumbo = at = 0
    if length == 0:
        return True, 0
    while at < length:
        kind = b[o + at]
        if kind == 0:
            say("(pad1)")
            at += 1
            continue
        if at + 1 >= length:
            return False, jumbo
        given = b[o + at + 1]
        if at + given + 2 > length:
            return False, jumbo
        left = length - at
        if kind == 1:
            say("(padn)")
        elif kind == 5:
            if left < 4 or given != 2:
                d.write("(rtalert: trunc)" if left < 4 else f"(rtalert: invalid len {given})")
                return False, jumbo
            say(f"(rtalert: 0x{u16(b, o + at + 2):04x}) ")
        elif kind == 0xC2:
            if left < 6 or given != 4:
                d.write("(jumbo: trunc)" if left < 6 else f"(jumbo: invalid len {given})")
                return False, jumbo
            size = u32(b, o + at + 2)
            problem = _jumbo_problem(size, found, jumbo or payload)
            found = True
            if not problem:
                jumbo = size
            say(f"(jumbo: {size}{problem}) ")
        elif kind == 0xC9:
            if left < 18 or given < 16:
                d.write("(homeaddr: trunc)" if left < 18 else f"(homeaddr: invalid len {given})")
                return False, jumbo
            if d.verbose:
                d.write(f"(homeaddr: {d.ip6[b[o + at + 2 : o + at + 18]]}")
                if given > 16 and not _sub_options(d, o + at + 18, given - 16):
                    return False, jumbo
                d.write(")")
        else:
            say(f"(opt_type 0x{kind:02x}: len={given})")
        at += given + 2
    say(" ")
    return True, jumbo


def _nothing(text: str) -> None:
    """Without -v."""


def _jumbo_problem(size: int, found: bool, payload: int | None) -> str:
    if found:
        return " - already seen"
    if payload is None:
        return " - not a hop-by-hop option"
    if payload:
        return " - payload len != 0"
    return " - < 65536" if size < 65536 else ""


def _sub_options(d: Dissector, o: int, length: int) -> bool:
    b = d.buffer
    at = 0
    while at < length:
        kind = b[o + at]
        if kind == 0:
            d.write(", pad1")
            at += 1
            continue
        if at + 1 >= length or at + b[o + at + 1] + 2 > length:
            return False
        d.write(", padn" if kind == 1 else f", sopt_type 0x{kind:02x}: len={b[o + at + 1]}")
        at += b[o + at + 1] + 2
    return True


def _fragment(d: Dissector, p: int, header: int) -> int:
    d.protocol = "frag6"
    b = d.buffer
    # tcpdump computes this as a size of memory: where headers claim more than the payload has, it wraps around.
    size = 40 + u16(b, header + 4) - (p - header) - 8 & 0xFFFFFFFFFFFFFFFF
    if d.verbose:
        d.write(f"frag (0x{u32(b, p + 4):08x}:{u16(b, p + 2) & 0xFFF8}|{size})")
    else:
        d.write(f"frag ({u16(b, p + 2) & 0xFFF8}|{size})")
    if u16(b, p + 2) & 0xFFF8:
        return -1
    d.write(" ")
    return 8


def _routing(d: Dissector, p: int) -> int:
    d.protocol = "rt6"
    b = d.buffer
    w = d.write
    w("RT6")
    length = b[p + 1]
    w(f" (len={length}")
    kind = b[p + 2]
    w(f", type={kind}{' [Deprecated]' if kind == 0 else ''}")
    w(f", segleft={b[p + 3]}")
    if kind in (0, 2):
        if u32(b, p + 4) or d.verbose:
            w(f", rsv=0x{u32(b, p + 4):0x}")
    elif kind == 4:
        w(f", last-entry={b[p + 4]}")
        if b[p + 5] or d.verbose:
            w(f", flags=0x{b[p + 5]:0x}")
        w(f", tag={u16(b, p + 6):x}")
    else:
        w(" (unknown type) (invalid)")
        return -1
    if length % 2:
        w(f" (invalid length {length}) (invalid)")
        return -1
    for index in range(length // 2):
        w(f", [{index}]{d.ip6[b[p + 8 + 16 * index : p + 24 + 16 * index]]}")
    w(") ")
    return (length + 1) << 3


def final_target(d: Dissector, header: int) -> bytes:
    """The address that the pseudo header takes: the last hop of a routing header, where there is one."""
    b = d.buffer
    following = b[header + 6]
    found = take(b, header + 24, 16)
    p = header
    step = 40
    while p < len(b):
        p += step
        if following in (_HOPS, _TARGET, _MOBILITY, _MOBILITY_OLD):
            step, following = (b[p + 1] + 1) << 3, b[p]
        elif following == _FRAGMENT:
            step, following = 8, b[p]
        elif following == _ROUTING:
            return _last_hop(d, p, found)
        else:
            break
    return found


def _last_hop(d: Dissector, p: int, found: bytes) -> bytes:
    b = d.buffer
    if not d.has(p, 4):
        return found
    length, kind = b[p + 1], b[p + 2]
    if length % 2:
        return found
    if kind in (0, 2):
        for index in range(length // 2):
            if not d.has(p + 8 + 16 * index, 16):
                break
            found = b[p + 8 + 16 * index : p + 24 + 16 * index]
    elif kind == 4 and d.has(p + 8, 16):
        found = b[p + 8 : p + 24]
    return found


def pseudo6(d: Dissector, header: int, length: int, protocol: int) -> bytes:
    """The pseudo header of a checksum over IPv6."""
    b = d.buffer
    extended = b[header + 6] in (_HOPS, _TARGET, _MOBILITY, _MOBILITY_OLD, _FRAGMENT, _ROUTING)
    target = final_target(d, header) if extended else take(b, header + 24, 16)
    return struct.pack(">16s16sIBBBB", take(b, header + 8, 16), target, length, 0, 0, 0, protocol)
