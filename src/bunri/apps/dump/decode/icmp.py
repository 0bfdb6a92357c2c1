"""Runs in: the decoder, confined; pure. ICMP for IPv4 (RFC 792, 1191, 4884)."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, checksum, should_be, u16, u32, word
from bunri.apps.dump.decode.ip4 import ip4, requires

_UNREACHABLE = {
    0: "net %s unreachable", 1: "host %s unreachable", 5: "%s unreachable - source route failed",
    6: "net %s unreachable - unknown", 7: "host %s unreachable - unknown",
    8: "%s unreachable - source host isolated", 9: "net %s unreachable - admin prohibited",
    10: "host %s unreachable - admin prohibited", 11: "net %s unreachable - tos prohibited",
    12: "host %s unreachable - tos prohibited", 13: "host %s unreachable - admin prohibited filter",
    14: "host %s unreachable - host precedence violation", 15: "host %s unreachable - precedence cutoff",
}  # fmt: skip
_REDIRECT = {
    0: "redirect %s to net %s", 1: "redirect %s to host %s", 2: "redirect-tos %s to net %s",
    3: "redirect-tos %s to host %s",
}  # fmt: skip
_OTHERS = {
    0: "echo reply", 4: "source quench", 8: "echo request", 10: "router solicitation", 13: "time stamp request",
    14: "time stamp reply", 15: "information request", 16: "information reply", 17: "address mask request",
}  # fmt: skip
_ERRORS = frozenset({3, 4, 5, 11, 12})
_EXTENDED = frozenset({3, 11, 12})
_OBJECTS = {1: "MPLS Stack Entry", 2: "Interface Identification"}
_PLAIN = 136  # bytes of a message whose extensions, if there are any, follow


def icmp(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """A message at `o`."""
    if version != 4:
        d.write(requires(4, 1, version))
        return
    d.protocol = "icmp"
    b = d.buffer
    w = d.write
    kind, code = b[o], b[o + 1]
    said = _said(d, o, kind, code)
    if said is None:
        d.mark()
        return
    w(f"ICMP {said}, length {length}")
    if not d.verbose:
        return
    if not fragmented and d.has(o, length):
        computed = checksum(b[o : o + length])
        if computed:
            stored = u16(b, o + 2)
            w(f" (wrong icmp cksum {stored:x} (->{should_be(stored, computed):x})!)")
    if kind in _ERRORS:
        w("\n\t")
        size = u16(b, o + 10)
        before = d.cut(o + 8 + size)
        d.need(o + 10, 2)  # tcpdump reads the length again when the packet is cut to it
        ip4(d, o + 8, size)
        d.buffer = before
    d.protocol = "icmp"
    if length > _PLAIN and kind in _EXTENDED:
        _extensions(d, o, length)


def _said(d: Dissector, o: int, kind: int, code: int) -> str | None:
    """What the message says; None where it was cut short."""
    b = d.buffer
    if kind in (0, 8):
        return f"echo {'reply' if kind == 0 else 'request'}, id {u16(b, o + 4)}, seq {u16(b, o + 6)}"
    if kind == 3:
        return _unreachable(d, o, code)
    if kind == 5:
        target, gateway = d.ip4[b[o + 24 : o + 28]], d.ip4[b[o + 4 : o + 8]]
        return _REDIRECT.get(code, f"redirect-#{code} %s to %s") % (target, gateway)
    if kind == 9:
        return _router(d, o)
    if kind == 11:
        if not d.has(o + 24, 4):
            return None
        return {0: "time exceeded in-transit", 1: "ip reassembly time exceeded"}.get(code, f"time exceeded-#{code}")
    if kind == 12:
        return f"parameter problem - code {code}" if code else f"parameter problem - octet {b[o + 4]}"
    if kind == 18:
        return f"address mask is 0x{u32(b, o + 8):08x}"
    if kind == 13:
        return f"time stamp query id {u16(b, o + 4)} seq {u16(b, o + 6)}"
    if kind == 14:
        if not d.has(o + 16, 4):
            return None
        times = [_time(u32(b, o + at)) for at in (8, 12, 16)]
        numbers = f"id {u16(b, o + 4)} seq {u16(b, o + 6)}"
        return f"time stamp reply {numbers}: org {times[0]}, recv {times[1]}, xmit {times[2]}"
    return word(_OTHERS, kind, "type-#%u")


def _time(stamp: int) -> str:
    second = stamp // 1000
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{stamp % 1000:03}"


def _unreachable(d: Dissector, o: int, code: int) -> str | None:
    b = d.buffer
    if code == 3:
        if not d.has(o + 17, 1):
            return None
        port = u16(b, o + 8 + ((b[o + 8] & 15) << 2) + 2)
        protocol = b[o + 17]
        target = d.ip4[b[o + 24 : o + 28]]
        if protocol == 6:
            return f"{target} tcp port {d.tcp_ports[port]} unreachable"
        if protocol == 17:
            return f"{target} udp port {d.udp_ports[port]} unreachable"
        return f"{target} protocol {protocol} port {port} unreachable"
    target = d.ip4[b[o + 24 : o + 28]]
    if code == 2:
        return f"{target} protocol {b[o + 17]} unreachable"
    if code == 4:
        mtu = u16(b, o + 6)
        return f"{target} unreachable - need to frag" + (f" (mtu {mtu})" if mtu else "")
    known = _UNREACHABLE.get(code)
    return known % target if known is not None else f"{target} unreachable - #{code}"


def _router(d: Dissector, o: int) -> str | None:
    b = d.buffer
    if not d.has(o + 4, 4):
        return None
    lives = u16(b, o + 6)
    if lives < 60:
        shown = str(lives)
    elif lives < 3600:
        shown = f"{lives // 60}:{lives % 60:02}"
    else:
        shown = f"{lives // 3600}:{lives % 3600 // 60:02}:{lives % 60:02}"
    text = f"router advertisement lifetime {shown} {b[o + 4]}:"
    if b[o + 5] != 2:
        return f"{text} [size {b[o + 5]}]"
    for each in range(b[o + 4]):
        p = o + 8 + 8 * each
        if not d.has(p, 8):
            return None
        text += f" {{{d.ip4[b[p : p + 4]]} {u32(b, p + 4)}}}"
    return text


def _extensions(d: Dissector, o: int, length: int) -> None:
    """RFC 4884: objects behind the packet that caused the error."""
    b = d.buffer
    w = d.write
    if not d.has(o, 141):
        d.mark()
        return
    p, left = o + _PLAIN, length - _PLAIN
    if b[o + 5] == 0 and d.has(p, left) and checksum(b[p : p + left]):
        return  # no extension: the packet was just that long
    version = b[p] >> 4
    w(f"\n\tICMP Multi-Part extension v{version}")
    if version != 2:
        w(" packet not supported")
        return
    if d.has(p, left):
        wrong = "in" if checksum(b[p : p + left]) else ""
        w(f", checksum 0x{u16(b, p + 2):04x} ({wrong}correct), length {left}")
    p += 4
    left -= 4
    while left > 4:
        if not d.has(p, 4):
            d.mark()
            return
        size, group, kind = u16(b, p), b[p + 2], b[p + 3]
        w(f"\n\t  {_OBJECTS.get(group, 'unknown')} Object ({group}), Class-Type: {kind}, length {size}")
        p += 4
        left -= 4
        if group == 0 or size < 4:
            return
        size -= 4
        if group == 1 and kind == 1:
            label = u32(b, p)
            w(f"\n\t    label {label >> 12}, tc {label >> 9 & 7}{', [S]' if label & 0x100 else ''}, ttl {label & 255}")
        else:
            d.unknown(p, "\n\t    ", size)
        if left < size:
            break
        left -= size
        p += size
