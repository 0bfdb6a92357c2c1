"""Runs in: the decoder, confined; pure. The options of DHCP (RFC 2132 and those after it).

The first character of a name is how tcpdump prints the value: a text, i addresses, p pairs of them, l L numbers of four
bytes, s of two, b bytes, B yes or no, $ in a way of its own; ? by length.
"""

from __future__ import annotations

from collections.abc import Callable

from bunri.apps.dump.decode.core import Dissector, u16, u32
from bunri.apps.dump.decode.text import characters

_TAGS = {
    0: " PAD", 1: "iSubnet-Mask", 2: "LTime-Zone", 3: "iDefault-Gateway", 4: "iTime-Server", 5: "iIEN-Name-Server",
    6: "iDomain-Name-Server", 7: "iLOG", 8: "iCS", 9: "iLPR-Server", 10: "iIM", 11: "iRL", 12: "aHostname",
    13: "sBS", 14: "aDP", 15: "aDomain-Name", 16: "iSS", 17: "aRP", 18: "aEP", 19: "BIPF", 20: "BSRT", 21: "pPF",
    22: "sRSZ", 23: "bTTL", 24: "lMTU-Timeout", 25: "sMTU-Table", 26: "sMTU", 27: "BLSN", 28: "iBR", 29: "BMD",
    30: "BMS", 31: "BRouter-Discovery", 32: "iRSA", 33: "pStatic-Route", 34: "BUT", 35: "lAT", 36: "BIE", 37: "bTT",
    38: "lKI", 39: "BKG", 40: "aYD", 41: "iYS", 42: "iNTP", 43: "bVendor-Option", 44: "iNetbios-Name-Server",
    45: "iWDD", 46: "$Netbios-Node", 47: "aNetbios-Scope", 48: "iXFS", 49: "iXDM", 50: "iRequested-IP",
    51: "lLease-Time", 52: "$OO", 53: " DHCP-Message", 54: "iServer-ID", 55: "bParameter-Request", 56: "aMSG",
    57: "sMSZ", 58: "lRN", 59: "lRB", 60: "aVendor-Class", 61: "$Client-ID", 64: "sN+D", 65: "iN+S", 66: "aTFTP",
    67: "aBF", 68: "iMH", 69: "iSMTP", 70: "iPOP3", 71: "iNNTP", 72: "iWWW", 73: "iFG", 74: "iIRC", 75: "iSTS",
    76: "iSTDA", 77: "$User-Class", 78: "bSLP-DA", 79: "bSLP-SCOPE", 80: "aSLP-NA", 81: "$FQDN",
    82: "$Agent-Information", 83: "bARMT", 88: "aTZSTR", 89: "bFQDNS", 90: "bAUTH", 91: "LLast-Transaction-Time",
    92: "iAssociated-IP", 93: "sARCH", 94: "bNDI", 95: "aLDAP", 97: "bGUID", 98: "aUAP", 100: "aPOSIX-TZ",
    101: "aTZ-Name", 112: "iNI", 113: "aNITAG", 114: "aURL", 116: "BNOAUTO", 117: "sNSSEARCH", 118: "iSUBNET",
    121: "$Classless-Static-Route", 150: "iTFTP-Server-Address", 161: "aMUD-URL",
    249: "$Classless-Static-Route-Microsoft", 255: " END",
}  # fmt: skip
_MESSAGES = {
    1: "Discover", 2: "Offer", 3: "Request", 4: "Decline", 5: "ACK", 6: "NACK", 7: "Release", 8: "Inform",
    10: "LeaseQuery", 11: "LeaseUnassigned", 12: "LeaseUnknown", 13: "LeaseActive",
}  # fmt: skip
_OVERLOADS = {1: "file", 2: "sname", 3: "file+sname"}
_NODES = {1: "b-node", 2: "p-node", 4: "m-node", 8: "h-node"}
_HARDWARE = {1: "ether", 6: "ieee802", 7: "arcnet", 15: "frelay", 23: "strip", 24: "ieee1394"}
_AGENTS = {1: "Circuit-ID", 2: "Remote-ID", 6: "Subscriber-ID"}
_PAD, _END, _MESSAGE, _WANTED = 0, 255, 53, 55


def options(d: Dissector, o: int) -> bool:
    """From the magic cookie on; False where an option is cut short."""
    b = d.buffer
    w = d.write
    w("\n\t  Vendor-rfc1048 Extensions")
    w(f"\n\t    Magic Cookie 0x{u32(b, o):08x}")
    o += 4
    while d.has(o, 1):
        tag = b[o]
        o += 1
        if tag == _PAD and d.verbose < 3:
            continue
        if tag == _END and d.verbose < 3:
            return True
        name = _TAGS.get(tag, "?Unknown")
        size = 0
        if tag not in (_PAD, _END):
            size = b[o]
            o += 1
        w(f"\n\t    {name[1:]} ({tag}), length {size}{': ' if size else ''}")
        if tag == _PAD:
            count = 1
            while d.has(o, 1) and b[o] == _PAD:
                o += 1
                count += 1
            if count > 1:
                w(f", occurs {count}")
        if not d.has(o, size):
            return False
        left = _option(d, tag, name[0], o, size)
        if left:
            w(f"\n\t  trailing data length {left}")
        o += size
    return True


def _option(d: Dissector, tag: int, kind: str, o: int, size: int) -> int:
    """Print the value; how many bytes of it were left over."""
    b = d.buffer
    w = d.write
    if tag == _MESSAGE and size == 1:
        w(_MESSAGES.get(b[o]) or f"Unknown ({b[o]})")
        return 0
    if tag == _WANTED:
        for index, each in enumerate(b[o : o + size]):
            w(f"{', ' if index % 4 else chr(10) + chr(9) + '      '}{_TAGS.get(each, '?Unknown')[1:]} ({each})")
        return 0
    if kind == "?":
        kind = "b" if size & 1 else "s" if size & 2 else "l"
    if kind == "$":
        return _OWN[tag](d, o, size)
    if kind == "a":
        w('"')
        characters(d, o, size)
        w('"')
        return 0
    if kind in "ilL":
        w(",".join(_word(d, kind, at) for at in range(o, o + size - 3, 4)))
        return size % 4
    if kind == "p":
        pairs = range(o, o + size - 7, 8)
        w(",".join(f"({d.ip4[b[at : at + 4]]}:{d.ip4[b[at + 4 : at + 8]]})" for at in pairs))
        return size % 8
    if kind == "s":
        w(",".join(str(u16(b, at)) for at in range(o, o + size - 1, 2)))
        return size % 2
    if kind == "B":
        w(",".join({0: "N", 1: "Y"}.get(each, f"{each}?") for each in b[o : o + size]))
        return 0
    w(".".join(map(str, b[o : o + size])))
    return 0


def _word(d: Dissector, kind: str, o: int) -> str:
    if kind == "i":
        return d.ip4[d.buffer[o : o + 4]]
    value = u32(d.buffer, o)
    return str(value - (1 << 32) if kind == "L" and value >> 31 else value)


def _few(d: Dissector, o: int, size: int, least: int) -> bool:
    if size < least:
        d.write(f"[ERROR: length < {least} bytes]")
    return size < least


def _node(d: Dissector, o: int, size: int) -> int:
    if _few(d, o, size, 1):
        return size
    d.write(_NODES.get(d.buffer[o]) or f"#{d.buffer[o]}")
    return size - 1


def _overload(d: Dissector, o: int, size: int) -> int:
    if _few(d, o, size, 1):
        return size
    d.write(_OVERLOADS.get(d.buffer[o]) or f"#{d.buffer[o]}")
    return size - 1


def _full_name(d: Dissector, o: int, size: int) -> int:
    if _few(d, o, size, 3):
        return 0
    b = d.buffer
    flags = b[o]
    if flags & 0xF0:
        d.write(f"[ERROR: MBZ nibble 0x{flags >> 4:x} != 0] ")
    if flags & 0x0F:
        letters = "".join(letter for bit, letter in ((1, "S"), (2, "O"), (4, "E"), (8, "N")) if flags & bit)
        d.write(f"[{letters}] ")
    if b[o + 1] or b[o + 2]:
        d.write(f"{b[o + 1]}/{b[o + 2]} ")
    d.write('"')
    characters(d, o + 3, size - 3)
    d.write('"')
    return 0


def _client(d: Dissector, o: int, size: int) -> int:
    if _few(d, o, size, 1):
        return size
    b = d.buffer
    if b[o] == 0:
        d.write('"')
        characters(d, o + 1, size - 1)
        d.write('"')
    else:
        known = _HARDWARE.get(b[o])
        d.write(f"{known or f'hardware-type {b[o]},'} {b[o + 1 : o + size].hex(':')}")
    return 0


def _agent(d: Dissector, o: int, size: int) -> int:
    """RFC 3046: what the relay adds."""
    b = d.buffer
    while size >= 2:
        kind, length = b[o], b[o + 1]
        o += 2
        size -= 2
        title = f"\n\t      {_AGENTS.get(kind, 'Unknown')} SubOption {kind}, length {length}: "
        if length > size:
            d.write(f"{title}length goes past end of option")
            return 0
        d.write(title)
        if kind in _AGENTS:
            characters(d, o, length)
        else:
            d.unknown(o, "\n\t\t", length)
        o += length
        size -= length
    return size


def _routes(d: Dissector, o: int, size: int) -> int:
    """RFC 3442: networks and the routers to them."""
    if _few(d, o, size, 5):
        return 0
    b = d.buffer
    first = True
    while size > 0:
        if not first:
            d.write(",")
        wide = b[o]
        o += 1
        size -= 1
        if wide > 32:
            d.write(f"[ERROR: Mask width ({wide}) > 32]")
            return 0
        used = (wide + 7) // 8
        if size < used + 4:
            d.write(f"[ERROR: Remaining length ({size}) < {used + 4} bytes]")
            return 0
        network = ".".join(map(str, b[o : o + used].ljust(4, b"\0"))) + f"/{wide}" if wide else "default"
        d.write(f"({network}:{d.ip4[b[o + used : o + used + 4]]})")
        o += used + 4
        size -= used + 4
        first = False
    return 0


def _classes(d: Dissector, o: int, size: int) -> int:
    """RFC 3004."""
    if _few(d, o, size, 2):
        return 0
    b = d.buffer
    number = 1
    while size > 0:
        length = b[o]
        o += 1
        size -= 1
        d.write(f"\n\t      instance#{number}: ")
        if length == 0:
            d.write("[ERROR: suboption length must be non-zero]")
            return 0
        if size < length:
            d.write("[ERROR: invalid option]")
            return 0
        d.write('"')
        characters(d, o, length)
        d.write(f'", length {length}')
        number += 1
        o += length
        size -= length
    return 0


_OWN: dict[int, Callable[[Dissector, int, int], int]] = {
    46: _node, 52: _overload, 61: _client, 77: _classes, 81: _full_name, 82: _agent, 121: _routes, 249: _routes,
}  # fmt: skip
