"""Runs in: the decoder, confined; pure. Node information (RFC 4620) and router renumbering (RFC 2894): messages of ICMPv6."""

from __future__ import annotations

import socket

from bunri.apps.dump.decode.core import SHOWN, Dissector, u16, u32

_NODE = ((0x40, "a"), (0x20, "G"), (0x10, "S"), (0x08, "L"), (0x04, "C"), (0x02, "A"))
_COMMANDS = {0: "command", 1: "result", 255: "sequence number reset"}
_OPERATIONS = {1: "add", 2: "change", 3: "setglobal"}


def _letters(table: tuple[tuple[int, str], ...], flags: int) -> str:
    return "".join(letter if flags & bit else "" for bit, letter in table)


def information(d: Dissector, o: int, length: int, code: int) -> bool:
    """A question about a node, or the answer."""
    size = len(d.buffer) - o
    if d.buffer[o] == 139:
        if size == 12:
            d.write(" who-are-you request")
            return True
        d.write(" node information query")
        if size < 16:
            d.mark()
        else:
            _asked(d, o, size, code)
    elif length > size or size < 16:
        d.mark()
    else:
        _answered(d, o, size, code)
    return True


def _asked(d: Dissector, o: int, size: int, code: int) -> None:
    b = d.buffer
    w = d.write
    what, flags = u16(b, o + 4), u16(b, o + 6)
    w(" (")
    w({0: "noop", 1: "supported qtypes", 2: "DNS name", 3: "node addresses"}.get(what, "unknown"))
    if what == 1 and flags:
        w(f" [{'C' if flags & 1 else ''}]")
    elif what == 3 and flags:
        w(f" [{_letters(_NODE, flags)}]")
    if what < 2:
        if size != 16 and d.verbose:
            w(", invalid len")
    elif size == 16:
        w(", 03 draft")
    else:
        _subject(d, o, size, code)
    w(")")


def _subject(d: Dissector, o: int, size: int, code: int) -> None:
    b = d.buffer
    w = d.write
    if code in (0, 2):
        wide = 16 if code == 0 else 4
        if size < 16 + wide:
            return
        if size != 16 + wide:
            if d.verbose:
                w(", invalid subject len")
            return
        address = b[o + 16 : o + 16 + wide]
        w(f", subject={d.ip6[address] if wide == 16 else d.ip4[address]}")
    elif code == 1:
        w(", subject=DNS name")
        _name(d, o + 16)
    else:
        w(", unknown subject")


def _name(d: Dissector, at: int) -> None:
    """A name behind its length, as an old draft had it, or in labels."""
    b = d.buffer
    if b[at] == len(b) - at - 1:
        if d.verbose:
            d.write(", 03 draft")
        d.write(f', "{"".join(SHOWN[code] for code in b[at + 1 :])}"')
        return
    w = d.write
    w(', "')
    end = len(b)
    while at < end:
        size = b[at]
        at += 1
        if size == 0:
            if at == end:
                w(".")
            elif not (at + 1 == end and b[at] == 0):
                w("???")
            break
        if size > end - at:
            w("???")
            break
        w("".join([SHOWN[code] for code in b[at : at + size]]))
        at += size
        if at + 1 < end and b[at]:
            w(".")
    w('"')


def _answered(d: Dissector, o: int, size: int, code: int) -> None:
    b = d.buffer
    w = d.write
    w(" node information reply (")
    said = {0: "success" if d.verbose else "", 1: "refused", 2: "unknown"}.get(code, "")
    w(said)
    if code:
        if code in (1, 2) and size != 16 and d.verbose:
            w(", invalid length")
        w(")")
        return
    what, flags = u16(b, o + 4), u16(b, o + 6)
    if said:
        w(", ")
    w({0: "noop", 1: "supported qtypes", 2: "DNS name", 3: "node addresses"}.get(what, "unknown"))
    if what == 0 and size != 16 and d.verbose:
        w(", invalid length")
    elif what == 1 and flags:
        w(f" [{'C' if flags & 1 else ''}]")
    elif what == 2:
        _name(d, o + 20)
        if flags & 1:
            w(f" [TTL={u32(b, o + 16)}]")
    elif what == 3:
        for at in range(16, size - 19, 20):
            w(f" {d.ip6[b[o + at + 4 : o + at + 20]]}({u32(b, o + at)})")
        if flags:
            w(f" [{_letters((*_NODE, (1, 'T')), flags)}]")
    w(")")


def renumbering(d: Dissector, o: int, length: int, code: int) -> bool:
    """Prefixes are to be others."""
    b = d.buffer
    w = d.write
    if not d.has(o + 12, 4):
        d.mark()
        return True
    w(f", {_COMMANDS.get(code) or f'code-#{code}'}, seq={u32(b, o + 4)}")
    if d.verbose:
        flags = b[o + 9]
        letters = _letters(((0x80, "T"), (0x40, "R"), (0x20, "A"), (0x10, "S"), (0x08, "P")), flags)
        reserved = u32(b, o + 12)
        w(f"[{f'{letters},' if flags else ''}seg={b[o + 8]},maxdelay={u16(b, o + 10)}")
        w(f"{f'rsvd=0x{reserved:x}' if reserved else ''}]")
    if code == 0 and not _prefixes(d, o + 16):
        d.mark()
    return True


def _prefixes(d: Dissector, o: int) -> bool:
    b = d.buffer
    w = d.write
    if not d.has(o + 8, 16):
        return False
    between = "\n\t" if d.verbose > 1 else " "
    w(f"{between}match({_OPERATIONS.get(b[o]) or f'#{b[o]}'}")
    if d.verbose:
        w(f",ord={b[o + 2]},min={b[o + 4]},max={b[o + 5]}")
    w(f",{_plain(b[o + 8 : o + 24])}/{b[o + 3]})")
    count = b[o + 1] - 3
    if count % 4 if count >= 0 else -count % 4:
        return False
    o += 24
    for _ in range(count // 4 if count > 0 else 0):
        if not d.has(o + 16, 16):
            return False
        w(f"{between}use(")
        flags = b[o + 12]
        if flags:
            # tcpdump looks for these flags where they cannot stand on a machine of this byte order, but for one.
            w(f"{'V' if flags & 0x80 else ''}{'P' if flags & 0x40 else ''},")
        if d.verbose:
            w(f"mask=0x{b[o + 2]:x},raflags=0x{b[o + 3]:x},")
            for word, at in (("vltime", 4), ("pltime", 8)):
                life = u32(b, o + at)
                w(f"{word}={'infty' if life == 0xFFFFFFFF else life},")
        w(f"{_plain(b[o + 16 : o + 32])}/{b[o]}/{b[o + 1]})")
        o += 32
    return True


def _plain(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, address)
