"""Runs in: the decoder, confined; pure. What most captures are made of, in one pass: ARP, and plain IP with TCP, UDP, echoes.

Plain: on Ethernet, no IP options or extension headers, no fragment, all headers captured, TCP with no option but time
stamps, and none of the program's options that change a line (`d.brief`). Everything else gets False, before anything
was printed or remembered, and goes the long way: link.py, ip4.py, tcp.py and so on. Those say what a line looks like;
the tests print each packet both ways.

The packet is read where it stands, `b[o:end]`: most of it is never copied. `stamp` is when it came, as it is printed.
"""

from __future__ import annotations

import struct

from bunri.apps.dump.decode.core import ENDS, Dissector
from bunri.apps.dump.decode.tcp import FLAGS, remember

_ETHER = struct.Struct(
    ">12xHHHHI"
).unpack_from  # type; of IPv4: version to service, length, ident, fragment to protocol
_IP6 = struct.Struct(">IHB").unpack_from
_TCP = struct.Struct(">HHIIBBH").unpack_from
_TIMES = struct.Struct(">III").unpack_from
_UDP = struct.Struct(">HHH").unpack_from
_ECHO = struct.Struct(">BB2xHH").unpack_from
_ARP = struct.Struct(">HHHH6s4s6s4s").unpack_from
_FRAGMENT_AND_PROTOCOL = 0x3FFF00FF
_FIN, _SYN, _RST, _ACK, _URG = 1, 2, 4, 16, 32
_TIMES_ALONE = 0x0101080A  # two of nothing, then time stamps
_VXLAN = 4789
_NOBODY = bytes(6)


def common(d: Dissector, stamp: str, b: bytes, o: int, end: int, length: int) -> bool:
    """Print the whole line of an Ethernet frame that had `length` bytes on the wire, if it is of the common kind."""
    if end < o + 42:
        return False
    kind, first, total, _, rest = _ETHER(b, o)
    if kind == 0x0800:
        if first >> 8 != 0x45 or total > length - 14:
            return False
        ends = d.ip4[b[o + 26 : o + 30]], d.ip4[b[o + 30 : o + 34]]
        protocol = rest & _FRAGMENT_AND_PROTOCOL
        if protocol == 6:
            return _tcp(d, f"{stamp}IP ", ends, b, o + 34, end, total - 20, b[o + 26 : o + 38])
        if protocol == 17:
            return _udp(d, f"{stamp}IP ", ends, b, o + 34, end, total - 20)
        return protocol == 1 and _echo(d, f"{stamp}IP ", ends, b, o + 34, total - 20)
    if kind == 0x86DD:
        return end >= o + 62 and _ip6(d, f"{stamp}IP6 ", b, o, end, length - 54)
    return kind == 0x0806 and _arp(d, stamp, b, o, length - 14)


def _ip6(d: Dissector, head: str, b: bytes, o: int, end: int, room: int) -> bool:
    first, size, following = _IP6(b, o + 14)
    if first >> 28 != 6 or not 0 < size <= room:
        return False
    ends = d.ip6[b[o + 22 : o + 38]], d.ip6[b[o + 38 : o + 54]]
    if following == 6:
        return _tcp(d, head, ends, b, o + 54, end, size, b[o + 22 : o + 58])
    return following == 17 and _udp(d, head, ends, b, o + 54, end, size)


def _tcp(d: Dissector, head: str, ends: tuple[str, str], b: bytes, o: int, end: int, length: int, key: bytes) -> bool:
    if end < o + 20:
        return False
    sport, dport, seq, ack, size, flags, window = _TCP(b, o)
    if size == 0x80 and end >= o + 32:
        kinds, value, echo = _TIMES(b, o + 20)
        if kinds != _TIMES_ALONE:
            return False
        options = f", options [nop,nop,TS val {value} ecr {echo}]"
        length -= 32
    elif size == 0x50:
        options = ""
        length -= 20
    else:
        return False
    if length < 0 or flags & _URG:
        return False
    if length and (sport in d.tables.tcp_ports or dport in d.tables.tcp_ports):
        return False
    acked = ""
    if flags & _ACK:
        start = d.streams.get(key)
        if start is None or flags & _SYN:
            remember(d, key, (seq, ack - 1 & 0xFFFFFFFF))
        else:
            seq = seq - start[0] & 0xFFFFFFFF
            ack = ack - start[1] & 0xFFFFFFFF
        acked = f", ack {ack}"
    numbers = ""
    if length:
        numbers = f", seq {seq}:{seq + length & 0xFFFFFFFF}"
    elif flags & (_SYN | _FIN | _RST):
        numbers = f", seq {seq}"
    port = d.tcp_ports.get
    d.write(
        f"{head}{ends[0]}.{port(sport, sport)} > {ends[1]}.{port(dport, dport)}: "
        f"{FLAGS[flags]}{numbers}{acked}, win {window}{options}, length {length}\n"
    )
    return True


def _udp(d: Dissector, head: str, ends: tuple[str, str], b: bytes, o: int, end: int, length: int) -> bool:
    sport, dport, size = _UDP(b, o)
    if size < 8 or length < 8:
        return False
    length -= 8
    size -= 8
    port = d.udp_ports.get
    head = f"{head}{ends[0]}.{port(sport, sport)} > {ends[1]}.{port(dport, dport)}: "
    known = d.tables.udp_ports.get
    printer = known(dport) or known(sport)
    if printer is not None:
        if known(sport) not in (None, printer):
            return False
        d.write(head)
        d.buffer = b[o + 8 : min(o + 8 + length, end)]
        try:
            printer(d, 0, min(length, size))
        except ENDS:
            d.mark()
        d.write("\n")
    elif size > length:
        d.write(f"{head}UDP, bad length {size} > {length}\n")
    else:
        d.write(f"{head}UDP, length {size}\n")
    return True


def _echo(d: Dissector, head: str, ends: tuple[str, str], b: bytes, o: int, length: int) -> bool:
    kind, _, ident, seq = _ECHO(b, o)
    if kind not in (0, 8) or length < 8:
        return False
    said = "request" if kind else "reply"
    d.write(f"{head}{ends[0]} > {ends[1]}: ICMP echo {said}, id {ident}, seq {seq}, length {length}\n")
    return True


def _arp(d: Dissector, stamp: str, b: bytes, o: int, length: int) -> bool:
    hard, soft, sizes, operation, sender, source, target, wanted = _ARP(b, o + 14)
    if hard != 1 or soft != 0x0800 or sizes != 0x0604:
        return False
    if operation == 1:
        asked = f" ({d.mac[target]})" if target != _NOBODY else ""
        d.write(f"{stamp}ARP, Request who-has {d.ip4[wanted]}{asked} tell {d.ip4[source]}, length {length}\n")
    elif operation == 2:
        d.write(f"{stamp}ARP, Reply {d.ip4[source]} is-at {d.mac[sender]}, length {length}\n")
    else:
        return False
    return True


# A decoder that does not print a packet has to remember of it what another one does that prints it: where TCP
# connections start. Nothing else goes from one packet to the next, as long as tunnels are printed.


def follow(d: Dissector, b: bytes, o: int, end: int, length: int) -> bool:
    """Remember what a packet changes; False, and nothing remembered, where only printing it can tell."""
    if end < o + 42:
        return False
    kind, first, total, _, rest = _ETHER(b, o)
    if kind == 0x0800:
        if first >> 8 != 0x45 or total > length - 14:
            return False
        protocol = rest & _FRAGMENT_AND_PROTOCOL
        if protocol == 6:
            return _follow_tcp(d, b, o + 34, end, total - 20, b[o + 26 : o + 38])
        if protocol == 17:
            return _is_no_tunnel(b, o + 34)
        return bool(protocol == 1)  # without -v no packet inside is printed
    if kind == 0x86DD and end >= o + 62:
        first, size, following = _IP6(b, o + 14)
        if first >> 28 != 6 or not 0 < size <= length - 54:
            return False
        if following == 6:
            return _follow_tcp(d, b, o + 54, end, size, b[o + 22 : o + 58])
        return bool(following == 17) and _is_no_tunnel(b, o + 54)
    return bool(kind == 0x0806)


def _follow_tcp(d: Dissector, b: bytes, o: int, end: int, length: int, key: bytes) -> bool:
    if end < o + 20 or length < 20:
        return False
    _, _, seq, ack, size, flags, _ = _TCP(b, o)
    if flags & _ACK and size >= 0x50 and (flags & _SYN or key not in d.streams):
        remember(d, key, (seq, ack - 1 & 0xFFFFFFFF))
    return True


def _is_no_tunnel(b: bytes, o: int) -> bool:
    return _VXLAN not in _UDP(b, o)[:2]
