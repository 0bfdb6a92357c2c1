"""Runs in: the decoder, confined; pure. Multicast listener discovery (RFC 2710, 3810): messages of ICMPv6."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, u16
from bunri.apps.dump.decode.igmp import GROUP_RECORDS


def query(d: Dissector, o: int, length: int, code: int) -> bool:
    """A router asks who listens."""
    if length == 24:
        _first(d, o)
    elif length >= 28:
        d.write(" v2")
        _query2(d, o, length)
    else:
        d.write(f" unknown-version (len {length}) ")
    return True


def report(d: Dissector, o: int, length: int, code: int) -> bool:
    """A host listens."""
    _first(d, o)
    return True


def done(d: Dissector, o: int, length: int, code: int) -> bool:
    """It does no longer."""
    _first(d, o)
    return True


def _first(d: Dissector, o: int) -> None:
    if d.has(o, 24):
        d.write(f"max resp delay: {u16(d.buffer, o + 4)} addr: {d.ip6[d.buffer[o + 8 : o + 24]]}")


def _sources(d: Dissector, o: int, count: int) -> None:
    d.write(" {")
    for each in range(count):
        d.write(f" {d.ip6[d.buffer[o + 16 * each : o + 16 * each + 16]]}")
    d.write(" }")


def report2(d: Dissector, o: int, length: int, code: int) -> bool:
    """Version 2: groups, and from whom."""
    b = d.buffer
    w = d.write
    if length < 8:
        w(f" [invalid len {length}]")
        return True
    groups = u16(b, o + 6)
    w(f", {groups} group record(s)")
    if not d.verbose:
        return True
    at = 8
    for _ in range(groups):
        if length < at + 20:
            w(" [invalid number of groups]")
            return True
        w(f" [gaddr {d.ip6[b[o + at + 4 : o + at + 20]]}")
        kind = b[o + at]
        w(f" {GROUP_RECORDS.get(kind) or f' [v2-report-#{kind}]'}")
        sources = u16(b, o + at + 2)
        if length < at + 20 + 16 * sources:
            w(f" [invalid number of sources {sources}]")
            return True
        if d.verbose == 1:
            w(f", {sources} source(s)")
        else:
            _sources(d, o + at + 20, sources)
        at += 20 + 16 * sources
        w("]")
    return True


def _query2(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    w = d.write
    code = u16(b, o + 4)
    if d.verbose:
        delay = code if code < 32768 else (code & 0x0FFF | 0x1000) << (code >> 12 & 7) + 3
        w(f" [max resp delay={delay}]")
    w(f" [gaddr {d.ip6[b[o + 8 : o + 24]]}")
    if d.verbose:
        flags = b[o + 24]
        w(f"{' sflag' if flags & 8 else ''}{f' robustness={flags & 7}' if flags & 7 else ''}")
        every = b[o + 25]
        w(f" qqi={every if every < 128 else (every & 15 | 16) << (every >> 4 & 7) + 3}")
    sources = u16(b, o + 26)
    if sources:
        if length < 28 + 16 * sources:
            w(" [invalid number of sources]")
        elif d.verbose > 1:
            _sources(d, o + 28, sources)
        else:
            w(f", {sources} source(s)")
    w("]")
