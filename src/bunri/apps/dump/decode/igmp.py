"""Runs in: the decoder, confined; pure. IGMP (RFC 1112, 2236, 3376), and multicast traceroute."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, checksum, seconds_in_words, u16, u24, u32
from bunri.apps.dump.decode.ip4 import requires

GROUP_RECORDS = {1: "is_in", 2: "is_ex", 3: "to_in", 4: "to_ex", 5: "allow", 6: "block"}


def igmp(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """A message at `o`. Of DVMRP and PIM, which it carries, the name only."""
    if version != 4:
        d.write(requires(4, 2, version))
        return
    d.protocol = "igmp"
    if d.quiet:
        d.write("igmp")
        return
    b = d.buffer
    w = d.write
    kind = b[o]
    if kind == 0x11:
        w("igmp query")
        _query(d, o, length)
    elif kind in (0x12, 0x16, 0x17):
        words = {0x12: "igmp v1 report", 0x16: "igmp v2 report", 0x17: "igmp leave"}[kind]
        w(f"{words} {d.ip4[b[o + 4 : o + 8]]}")
        if kind == 0x12 and length != 8:
            w(f" [len {length}]")
    elif kind == 0x22:
        w("igmp v3 report")
        _report(d, o, length)
    elif kind == 0x13:
        w("igmp dvmrp" if length >= 8 else f"igmp dvmrp [len {length}]")
    elif kind == 0x14:
        w("igmp pimv1")
    elif kind in (0x1E, 0x1F):
        _trace(d, "mresp" if kind == 0x1E else "mtrace", o, length)
    else:
        w(f"igmp-{kind}")
    if d.verbose and length >= 4 and d.has(o, length) and checksum(b[o : o + length]):
        w(f" bad igmp cksum {u16(b, o + 2):x}!")


def _query(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    w = d.write
    if length >= 12:
        _query3(d, o, length)
        return
    if b[o + 1]:
        w(" v2")
        if b[o + 1] != 100:
            w(f" [max resp time {b[o + 1]}]")
    else:
        w(" v1")
    if u32(b, o + 4):
        w(f" [gaddr {d.ip4[b[o + 4 : o + 8]]}]")
    if length != 8:
        w(f" [len {length}]")


def _query3(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    w = d.write
    w(" v3")
    if length & 3:
        w(f" [invalid len {length}]")
        return
    code = b[o + 1]
    tenths = code if code < 128 else (code & 15 | 16) << (code >> 4 & 7) + 3
    if code != 100:
        w(f" [max resp time {f'{tenths * 0.1:.1f}s' if tenths < 600 else seconds_in_words(tenths // 10)}]")
    if u32(b, o + 4) == 0:
        return
    w(f" [gaddr {d.ip4[b[o + 4 : o + 8]]}")
    sources = u16(b, o + 10)
    if sources:
        if length < 12 + 4 * sources:
            w(" [invalid number of sources]")
        elif d.verbose > 1:
            _sources(d, o + 12, sources)
        else:
            w(f", {sources} source(s)")
    w("]")


def _sources(d: Dissector, o: int, count: int) -> None:
    d.write(" {")
    for each in range(count):
        d.write(f" {d.ip4[d.buffer[o + 4 * each : o + 4 * each + 4]]}")
    d.write(" }")


def _report(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    w = d.write
    if length < 16 or length & 3:
        w(f" [invalid len {length}]")
        return
    groups = u16(b, o + 6)
    w(f", {groups} group record(s)")
    if not d.verbose:
        return
    at = 8
    for _ in range(groups):
        if length < at + 8:
            w(" [invalid number of groups]")
            return
        w(f" [gaddr {d.ip4[b[o + at + 4 : o + at + 8]]}")
        kind = b[o + at]
        w(f" {GROUP_RECORDS.get(kind) or f' [v3-report-#{kind}]'}")
        sources = u16(b, o + at + 2)
        if length < at + 8 + 4 * sources:
            w(f" [invalid number of sources {sources}]")
            return
        if d.verbose == 1:
            w(f", {sources} source(s)")
        else:
            _sources(d, o + at + 8, sources)
        at += 8 + 4 * sources
        w("]")


def _trace(d: Dissector, what: str, o: int, length: int) -> None:
    b = d.buffer
    if length < 24:
        d.write(f" [invalid len {length}]")
        return
    source, target, answer = (d.ip4[b[o + at : o + at + 4]] for at in (8, 12, 16))
    d.write(f"{what} {u24(b, o + 21)}: {source} to {target} reply-to {answer}")
    if b[o + 16] >> 4 == 14:
        d.write(f" with-ttl {b[o + 20]}")
