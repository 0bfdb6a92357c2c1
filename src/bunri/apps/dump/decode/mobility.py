"""Runs in: the decoder, confined; pure. Mobile IPv6 (RFC 6275): the Mobility header."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, bits, u16, u32, word

_KINDS = {0: "BRR", 1: "HoTI", 2: "CoTI", 3: "HoT", 4: "CoT", 5: "BU", 6: "BA", 7: "BE"}
_SIZES = (8, 16, 16, 24, 24, 12, 12, 24)
_UPDATE = ((8, "A"), (4, "H"), (2, "L"), (1, "K"))


def mobility(d: Dissector, o: int) -> None:
    """One message."""
    d.protocol = "mobility"
    b = d.buffer
    w = d.write
    if not d.has(o + 1, 1):
        d.mark()
        return
    size = (b[o + 1] + 1) << 3
    kind = b[o + 2]
    if kind <= 7 and size < _SIZES[kind]:
        w(f"(header length {size} is too small for type {kind})")
        d.mark()
        return
    w(f"mobility: {word(_KINDS, kind, 'type-#%u')}")
    p = o + 8
    if kind in (1, 2, 3, 4):
        whose = "Home" if kind in (1, 3) else "Care-of"
        if kind > 2:
            w(f" nonce id=0x{u16(b, o + 6):x}")
        if d.verbose:
            w(f" {whose} Init Cookie={u32(b, p):08x}:{u32(b, p + 4):08x}")
            if kind > 2:
                w(f" {whose} Keygen Token={u32(b, p + 8):08x}:{u32(b, p + 12):08x}")
        p += 8 if kind < 3 else 16
    elif kind == 5:
        w(f" seq#={u16(b, o + 6)}")
        if not d.has(p, 2):
            d.mark()
            return
        flags = b[p] >> 4
        if flags:
            w(" " + bits(_UPDATE, flags, "bits-#0x%x", ""))
        w(f" lifetime={u16(b, p + 2) << 2}")
        p += 4
    elif kind == 6:
        w(f" status={b[o + 6]}")
        if b[o + 7] & 0x80:
            w(" K")
        w(f" seq#={u16(b, p)}")
        w(f" lifetime={u16(b, p + 2) << 2}")
        p += 4
    elif kind == 7:
        w(f" status={b[o + 6]}")
        w(f" homeaddr {d.ip6[b[p : p + 16]]}")
        p += 16
    elif kind > 7:
        w(f" len={b[o + 1]}")
        return
    if d.verbose and not _options(d, p, size - (p - o)):
        d.mark()


def _options(d: Dissector, o: int, length: int) -> bool:
    b = d.buffer
    at = 0
    while at < length:
        kind = b[o + at]
        if kind == 0:
            size = 1
        elif at + 1 < length:
            size = b[o + at + 1] + 2
        else:
            return False
        if at + size > length or not d.has(o + at + size, 1):
            return False
        left = length - at
        least, name = {2: (4, "refresh"), 3: (18, "altcoa"), 4: (6, "ni"), 5: (12, "auth")}.get(kind, (0, ""))
        if left < least:
            d.write(f"({name}: trunc)")
            return False
        p = o + at + 2
        if kind < 2:
            d.write("(padn)" if kind else "(pad1)")
        elif kind == 2:
            d.write(f"(refresh: {u16(b, p) << 2})")
        elif kind == 3:
            d.write(f"(alt-CoA: {d.ip6[b[p : p + 16]]})")
        elif kind == 4:
            d.write(f"(ni: ho=0x{u16(b, p):04x} co=0x{u16(b, p + 2):04x})")
        elif kind == 5:
            d.write("(auth)")
        else:
            d.write(f"(type-0x{kind:02x}: len={size - 2})")
        at += size
    return True
