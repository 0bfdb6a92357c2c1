"""Runs in: the decoder, confined; pure. Options of neighbour discovery (RFC 4861, 4191, 8106): in messages of ICMPv6."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, bits, u16, u32
from bunri.apps.dump.decode.names import Unreadable, name

_OPTIONS = {
    1: "source link-address", 2: "destination link-address", 3: "prefix info", 4: "redirected header", 5: "mtu",
    25: "rdnss", 31: "dnssl", 7: "advertisement interval", 8: "homeagent information", 24: "route info",
}  # fmt: skip
_PREFIX = ((0x80, "onlink"), (0x40, "auto"), (0x20, "router"))


def preference(flags: int) -> str:
    """How much a router would like to be the one."""
    return ("medium", "high", "rsv", "low")[flags >> 3 & 3]


def _life(seconds: int) -> str:
    return "infinity" if seconds == 0xFFFFFFFF else f"{seconds}s"


def options(d: Dissector, o: int, left: int) -> bool:
    """The options of a message; False where one is cut short."""
    b = d.buffer
    start = o
    while o < len(b):
        if not d.has(o + 1, 1):
            return False
        if left <= 0:
            return True
        kind, count = b[o], b[o + 1]
        size = count << 3
        if count == 0 or o + size > len(b):
            return False
        d.write(f"\n\t  {_OPTIONS.get(kind, 'unknown')} option ({kind}), length {size} ({count}): ")
        show = _SHOWN.get(kind)
        if show is not None:
            if not show(d, o, count, start):
                return False
        elif d.verbose <= 1:
            d.unknown(o + 2, "\n\t  ", size - 2)
            return True
        if d.verbose > 1:
            d.unknown(o + 2, "\n\t    ", size - 2)
        o += size
        left -= size
    return True


def _address(d: Dissector, o: int, count: int, start: int) -> bool:
    d.write(d.buffer[o + 2 : o + 8 * count].hex(":"))
    return True


def _prefix(d: Dissector, o: int, count: int, start: int) -> bool:
    b = d.buffer
    d.write(
        f"{d.ip6[b[o + 16 : o + 32]]}/{b[o + 2]}{'' if count == 4 else 'badlen'}, "
        f"Flags [{bits(_PREFIX, b[o + 3], 'none')}], valid time {_life(u32(b, o + 4))}"
    )
    d.write(f", pref. time {_life(u32(b, o + 8))}")
    return True


def _redirected(d: Dissector, o: int, count: int, start: int) -> bool:
    d.unknown(start, "\n\t    ", 8 * count)  # from the first option on, as tcpdump does
    return True


def _mtu(d: Dissector, o: int, count: int, start: int) -> bool:
    d.write(f" {u32(d.buffer, o + 4)}{'' if count == 1 else 'bad option length'}")
    return True


def _servers(d: Dissector, o: int, count: int, start: int) -> bool:
    b = d.buffer
    d.write(f" lifetime {u32(b, o + 4)}s,")
    for each in range((count - 1) // 2):
        at = o + 8 + 16 * each
        d.write(f" addr: {d.ip6[b[at : at + 16]]}")
    return True


def _search(d: Dissector, o: int, count: int, start: int) -> bool:
    b = d.buffer
    d.write(f" lifetime {u32(b, o + 4)}s, domain(s):")
    at = o + 8
    try:
        while at < o + 8 * count and b[at]:
            d.write(" ")
            at = name(d, at, start)
    except Unreadable:
        return False
    return True


def _interval(d: Dissector, o: int, count: int, start: int) -> bool:
    d.write(f" {u32(d.buffer, o + 4)}ms")
    return True


def _agent(d: Dissector, o: int, count: int, start: int) -> bool:
    d.write(f" preference {u16(d.buffer, o + 4)}, lifetime {u16(d.buffer, o + 6)}")
    return True


def _route(d: Dissector, o: int, count: int, start: int) -> bool:
    b = d.buffer
    if not d.has(o + 4, 4) or count > 3:
        return False
    address = b[o + 8 : o + 8 * count].ljust(16, b"\0")
    d.write(f" {d.ip6[address]}/{b[o + 2]}, pref={preference(b[o + 3])}, lifetime={_life(u32(b, o + 4))}")
    return True


_SHOWN = {
    1: _address, 2: _address, 3: _prefix, 4: _redirected, 5: _mtu, 7: _interval, 8: _agent, 24: _route, 25: _servers,
    31: _search,
}  # fmt: skip
