"""Runs in: the decoder, confined; pure. BOOTP and DHCP (RFC 951, 2131, 2132)."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, u16, u32
from bunri.apps.dump.decode.dhcp_options import options
from bunri.apps.dump.decode.text import terminated

_OPERATIONS = {1: "Request", 2: "Reply"}
_ADDRESSES = ((12, "Client-IP"), (16, "Your-IP"), (20, "Server-IP"), (24, "Gateway-IP"))
_COOKIE, _CMU = b"\x63\x82\x53\x63", b"CMU\0"
_VENDOR = 236


def dhcp(d: Dissector, o: int, length: int) -> None:
    """A message at `o`."""
    d.protocol = "bootp"
    b = d.buffer
    w = d.write
    operation = b[o]
    w(f"BOOTP/DHCP, {_OPERATIONS.get(operation) or f'unknown (0x{operation:02x})'}")
    kind, size = b[o + 1], b[o + 2]
    if (kind, size, operation) == (1, 6, 1):
        w(f" from {d.mac[b[o + 28 : o + 34]]}")
    w(f", length {length}")
    if not d.verbose:
        return
    if not d.has(o + 8, 2):
        d.mark()
        return
    if kind != 1:
        w(f", htype {kind}")
    if kind != 1 or size != 6:
        w(f", hlen {size}")
    for value, text in ((b[o + 3], "hops %d"), (u32(b, o + 4), "xid 0x%x"), (u16(b, o + 8), "secs %d")):
        if value:
            w(f", {text % value}")
    flags = u16(b, o + 10)
    w(f", Flags [{'Broadcast' if flags & 0x8000 else 'none'}]{f' (0x{flags:04x})' if d.verbose > 1 else ''}")
    for at, title in _ADDRESSES:
        if u32(b, o + at):
            w(f"\n\t  {title} {d.ip4[b[o + at : o + at + 4]]}")
    if (kind, size) == (1, 6):
        w(f"\n\t  Client-Ethernet-Address {d.mac[b[o + 28 : o + 34]]}")
    for title, at, most in (("sname", 44, 64), ("file", 108, 128)):
        if b[o + at]:
            w(f'\n\t  {title} "')
            whole = terminated(d, o + at, most)
            w('"')
            if not whole:
                d.mark()
                return
    if not d.has(o + _VENDOR, 4) or not _vendor(d, o + _VENDOR):
        d.mark()


def _vendor(d: Dissector, o: int) -> bool:
    """The options; False where they are cut short."""
    cookie = d.buffer[o : o + 4]
    if cookie == _COOKIE:
        return options(d, o)
    if cookie == _CMU:
        return _cmu(d, o)
    if any(cookie):
        d.write(f"\n\t  Vendor-#0x{int.from_bytes(cookie):x}")
    return True


def _cmu(d: Dissector, o: int) -> bool:
    """What Carnegie Mellon put there before there were options."""
    b = d.buffer
    d.write(" vend-cmu")
    if not d.has(o + 4, 4):
        return False
    flags = b[o + 4]
    if flags & ~1:
        d.write(f" F:0x{flags:x}")
    for at, title in (
        (12, "DG"), (8, "SM" if flags & 1 else "SM*"), (16, "NS1"), (20, "NS2"), (24, "IEN1"), (28, "IEN2"),
        (32, "TS1"), (36, "TS2"),
    ):  # fmt: skip
        if not d.has(o + at, 4):
            return False
        if u32(b, o + at):
            d.write(f" {title}:{d.ip4[b[o + at : o + at + 4]]}")
    return True
