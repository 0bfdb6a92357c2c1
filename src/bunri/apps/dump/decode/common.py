"""Runs in: the decoder, confined; pure. What most captures are made of, in one pass: ARP, and plain IP with TCP, UDP, echoes.

Plain: on Ethernet, no IP options or extension headers, no fragment, all headers captured, TCP with no option but time
stamps, and none of the program's options that change a line (`Style.brief`). Everything else, before anything of it was
printed or remembered, goes the long way: link.py, ip4.py, tcp.py and so on. Those say what a line looks like; the tests
print each packet both ways.

The packet is read where it stands, `b[o:end]`: most of it is never copied. A line is bytes from the start, and is
written by one format: a number costs half of what it costs in a string, and nothing is put together twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from bunri.apps.dump.decode.addresses import PortNames
from bunri.apps.dump.decode.core import ENDS, MOST_CAPTURED, Dissector
from bunri.apps.dump.decode.domain import domain, plain
from bunri.apps.dump.decode.tcp import FLAGS, remember
from bunri.apps.dump.messages import Where

# Type; of IPv4 what is before its service, length, fragment to protocol; of IPv6 its version, length, next header.
_ETHER = struct.Struct(">12xIHHI").unpack_from
_SEGMENT = struct.Struct(">HHIIHH4xIII").unpack_from  # TCP but for its checksum, and options of twelve bytes
_TCP = struct.Struct(">HHIIBBH").unpack_from
_NUMBERS = struct.Struct(">II").unpack_from
_TIMES = struct.Struct(">III").unpack_from
_UDP = struct.Struct(">HHH").unpack_from
_ECHO = struct.Struct(">BB2xHH").unpack_from
_ARP = struct.Struct(">HHHH6s4s6s4s").unpack_from
_IP4_PLAIN, _ANY_SERVICE = 0x08004500, 0xFFFFFF00
_IP6, _ANY_CLASS = 0x86DD6000, 0xFFFFF000
_FRAGMENT_AND_PROTOCOL = 0x3FFF00FF
_FIN, _SYN, _RST, _ACK, _URG = 1, 2, 4, 16, 32
_TIMES_ALONE = 0x0101080A  # two of nothing, then time stamps
_VXLAN = 4789
_NOBODY = bytes(6)

_FLAGS = tuple(text.encode() for text in FLAGS)
_HIGH = tuple(b"%03d" % number for number in range(1000))
_LOW = tuple(b"%03d " % number for number in range(1000))

# Of segments that have time stamps and are only acknowledgements or data: without data, and with.
_FORMS = {
    0x8000 | flags: tuple(
        b"%%b%%b%%b%%b.%%d > %%b.%%d: Flags [%b], %back %%d, win %%d, options [nop,nop,TS val %%d ecr %%d], length %b\n"
        % (letters, numbers, length)
        for numbers, length in ((b"", b"0"), (b"seq %d:%d, ", b"%d"))
    )
    for flags, letters in ((0x10, b"."), (0x18, b"P."))
}
_NAMED = {form: tuple(each.replace(b".%d", b".%b") for each in formats) for form, formats in _FORMS.items()}


def ethernet(d: Dissector, places: Iterable[Where]) -> None:
    """Print Ethernet frames. The segments of a connection that has begun are printed here, all others below."""
    done = d.done.append
    pairs, started, names, served = d.pairs, d.streams.get, d.tcp_ports, d.tables.tcp_ports
    forms = _NAMED if names else _FORMS
    known, clock, plain = d.second, d.clock, d.plain
    for second, fraction, length, b, o, end in places:
        captured = end - o
        if (captured != length and not captured < length <= MOST_CAPTURED) or captured < 42:
            d.long_way(second, fraction, length, b, o, end)
            continue
        if second == known and fraction < plain:
            when, high, low = clock, _HIGH[fraction // 1000], _LOW[fraction % 1000]
        else:
            when, high, low = d.stamp(second, fraction), b"", b""
            known, clock = d.second, d.clock
        first, total, size, rest = _ETHER(b, o)
        protocol = wide = p = 0  # of IP: what it carries, where, and how far before that the addresses begin
        if first & _ANY_SERVICE == _IP4_PLAIN:
            if total <= length - 14:
                protocol = rest & _FRAGMENT_AND_PROTOCOL
                p = o + 34
                wide = 8
                size = total - 20
        elif first & _ANY_CLASS == _IP6 and 0 < size <= length - 54 and captured >= 62:
            protocol = rest >> 24
            p = o + 54
            wide = 32
        if protocol == 6 and end >= p + 32:
            sport, dport, seq, ack, form, window, kinds, value, echo = _SEGMENT(b, p)
            formats = forms.get(form)
            data = size - 32
            if (
                formats is not None
                and kinds == _TIMES_ALONE
                and (data == 0 or (data > 0 and sport not in served and dport not in served))
            ):
                key = b[p - wide : p + 4]
                start = started(key)
                if start is None:
                    remember(d, key, seq, ack)
                else:
                    seq = seq - (start >> 32) & 0xFFFFFFFF
                    ack = ack - start & 0xFFFFFFFF
                source, target = pairs[b[p - wide : p]]
                if names:
                    sport, dport = names[sport].encode(), names[dport].encode()
                if data:
                    line = formats[1] % (
                        when, high, low, source, sport, target, dport,
                        seq, seq + data & 0xFFFFFFFF, ack, window, value, echo, data,
                    )  # fmt: skip
                else:
                    line = formats[0] % (when, high, low, source, sport, target, dport, ack, window, value, echo)
                done(line)
                continue
        stamp = when + high + low
        if protocol == 17:
            line = _udp(d, stamp, b, p, end, wide, size)
        elif protocol == 6:
            line = _tcp(d, stamp, b, p, end, wide, size)
        elif protocol == 1 and wide == 8:
            line = _echo(d, stamp, b, p, size)
        elif first >> 16 == 0x0806:
            line = _arp(d, stamp, b, o, length - 14)
        else:
            line = b""
        if line:
            done(line)
        else:
            d.layers(stamp, length, b[o:end])


# Each of these returns the whole line; nothing, if the packet is not of the common kind. The addresses are the `wide`
# bytes before `o`; what is there has `length` bytes, by the IP header.


def _tcp(d: Dissector, stamp: bytes, b: bytes, o: int, end: int, wide: int, length: int) -> bytes:
    if end < o + 20:
        return b""
    sport, dport, seq, ack, size, flags, window = _TCP(b, o)
    if size == 0x80 and end >= o + 32:
        kinds, value, echo = _TIMES(b, o + 20)
        if kinds != _TIMES_ALONE:
            return b""
        options = b", options [nop,nop,TS val %d ecr %d]" % (value, echo)
        length -= 32
    elif size == 0x50:
        options = b""
        length -= 20
    else:
        return b""
    if length < 0 or flags & _URG:
        return b""
    if length and (sport in d.tables.tcp_ports or dport in d.tables.tcp_ports):
        return b""
    acked = b""
    if flags & _ACK:
        key = b[o - wide : o + 4]
        start = d.streams.get(key)
        if start is None or flags & _SYN:
            remember(d, key, seq, ack)
        else:
            seq = seq - (start >> 32) & 0xFFFFFFFF
            ack = ack - start & 0xFFFFFFFF
        acked = b", ack %d" % ack
    numbers = b""
    if length:
        numbers = b", seq %d:%d" % (seq, seq + length & 0xFFFFFFFF)
    elif flags & (_SYN | _FIN | _RST):
        numbers = b", seq %d" % seq
    who = _between(stamp, d.pairs[b[o - wide : o]], d.tcp_ports, sport, dport)
    return b"%b%b%b%b, win %d%b, length %d\n" % (who, _FLAGS[flags], numbers, acked, window, options, length)


def _between(stamp: bytes, ends: tuple[bytes, bytes], names: PortNames, sport: int, dport: int) -> bytes:
    if names:
        return b"%b%b.%b > %b.%b: " % (stamp, ends[0], names[sport].encode(), ends[1], names[dport].encode())
    return b"%b%b.%d > %b.%d: " % (stamp, ends[0], sport, ends[1], dport)


def _udp(d: Dissector, stamp: bytes, b: bytes, o: int, end: int, wide: int, length: int) -> bytes:
    sport, dport, size = _UDP(b, o)
    if size < 8 or length < 8:
        return b""
    length -= 8
    size -= 8
    who = _between(stamp, d.pairs[b[o - wide : o]], d.udp_ports, sport, dport)
    served = d.tables.udp_ports
    printer = served.get(dport) or served.get(sport)
    if printer is None:
        if size > length:
            return b"%bUDP, bad length %d > %d\n" % (who, size, length)
        return b"%bUDP, length %d\n" % (who, size)
    if sport in served and served[sport] is not printer:
        return b""
    if printer is domain and size == length and o + 8 + size <= end:
        line = plain(d, who, b, o + 8, o + 8 + size)
        if line:
            return line
    if _VXLAN in (sport, dport):  # tunnels in tunnels have no end
        return b""
    d.buffer = b[o + 8 : min(o + 8 + length, end)]
    try:
        printer(d, 0, min(length, size))
    except ENDS:
        d.mark()
    line = b"%b%b\n" % (who, "".join(d.lines).encode("ascii", "replace"))
    d.lines.clear()
    return line


def _echo(d: Dissector, stamp: bytes, b: bytes, o: int, length: int) -> bytes:
    kind, _, ident, seq = _ECHO(b, o)
    if kind not in (0, 8) or length < 8:
        return b""
    source, target = d.pairs[b[o - 8 : o]]
    said = b"request" if kind else b"reply"
    return b"%b%b > %b: ICMP echo %b, id %d, seq %d, length %d\n" % (stamp, source, target, said, ident, seq, length)


def _arp(d: Dissector, stamp: bytes, b: bytes, o: int, length: int) -> bytes:
    hard, soft, sizes, operation, sender, source, target, wanted = _ARP(b, o + 14)
    if hard != 1 or soft != 0x0800 or sizes != 0x0604:
        return b""
    if operation == 1:
        asked = f" ({d.mac[target]})" if target != _NOBODY else ""
        said = f"Request who-has {d.ip4[wanted]}{asked} tell {d.ip4[source]}"
    elif operation == 2:
        said = f"Reply {d.ip4[source]} is-at {d.mac[sender]}"
    else:
        return b""
    return b"%bARP, %b, length %d\n" % (stamp, said.encode("ascii", "replace"), length)


# A decoder that does not print a packet has to remember of it what another one does that prints it: where TCP
# connections start. Nothing else goes from one packet to the next, as long as tunnels are printed.


def follow(d: Dissector, places: Iterable[Where]) -> None:
    """Remember what Ethernet frames change; those of which only printing them can tell are printed, for nobody."""
    begun = d.streams
    for _, _, length, b, o, end in places:
        d.before += 1
        captured = end - o
        if (captured != length and not captured < length <= MOST_CAPTURED) or captured < 42:
            d.unprinted(length, b[o:end])
            continue
        first, total, size, rest = _ETHER(b, o)
        protocol = wide = p = 0
        if first & _ANY_SERVICE == _IP4_PLAIN:
            if total <= length - 14:
                protocol = rest & _FRAGMENT_AND_PROTOCOL
                p = o + 34
                wide = 8
                size = total - 20
        elif first & _ANY_CLASS == _IP6 and 0 < size <= length - 54 and captured >= 62:
            protocol = rest >> 24
            p = o + 54
            wide = 32
        if protocol == 6 and size >= 20 and end >= p + 20:
            flags = b[p + 13]
            if flags & _ACK and b[p + 12] >= 0x50:
                key = b[p - wide : p + 4]
                if key not in begun or flags & _SYN:
                    remember(d, key, *_NUMBERS(b, p + 4))
        elif protocol == 17:
            if _VXLAN in _UDP(b, p)[:2]:
                d.unprinted(length, b[o:end])
        elif (protocol != 1 or wide != 8) and first >> 16 != 0x0806:  # without -v no packet inside of ICMP is printed
            d.unprinted(length, b[o:end])
