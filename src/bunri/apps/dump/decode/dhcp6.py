"""Runs in: the decoder, confined; pure. DHCP for IPv6 (RFC 8415)."""

from __future__ import annotations

from collections.abc import Callable

from bunri.apps.dump.decode.core import SHOWN, Dissector, u16, u32
from bunri.apps.dump.decode.names import Unreadable, name

_MESSAGES = {
    1: "solicit", 2: "advertise", 3: "request", 4: "confirm", 5: "renew", 6: "rebind", 7: "reply", 8: "release",
    9: "decline", 10: "reconfigure", 11: "inf-req", 12: "relay-fwd", 13: "relay-reply", 14: "leasequery",
    15: "leasequery-reply",
}  # fmt: skip
_OPTIONS = {
    1: "client-ID", 2: "server-ID", 3: "IA_NA", 4: "IA_TA", 5: "IA_ADDR", 6: "option-request", 7: "preference",
    8: "elapsed-time", 9: "relay-message", 11: "authentication", 12: "server-unicast", 13: "status-code",
    14: "rapid-commit", 15: "user-class", 16: "vendor-class", 17: "vendor-specific-info", 18: "interface-ID",
    19: "reconfigure-message", 20: "reconfigure-accept", 21: "SIP-servers-domain", 22: "SIP-servers-address",
    23: "DNS-server", 24: "DNS-search-list", 25: "IA_PD", 26: "IA_PD-prefix", 31: "SNTP-servers", 32: "lifetime",
    27: "NIS-server", 28: "NIS+-server", 29: "NIS-domain-name", 30: "NIS+-domain-name", 33: "BCMCS-domain-name",
    34: "BCMCS-server", 36: "Geoconf-Civic", 37: "Remote-ID", 38: "Subscriber-ID", 39: "Client-FQDN",
    40: "PANA-agent", 41: "POSIX-timezone", 42: "POSIX-tz-database", 43: "Echo-request-option", 44: "Lease-query",
    45: "LQ-client-data", 46: "Clt-time", 47: "LQ-relay-data", 48: "LQ-client-link", 56: "NTP-server",
    64: "AFTR-Name", 112: "MUD-URL",
}  # fmt: skip
_STATUS = (
    "Success", "UnspecFail", "NoAddrsAvail", "NoBinding", "NotOnLink", "UseMulticast", "NoPrefixAvail",
    "UnknownQueryType", "MalformedQuery", "NotConfigured", "NotAllowed",
)  # fmt: skip


class _Bad(Exception):
    """An option whose length cannot be."""


def dhcp6(d: Dissector, o: int, length: int) -> None:
    """A message at `o`."""
    d.protocol = "dhcp6"
    b = d.buffer
    w = d.write
    w("dhcp6")
    end = min(o + length, len(b))
    if not d.has(o, 4):
        d.mark()
        return
    kind = b[o]
    w(f" {_MESSAGES.get(kind) or f'msgtype-{kind}'}")
    if not d.verbose:
        return
    w(" (")
    if kind in (12, 13):
        w(f"linkaddr={d.ip6[b[o + 2 : o + 18]]}")
        w(f" peeraddr={d.ip6[b[o + 18 : o + 34]]}")
        _options(d, o + 34, end)
    else:
        w(f"xid={u32(b, o) & 0xFFFFFF:x}")
        _options(d, o + 4, end)
    w(")")


def _options(d: Dissector, o: int, end: int) -> None:
    b = d.buffer
    while o < end:
        if end < o + 4 or not d.has(o, 4):
            d.mark()
            return
        kind, size = u16(b, o), u16(b, o + 2)
        if end < o + 4 + size:
            d.mark()
            return
        d.write(f" ({_OPTIONS.get(kind) or f'opt_{kind}'}")
        if not d.has(o + 4, size):
            d.mark()
            return
        show = _SHOWN.get(kind)
        try:
            if show is not None:
                show(d, o + 4, size)
            d.write(")")
        except _Bad:
            d.write(" ?)")
        except Unreadable:
            d.mark()
            return
        o += 4 + size


def _at_least(size: int, least: int) -> None:
    if size < least:
        raise _Bad


def _exactly(size: int, wanted: int) -> None:
    if size != wanted:
        raise _Bad


def _identity(d: Dissector, o: int, size: int) -> None:
    """DUID (RFC 8415 11)."""
    _at_least(size, 2)
    b = d.buffer
    kind = u16(b, o)
    if kind == 1:
        _at_least(size, 8)
        d.write(f" hwaddr/time type {u16(b, o + 2)} time {u32(b, o + 4)} {b[o + 8 : o + size].hex()}")
    elif kind == 2:
        _at_least(size, 10)
        d.write(f" vid {b[o + 2 : o + 10].hex()}")
    elif kind == 3:
        _at_least(size, 4)
        d.write(f" hwaddr type {u16(b, o + 2)} {b[o + 4 : o + size].hex()}")
    else:
        d.write(f" type {kind}")


def _address(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 24)
    b = d.buffer
    d.write(f" {d.ip6[b[o : o + 16]]} pltime:{u32(b, o + 16)} vltime:{u32(b, o + 20)}")
    _options(d, o + 24, o + size)


def _asked(d: Dissector, o: int, size: int) -> None:
    _exactly(size % 2, 0)
    for at in range(o, o + size, 2):
        kind = u16(d.buffer, at)
        d.write(f" {_OPTIONS.get(kind) or f'opt_{kind}'}")


def _byte(d: Dissector, o: int, size: int) -> None:
    _exactly(size, 1)
    d.write(f" {d.buffer[o]}")


def _short(d: Dissector, o: int, size: int) -> None:
    _exactly(size, 2)
    d.write(f" {u16(d.buffer, o)}")


def _long(d: Dissector, o: int, size: int) -> None:
    _exactly(size, 4)
    d.write(f" {u32(d.buffer, o)}")


def _relayed(d: Dissector, o: int, size: int) -> None:
    d.write(" (")
    before = d.cut(o + size)
    dhcp6(d, o, size)
    d.buffer = before


def _authentication(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 11)
    b = d.buffer
    w = d.write
    protocol, algorithm, method = b[o], b[o + 1], b[o + 2]
    w(f" proto: {({2: 'delayed', 3: 'reconfigure'}).get(protocol, protocol)}")
    w(f", alg: {'HMAC-MD5' if algorithm == 1 else algorithm}, RDM: {method or 'mono'}, RD:")
    for at in range(o + 3, o + 11, 2):
        w(f" {u16(b, at):04x}")
    left = size - 11
    o += 11
    if protocol == 2:
        if left == 0:
            return
        if left < 20:
            w(" ??")
            return
        realm = left - 20
        if realm:
            w(f", realm: {b[o : o + realm].hex()}")
        o += realm
        w(f", key ID: {u32(b, o):08x}, HMAC-MD5:")
        _words(d, o + 4)
    elif protocol == 3 and left == 17:
        w(({1: " reconfig-key", 2: " type: HMAC-MD5"}).get(b[o], " type: ??"))
        w(" value:")
        _words(d, o + 1)
    else:
        w(" ??")


def _words(d: Dissector, o: int) -> None:
    for at in range(o, o + 16, 4):
        d.write(f" {u32(d.buffer, at):08x}")


def _hidden(d: Dissector, o: int, size: int) -> None:
    d.write(f" {d.buffer[o : o + min(size, 10)].hex()}...")


def _reconfigure(d: Dissector, o: int, size: int) -> None:
    _exactly(size, 1)
    kind = d.buffer[o]
    d.write(({5: " for renew", 11: " for inf-req"}).get(kind) or f" for ???({kind:02x})")


def _servers(d: Dissector, o: int, size: int) -> None:
    _exactly(size % 16, 0)
    for at in range(o, o + size, 16):
        d.write(f" {d.ip6[d.buffer[at : at + 16]]}")


def _names(d: Dissector, o: int, size: int) -> None:
    end = o + size
    while o < end:
        d.write(" ")
        o = name(d, o, end)


def _status(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 2)
    code = u16(d.buffer, o)
    known = _STATUS[code] if code < len(_STATUS) else f"code{code}"
    d.write(f" {known if code <= 255 else 'INVALID code'}")


def _association(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 12)
    b = d.buffer
    d.write(f" IAID:{u32(b, o)} T1:{u32(b, o + 4)} T2:{u32(b, o + 8)}")
    _options(d, o + 12, o + size)


def _temporary(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 4)
    d.write(f" IAID:{u32(d.buffer, o)}")
    _options(d, o + 4, o + size)


def _prefix(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 25)
    b = d.buffer
    d.write(f" {d.ip6[b[o + 9 : o + 25]]}/{b[o + 8]} pltime:{u32(b, o)} vltime:{u32(b, o + 4)}")
    _options(d, o + 25, o + size)


def _remote(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 4)
    d.write(f" {u32(d.buffer, o)} {d.buffer[o + 4 : o + min(size, 14)].hex()}...")


def _question(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 17)
    b = d.buffer
    d.write(({1: " by-address", 2: " by-clientID"}).get(b[o]) or f" type_{b[o]}")
    d.write(f" {d.ip6[b[o + 1 : o + 17]]}")
    _options(d, o + 17, o + size)


def _client(d: Dissector, o: int, size: int) -> None:
    _options(d, o, o + size)


def _relay(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 16)
    b = d.buffer
    d.write(f" {d.ip6[b[o : o + 16]]} {b[o + 16 : o + min(size, 26)].hex()}...")


def _clocks(d: Dissector, o: int, size: int) -> None:
    """RFC 5908."""
    _at_least(size, 4)
    b = d.buffer
    end = o + size
    while o < end - 4:
        kind, length = u16(b, o), u16(b, o + 2)
        o += 4
        if o + length > end:
            raise Unreadable
        d.write(f" subopt:{kind}")
        if kind in (1, 2) and length == 16:
            d.write(f" {d.ip6[b[o : o + 16]]}")
        elif kind == 3:
            d.write(" ")
            name(d, o, o + length)
        else:
            d.write(" ?")
        o += length


def _text(d: Dissector, o: int, size: int) -> None:
    piece = d.buffer[o : o + size].partition(b"\0")[0]
    d.write("".join([SHOWN[code] for code in piece]))


def _tunnel(d: Dissector, o: int, size: int) -> None:
    """RFC 6334: labels, uncompressed."""
    _at_least(size, 3)
    b = d.buffer
    d.write(" ")
    left = size
    while left and b[o]:
        length = b[o]
        o += 1
        if length >= left - 1:
            d.write(" ?")
            return
        _text(d, o, length)
        o += length
        left -= length + 1
        if b[o]:
            d.write(".")


def _said(d: Dissector, o: int, size: int) -> None:
    _at_least(size, 5)
    d.write(" ")
    _text(d, o, size)


_SHOWN: dict[int, Callable[[Dissector, int, int], None]] = {
    1: _identity, 2: _identity, 3: _association, 4: _temporary, 5: _address, 6: _asked, 7: _byte, 8: _short,
    9: _relayed, 11: _authentication, 13: _status, 18: _hidden, 19: _reconfigure, 21: _names, 22: _servers,
    23: _servers, 24: _names, 25: _association, 26: _prefix, 27: _servers, 28: _servers, 31: _servers, 32: _long,
    34: _servers, 37: _remote, 38: _hidden, 40: _servers, 41: _said, 42: _said, 43: _asked, 44: _question, 45: _client,
    46: _long, 47: _relay, 48: _servers, 56: _clocks, 64: _tunnel, 112: _said,
}  # fmt: skip
