"""Runs in: the decoder, confined; pure. RPL (RFC 6550), the routing of networks with little power: messages of ICMPv6."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, hexadecimal, u16

_MODES = {0: "nonstoring", 1: "storing", 2: "nonstoring-multicast", 3: "storing-multicast"}
_OPTIONS = {
    0: "pad1", 1: "padN", 2: "metrics", 3: "routinginfo", 4: "config", 5: "rpltarget", 6: "transitinfo",
    8: "destprefix", 9: "rpltargetdesc",
}  # fmt: skip


def rpl(d: Dissector, code: int, o: int, length: int) -> None:
    """A message whose code says what it is."""
    w = d.write
    if code & 0x80:
        w(", (SEC) [worktodo]")
        return
    w(", (CLR)")
    titles = {
        0: "DODAG Information Solicitation", 1: "DODAG Information Object", 2: "Destination Advertisement Object",
        3: "Destination Advertisement Object Ack",
    }  # fmt: skip
    w(titles.get(code) or f"RPL message, unknown code {code}")
    show = {1: _information, 2: _advertised, 3: _acknowledged}.get(code)
    if d.verbose and show is not None:
        show(d, o, length)


def _information(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    if length & 0xFFFFFFFF < 24:
        d.write(f" [length {length} < 24] (invalid)")
        return
    mode = b[o + 4]
    d.write(
        f" [dagid:{d.ip6[b[o + 8 : o + 24]]},seq:{b[o + 5]},instance:{b[o]},rank:{u16(b, o + 2)},"
        f"{'grounded,' if mode & 0x80 else ''}mop:{_MODES.get(mode >> 3 & 7) or f'mop{mode >> 3 & 7}'},prf:{mode & 7}]"
    )
    if d.verbose > 1:
        _options(d, o + 24, length - 24)


def _graph(d: Dissector, o: int, length: int, there: int, short: str) -> tuple[str, int] | None:
    """The name of the graph and the bytes that were used; None, and something was printed, where it is cut short."""
    if not there:
        return "<elided>", 4
    if not d.has(o + 4, 16):
        d.mark()
        return None
    if length < 20:
        d.write(short)
        return None
    return d.ip6[d.buffer[o + 4 : o + 20]], 20


def _advertised(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    short = " [|length too short]"
    if not d.has(o, 20):
        d.mark()
        return
    if length & 0xFFFFFFFF < 4:
        d.write(short)
        return
    flags = b[o + 1]
    graph = _graph(d, o, length, flags & 0x40, short)
    if graph is None:
        return
    d.write(
        f" [dagid:{graph[0]},seq:{b[o + 3]},instance:{b[o]}{',acK' if flags & 0x80 else ''}"
        f"{',Dagid' if flags & 0x40 else ''},{flags:02x}]"
    )
    if d.verbose > 1:
        _options(d, o + graph[1], length - graph[1])


def _acknowledged(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    short = " [|dao-length too short]"
    if not d.has(o, 4):
        d.mark()
        return
    if length & 0xFFFFFFFF < 4:
        d.write(short)
        return
    graph = _graph(d, o, length, b[o + 1] & 0x80, short)
    if graph is None:
        return
    d.write(f" [dagid:{graph[0]},seq:{b[o + 2]},instance:{b[o]},status:{b[o + 3]}]")
    if d.verbose > 1:
        _options(d, o + graph[1], length - graph[1])


def _options(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    while length:
        kind = b[o]
        size = 1
        if kind == 0:
            d.write(" opt:pad1")
        else:
            if length < 2:
                d.mark()
                return
            size = b[o + 1] + 2
            d.write(f" opt:{_OPTIONS.get(kind) or f'subopt:{kind}'} len:{size} ")
            if not d.has(o, size) or length < size:
                d.mark()
                return
            if d.verbose > 2:
                d.write(hexadecimal(b[o + 2 : o + size], " "))
        o += size
        length -= size
