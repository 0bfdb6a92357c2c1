"""Runs in: the decoder, confined; pure. TCP (RFC 9293), its options, and what it carries by port.

Sequence numbers are shown from the start of a connection on, as tcpdump does: `d.streams` remembers for both
directions where that was. The table forgets everything when it is full.
"""

from __future__ import annotations

import struct

from bunri.apps.dump.decode.core import SHOWN, Dissector, Truncated, bits, checksum, should_be, u16, u32, word
from bunri.apps.dump.decode.ip4 import pseudo4
from bunri.apps.dump.decode.ip6 import pseudo6
from bunri.apps.dump.decode.mptcp import mptcp

_HEADER = struct.Struct(">HHIIBBHHH").unpack_from
_TIMES = struct.Struct(">II").unpack_from
_MOST_STREAMS = 1 << 17
_FIN, _SYN, _RST, _ACK, _URG = 1, 2, 4, 16, 32
_LETTERS = ((1, "F"), (2, "S"), (4, "R"), (8, "P"), (16, "."), (32, "U"), (64, "E"), (128, "W"))
FLAGS = tuple(f"Flags [{bits(_LETTERS, value, 'none', '')}]" for value in range(256))
_OPTIONS = {
    0: "eol", 1: "nop", 2: "mss", 3: "wscale", 4: "sackOK", 5: "sack", 6: "echo", 7: "echoreply", 8: "TS", 11: "cc",
    12: "ccnew", 13: "", 19: "md5", 20: "scps", 28: "uto", 29: "tcp-ao", 30: "mptcp", 34: "tfo", 254: "exp",
}  # fmt: skip


class _Bad(Exception):
    """An option that cannot be."""


def tcp(d: Dissector, o: int, length: int, header: int, fragmented: bool, version: int, ttl: int) -> None:
    """A segment at `o`."""
    d.protocol = "tcp"
    b = d.buffer
    w = d.write
    if b[header] >> 4 == 6:
        addresses = b[header + 8 : header + 40]
        own = b[header + 6] == 6
    else:
        addresses = b[header + 12 : header + 20]
        own = b[header + 9] == 6
    if o + 20 > len(b):
        _short(d, o, addresses, own)
        return
    fields: tuple[int, int, int, int, int, int, int, int, int] = _HEADER(b, o)
    sport, dport, seq, ack, size, flags, window, stored, urgent = fields
    if own:
        source, target = d.ends(addresses)
        w(f"{source}.{d.tcp_ports[sport]} > {target}.{d.tcp_ports[dport]}: ")
    else:
        w(f"{d.tcp_ports[sport]} > {d.tcp_ports[dport]}: ")
    size = (size >> 4) << 2
    if size < 20:
        w(f" tcp {length - size & 0xFFFFFFFF} [bad hdr length {size} - too short, < 20]")
        return
    if d.quiet:
        w(f"tcp {length - size & 0xFFFFFFFF}")
        if size > length:
            w(f" [bad hdr length {size} - too long, > {length}]")
        return
    start = 0
    if flags & _ACK and not d.absolute:
        known = d.streams.get(addresses + b[o : o + 4])
        if known is None or flags & _SYN:
            start = remember(d, addresses + b[o : o + 4], seq, ack)
        else:
            start = known
            seq = seq - (start >> 32) & 0xFFFFFFFF
            ack = ack - start & 0xFFFFFFFF
    if size > length:
        w(f"{FLAGS[flags]} [bad hdr length {size} - too long, > {length}]")
        return
    text = FLAGS[flags]
    if d.verbose and d.checked and not fragmented and o + length <= len(b):
        text += _checksum(d, o, length, header, stored)
    length -= size
    if length > 0:
        text += f", seq {seq}:{seq + length & 0xFFFFFFFF}"
    elif d.verbose > 1 or flags & (_SYN | _FIN | _RST):
        text += f", seq {seq}"
    if flags & _ACK:
        text += f", ack {ack}, win {window}"
    else:
        text += f", win {window}"
    if flags & _URG:
        text += f", urg {urgent}"
    if size > 20:
        if size == 32 and b[o + 20 : o + 24] == b"\x01\x01\x08\x0a" and o + 32 <= len(b):
            val, echo = _TIMES(b, o + 24)
            text += f", options [nop,nop,TS val {val} ecr {echo}]"
        else:
            w(text + ", options [")
            # What tcpdump subtracts from selective acknowledgements: the numbers of the side that sent the data.
            whole = o + size + length <= len(b)
            if not _options(d, o + 20, size - 20, flags, start & 0xFFFFFFFF, whole):
                return
            text = ""
    w(f"{text}, length {length}")
    if length > 0:
        _payload(d, o, size, length, flags, sport, dport)


def _short(d: Dissector, o: int, addresses: bytes, own: bool) -> None:
    """Fewer bytes than a header."""
    b = d.buffer
    source, target = d.ends(addresses)
    if o + 4 > len(b):
        d.write(f"{source} > {target}:")
    else:
        sport, dport = d.tcp_ports[u16(b, o)], d.tcp_ports[u16(b, o + 2)]
        d.write(f"{source}.{sport} > {target}.{dport}: " if own else f"{sport} > {dport}: ")
    d.mark()


def remember(d: Dissector, ends: bytes, seq: int, ack: int) -> int:
    """A connection starts with this segment, of which only the side that has acknowledged was not seen before. Returns
    where: the first number of the side that sends, above 32 bits for the other side's."""
    if len(d.streams) >= _MOST_STREAMS:
        d.streams.clear()
    first = ack - 1 & 0xFFFFFFFF
    both = len(ends) - 4
    half = both // 2
    d.streams[ends[half:both] + ends[:half] + ends[-2:] + ends[both:-2]] = first << 32 | seq
    start = d.streams[ends] = seq << 32 | first
    return start


def _checksum(d: Dissector, o: int, length: int, header: int, stored: int) -> str:
    b = d.buffer
    pseudo = pseudo6(d, header, length, 6) if b[header] >> 4 == 6 else pseudo4(d, header, length, 6)
    computed = checksum(pseudo, b[o : o + length])
    if computed:
        return f", cksum 0x{stored:04x} (incorrect -> 0x{should_be(stored, computed):04x})"
    return f", cksum 0x{stored:04x} (correct)"


def _options(d: Dissector, o: int, left: int, flags: int, offset: int, whole: bool) -> bool:
    """The options up to the closing bracket; False where the line ends with them."""
    b = d.buffer
    w = d.write
    first = True
    try:
        while left > 0:
            if not first:
                w(",")
            kind = b[o]
            o += 1
            size = 1
            if kind > 1:
                size = b[o]
                o += 1
                if size < 2 or size > left:
                    raise _Bad
                left -= 1
            left -= 1
            w(word(_OPTIONS, kind, "unknown-%u"))
            if kind == 19 and left >= 16 and d.has(o, 16):
                w(" shared secret not supplied with -M," if whole else " snaplen too short,")
            used = _option(d, kind, o, size - 2, left, flags, offset) if kind > 1 else 0
            o += used
            left -= used
            if used + (2 if kind > 1 else 1) != size:
                w(f"[len {size}]")
            first = False
            if kind == 0:
                break
    except _Bad:
        w("[bad opt]" if first else "[bad opt]]")
        return False
    except _Cut:
        d.mark()
        if not first:
            w(">")
        return False
    w("]")
    return True


class _Cut(Exception):
    """An option that was not captured to its end."""


def _check(d: Dissector, o: int, count: int, left: int) -> None:
    if count > left:
        raise _Bad
    if o + count > len(d.buffer):
        raise _Cut


def _option(d: Dissector, kind: int, o: int, size: int, left: int, flags: int, offset: int) -> int:
    """One option with `size` bytes of data, of `left` that the header still has; how many of them were used."""
    b = d.buffer
    w = d.write
    fixed = _FIXED.get(kind)
    if fixed is not None:
        _check(d, o, fixed, left)
        w(_fixed(b, kind, o))
        return fixed
    if kind == 4:
        return 0
    if kind == 5:
        if size % 8:
            w(" invalid sack")
            return size
        w(f" {size // 8} ")
        for at in range(0, size, 8):
            _check(d, o, at + 4, left)
            begin = u32(b, o + at) - offset & 0xFFFFFFFF
            _check(d, o, at + 8, left)
            w(f"{{{begin}:{u32(b, o + at + 4) - offset & 0xFFFFFFFF}}}")
    elif kind == 29:
        _authenticated(d, o, size, left)
    elif kind == 30:
        _check(d, o, size, left)
        before = d.cut(o + size)
        good = mptcp(d, o - 2, size + 2, flags)
        d.buffer = before
        if not good:
            raise _Bad
    elif kind == 34:
        _check(d, o, size, left)
        w(" ")
        _fast_open(d, o, size)
    elif kind == 254:
        _check(d, o, size, left)
        if size < 2:
            raise _Bad
        magic = u16(b, o)
        w("-tfo" if magic == 0xF989 else f"-{magic:04x}")
        if magic == 0xF989:
            _fast_open(d, o + 2, size - 2)
    else:
        w(" 0x" if size else "")
        _hex(d, o, 0, size, left)
    return size


_FIXED = {2: 2, 3: 1, 6: 4, 7: 4, 8: 8, 11: 4, 12: 4, 13: 4, 19: 16, 20: 2, 28: 2}


def _fixed(b: bytes, kind: int, o: int) -> str:
    if kind == 2:
        return f" {u16(b, o)}"
    if kind == 3:
        return f" {b[o]}"
    if kind == 8:
        return f" val {u32(b, o)} ecr {u32(b, o + 4)}"
    if kind == 19:
        return f" can't check - {b[o : o + 16].hex()}"
    if kind == 20:
        return f" cap {b[o]:02x} id {b[o + 1]}"
    if kind == 28:
        timeout = u16(b, o)
        return f" 0x{timeout:x} {(timeout >> 1) * 60 if timeout & 1 else timeout >> 1}"
    return f" {u32(b, o)}"


def _hex(d: Dissector, o: int, at: int, size: int, left: int) -> None:
    """Byte by byte, as far as they are there."""
    there = max(min(size, left, len(d.buffer) - o), at)
    d.write(d.buffer[o + at : o + there].hex())
    if there < size:
        _check(d, o, there + 1, left)


def _authenticated(d: Dissector, o: int, size: int, left: int) -> None:
    b = d.buffer
    if size < 2:
        d.write(" (invalid)")
        return
    _check(d, o, 1, left)
    d.write(f" keyid {b[o]}")
    _check(d, o, 2, left)
    d.write(f" rnextkeyid {b[o + 1]}")
    if size > 2:
        d.write(" mac 0x")
        _hex(d, o, 2, size, left)


def _fast_open(d: Dissector, o: int, size: int) -> None:
    if size == 0:
        d.write(" cookiereq")
    elif size % 2 or not 4 <= size <= 16:
        d.write(" (invalid)")
    else:
        d.need(o, size)
        d.write(f" cookie {d.buffer[o : o + size].hex()}")


def _payload(d: Dissector, o: int, size: int, length: int, flags: int, sport: int, dport: int) -> None:
    b = d.buffer
    if o + size > len(b):
        d.write(f" [remaining caplen({len(b) - o}) < header length({size})]")
        raise Truncated
    o += size
    if flags & _RST and d.verbose:
        _reset(d, o, length)
        return
    if d.type:
        if d.type == "domain":
            d.tables.tcp_ports[53](d, o, length)
        return
    ports = d.tables.tcp_ports
    if sport in ports or dport in ports:
        for port in d.tables.tcp_order:
            if port in (sport, dport):
                ports[port](d, o, length)
                return


def _reset(d: Dissector, o: int, length: int) -> None:
    d.write(" [RST" if d.has(o, length) else " [!RST")
    if length > 30:
        length = 30
        d.write("+")
    d.write(f" {''.join([SHOWN[code] for code in d.buffer[o : o + length]])}]")
