"""Runs in: the decoder, confined; pure. ICMP for IPv6 (RFC 4443), with what stands in modules of its own: neighbours, listeners, nodes."""

from __future__ import annotations

from collections.abc import Callable

from bunri.apps.dump.decode.core import Dissector, bits, checksum, should_be, u16, u32
from bunri.apps.dump.decode.ip4 import requires
from bunri.apps.dump.decode.ip6 import pseudo6
from bunri.apps.dump.decode.listeners import done, query, report, report2
from bunri.apps.dump.decode.neighbours import options, preference
from bunri.apps.dump.decode.nodes import information, renumbering
from bunri.apps.dump.decode.rpl import rpl

_TYPES = {
    1: "destination unreachable", 2: "packet too big", 3: "time exceeded in-transit", 4: "parameter problem",
    128: "echo request", 129: "echo reply", 130: "multicast listener query", 131: "multicast listener report",
    132: "multicast listener done", 133: "router solicitation", 134: "router advertisement",
    135: "neighbor solicitation", 136: "neighbor advertisement", 137: "redirect", 138: "router renumbering",
    141: "inverse neighbor solicitation", 142: "inverse neighbor advertisement", 143: "multicast listener report v2",
    144: "ha discovery request", 145: "ha discovery reply", 146: "mobile router solicitation",
    147: "mobile router advertisement", 139: "who-are-you request", 140: "who-are-you reply", 201: "mtrace message",
    200: "mtrace response", 155: "RPL",
}  # fmt: skip
_UNREACHABLE = {
    0: "unreachable route", 1: " unreachable prohibited", 2: "beyond scope", 3: "unreachable address",
    4: "unreachable port",
}  # fmt: skip
_PROBLEMS = {0: "erroneous", 1: "next header", 2: "option", 3: "incomplete header chain"}
_LENGTH_FIRST = frozenset({133, 134, 135, 136, 137, 145, 147})
_ROUTER = ((0x80, "managed"), (0x40, "other stateful"), (0x20, "home agent"), (0x02, "ipv6 only"))
_ADVERTISED = ((0x80000000, "router"), (0x40000000, "solicited"), (0x20000000, "override"))


class _Over(Exception):
    """Nothing follows, not even the length."""


def icmp6(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """A message at `o`."""
    if version != 6:
        d.write(requires(6, 58, version))
        return
    d.protocol = "icmp6"
    w = d.write
    if length == 0:
        w("ICMP6, length 0 (invalid)")
        return
    b = d.buffer
    if d.verbose and not fragmented and d.has(o, length):
        stored = u16(b, o + 2)
        computed = checksum(pseudo6(d, header, length, 58), b[o : o + length])
        w(
            f"[bad icmp6 cksum 0x{stored:04x} -> 0x{should_be(stored, computed):04x}!] "
            if computed
            else "[icmp6 sum ok] "
        )
    kind = b[o]
    w(f"ICMP6, {_TYPES.get(kind) or f'unknown icmp6 type ({kind})'}")
    if d.verbose and kind in _LENGTH_FIRST:
        w(f", length {length}")
    code = b[o + 1]
    show = _SHOWN.get(kind)
    if show is None:
        w(f", length {length}")
        if d.verbose <= 1:
            d.unknown(o, "\n\t", length)
        return
    try:
        whole = show(d, o, length, code)
    except _Over:
        return
    if not whole:
        d.mark()
    elif not d.verbose:
        w(f", length {length}")


def _unreachable(d: Dissector, o: int, length: int, code: int) -> bool:
    b = d.buffer
    w = d.write
    w(f", {_UNREACHABLE.get(code) or f'unknown unreach code ({code})'}")
    if code in (0, 1, 3):
        w(f" {d.ip6[b[o + 32 : o + 48]]}")
    elif code == 2:
        w(f" {d.ip6[b[o + 32 : o + 48]]}, source address {d.ip6[b[o + 16 : o + 32]]}")
    elif code == 4:
        found = _upper(d, o + 8)
        if found is None:
            return False
        protocol, at = found
        port = u16(b, at + 2)
        target = d.ip6[b[o + 32 : o + 48]]
        w(f", {target} tcp port {d.tcp_ports[port]}" if protocol == 6 else f", {target} udp port {d.udp_ports[port]}")
    elif d.verbose <= 1:
        d.unknown(o, "\n\t", length)
        raise _Over
    return True


def _upper(d: Dissector, o: int) -> tuple[int, int] | None:
    """TCP or UDP of the packet that caused the error, and where its header is; None where that cannot be told."""
    b = d.buffer
    if not d.has(o + 6, 1):
        return None
    following = b[o + 6]
    at, step = o, 40
    while at < len(b):
        at += step
        if following in (6, 17):
            return (following, at) if d.has(at + 2, 2) else None
        if following in (0, 43, 60):
            if not d.has(at + 1, 1):
                return None
            following, step = b[at], (b[at + 1] + 1) << 3
        elif following == 44:
            if not d.has(at + 2, 2) or u16(b, at + 2) & 0xFFF8:
                return None
            following, step = b[at], 8
        elif following == 51:
            if not d.has(at + 1, 1):
                return None
            following, step = b[at], (b[at + 1] + 2) << 2
        else:
            return None
    return None


def _too_big(d: Dissector, o: int, length: int, code: int) -> bool:
    d.write(f", mtu {u32(d.buffer, o + 4)}")
    return True


def _exceeded(d: Dissector, o: int, length: int, code: int) -> bool:
    if code == 0:
        d.write(f" for {d.ip6[d.buffer[o + 32 : o + 48]]}")
    else:
        d.write(" (reassembly)" if code == 1 else f", unknown code ({code})")
    return True


def _problem(d: Dissector, o: int, length: int, code: int) -> bool:
    if not d.has(o + 32, 16):
        return False
    known = _PROBLEMS.get(code)
    d.write(f", {known} - octet {u32(d.buffer, o + 4)}" if known else f", code-#{code}")
    return True


def _echo(d: Dissector, o: int, length: int, code: int) -> bool:
    d.write(f", id {u16(d.buffer, o + 4)}, seq {u16(d.buffer, o + 6)}")
    return True


def _solicited_router(d: Dissector, o: int, length: int, code: int) -> bool:
    return not d.verbose or options(d, o + 8, length - 8)


def _router(d: Dissector, o: int, length: int, code: int) -> bool:
    if not d.verbose:
        return True
    b = d.buffer
    flags = b[o + 5]
    d.need(o, 16)
    d.write(
        f"\n\thop limit {b[o + 4]}, Flags [{bits(_ROUTER, flags, 'none')}], pref {preference(flags)}, "
        f"router lifetime {u16(b, o + 6)}s, reachable time {u32(b, o + 8)}ms, retrans timer {u32(b, o + 12)}ms"
    )
    return options(d, o + 16, length - 16)


def _solicited(d: Dissector, o: int, length: int, code: int) -> bool:
    d.write(f", who has {d.ip6[d.buffer[o + 8 : o + 24]]}")
    return not d.verbose or options(d, o + 24, length - 24)


def _advertised(d: Dissector, o: int, length: int, code: int) -> bool:
    d.write(f", tgt is {d.ip6[d.buffer[o + 8 : o + 24]]}")
    if not d.verbose:
        return True
    d.write(f", Flags [{bits(_ADVERTISED, u32(d.buffer, o + 4), 'none')}]")
    return options(d, o + 24, length - 24)


def _redirect(d: Dissector, o: int, length: int, code: int) -> bool:
    b = d.buffer
    d.write(f", {d.ip6[b[o + 24 : o + 40]]}")
    d.write(f" to {d.ip6[b[o + 8 : o + 24]]}")
    return not d.verbose or options(d, o + 40, length - 40)


def _nothing(d: Dissector, o: int, length: int, code: int) -> bool:
    return True


def _asked_agents(d: Dissector, o: int, length: int, code: int) -> bool:
    d.write(f", id 0x{u16(d.buffer, o + 4):04x}")
    return True


def _agents(d: Dissector, o: int, length: int, code: int) -> bool:
    if d.verbose:
        d.write(f", id 0x{u16(d.buffer, o + 4):04x}")
        for at in range(o + 8, o + length, 16):
            d.write(f", {d.ip6[d.buffer[at : at + 16]]}")
    return True


def _prefixes(d: Dissector, o: int, length: int, code: int) -> bool:
    if not d.verbose:
        return True
    b = d.buffer
    d.write(f", id 0x{u16(b, o + 4):04x}")
    flags = u16(b, o + 6)
    d.write(f"{' ' if flags & 0xC000 else ''}{'M' if flags & 0x8000 else ''}{'O' if flags & 0x4000 else ''}")
    return options(d, o + 8, length - 8)


def _lossy(d: Dissector, o: int, length: int, code: int) -> bool:
    rpl(d, code, o + 4, length - 4)
    return True


_Shown = Callable[[Dissector, int, int, int], bool]
_SHOWN: dict[int, _Shown] = {
    1: _unreachable, 2: _too_big, 3: _exceeded, 4: _problem, 128: _echo, 129: _echo, 130: query, 131: report,
    132: done, 133: _solicited_router, 134: _router, 135: _solicited, 136: _advertised, 137: _redirect,
    138: renumbering, 139: information, 140: information, 141: _nothing, 142: _nothing, 143: report2,
    144: _asked_agents, 145: _agents, 146: _asked_agents, 147: _prefixes, 155: _lossy,
}  # fmt: skip
