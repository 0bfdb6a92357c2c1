"""Runs in: the test process. One or more packets of each protocol, and the bytes of each that choose its printer."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from packets import MAC, SIX, ether, four, ip4, ip6, six, tcp, udp, udp4

ETHERTYPE = (12, 13)
PROTOCOL = (14, 23)  # version with header length, protocol
NEXT_HEADER = (14, 20)
PORTS4 = (34, 35, 36, 37)
UDP4 = (*ETHERTYPE, *PROTOCOL, *PORTS4)
TCP4 = UDP4


@dataclass(frozen=True)
class Sample:
    """A packet; from where on it may be mutated, and where not."""

    data: bytes
    start: int
    keep: tuple[int, ...] = ()


SAMPLES: dict[str, list[Sample]] = {}


def samples(made: Callable[[], dict[str, list[Sample]]]) -> Callable[[], dict[str, list[Sample]]]:
    SAMPLES.update(made())
    return made


OPTIONS = bytes.fromhex("020405b40402080a0102030400000000010303070000")[:20]
SACK = bytes.fromhex("0101050a000003e9000007d1")


@samples
def base() -> dict[str, list[Sample]]:
    """Link layers, ARP, IP, TCP, UDP, ICMP."""
    arp = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + MAC[6:] + b"\x0a\0\0\1" + bytes(6) + b"\x0a\0\0\2"
    echo = b"\x08\0\xf7\xfd\0\1\0\1" + bytes(24)
    inner = ip4(17, udp(1000, 2000, b"abcd"))
    unreachable = struct.pack(">BBHI", 3, 3, 0, 0) + inner
    timestamps = bytes.fromhex("440c0901") + b"\x0a\0\0\x09" + struct.pack(">I", 7)
    route = bytes.fromhex("830704") + b"\x0a\0\0\x07" + b"\0"
    hop = bytes.fromhex("3a00050200000100") + b"\x80\0\0\0\0\1\0\1"
    fragment = struct.pack(">BBHI", 17, 0, 1, 99) + udp(5, 6, b"hello")
    routing = bytes.fromhex("1102000100000000") + bytes.fromhex("20010db8" + "00" * 11 + "09") + udp(5, 6, b"x")
    eth = (*ETHERTYPE,)
    return {
        "arp": [
            Sample(ether(0x0806, arp), 14, (14, 15)),
            Sample(ether(0x0806, arp[:7] + b"\2" + arp[8:]), 14, (14, 15)),
            *(Sample(ether(0x8035, arp[:7] + bytes([each]) + arp[8:]), 14, (14, 15)) for each in (3, 4)),
            *(
                Sample(ether(0x0806, b"\0\x0f\x08\0\4\4\0" + bytes([each]) + circuit + b"\x0a\0\0\1" + circuit + b"\x0a\0\0\2"), 14, (14, 15))
                for each, circuit in enumerate((b"\x18\x41\0\0", b"\x18\x40\x05\0", b"\x18\x40\x06\x0b", b"\x18\x40\x06\x0a"), 1)
            ),
        ],
        "ip4": [
            Sample(ether(0x0800, ip4(17, udp(1000, 2000, b"abcd"), offset=0x2000)), 14, (23, *PORTS4)),
            Sample(ether(0x0800, ip4(17, b"abcd", offset=0x0010)), 14, (23,)),
            Sample(ether(0x0800, ip4(253, b"abcd")), 14, (23,)),
            Sample(ether(0x0800, ip4(17, udp(1000, 2000, b"abcd"), extra=timestamps)), 14, (14, 23, 46, 47, 48, 49)),
            Sample(ether(0x0800, ip4(17, udp(1000, 2000, b"abcd"), extra=route)), 14, (14, 23, 42, 43, 44, 45)),
        ],
        "tcp": [
            Sample(four(6, tcp(40000, 50001, flags=2, extra=OPTIONS)), 24, (46, *PORTS4)),
            Sample(four(6, tcp(40000, 50001, b"hello")), 24, (46, *PORTS4)),
            Sample(four(6, tcp(40000, 50001, flags=16, extra=SACK)), 24, (*PORTS4,)),
            Sample(six(6, tcp(40000, 50001, b"hello", extra=OPTIONS)), 66, (54, 55, 56, 57, 66)),
        ],
        "udp": [
            Sample(udp4(40000, 50001, b"hello"), 24, PORTS4),
            Sample(six(17, udp(40000, 50001, b"hello")), 58),
        ],
        "icmp": [
            Sample(four(1, echo), 34),
            Sample(four(1, unreachable), 34, (51, 62, 63, 64, 65)),
            Sample(four(1, struct.pack(">BBHI", 11, 0, 0, 0) + inner), 34, (51, 62, 63, 64, 65)),
            Sample(four(1, struct.pack(">BBHI", 5, 1, 0, 0x0A000009) + inner), 34, (51, 62, 63, 64, 65)),
            Sample(four(1, struct.pack(">BBHHHIII", 14, 0, 0, 1, 2, 100000, 200000, 300000)), 34),
            Sample(four(1, struct.pack(">BBHBBHII", 9, 0, 0, 1, 2, 1800, 0x0A000001, 5)), 34),
        ],
        "ip6": [
            Sample(six(44, fragment), 54, (54, 62, 63, 64, 65)),
            Sample(six(43, routing), 54, (54, 78, 79, 80, 81)),
            Sample(six(59, b""), 14, (14, 20)),
            Sample(six(60, bytes.fromhex("3b01c90000000000") + bytes(8)), 54, (54,)),
            Sample(six(0, b"\x3b" + hop[1:8]), 54, (54,)),
        ],
        "vlan": [
            Sample(ether(0x8100, b"\x20\x05\x08\0" + ip4(17, udp(40000, 50001, b"hi"))), 14, (16, 17, 18, 27, *range(38, 42))),
            Sample(ether(0x88A8, b"\0\x07\x81\0\0\x08\x86\xdd" + ip6(59, b"")), 14, (*range(16, 18), 20, 21, 22, 28)),
        ],
        "llc": [
            Sample(MAC + struct.pack(">H", 10) + b"\x8e\x8e\x03" + bytes(7), 14, (14, 15)),
            Sample(MAC + struct.pack(">H", 10) + b"\xf0\xf1\x7f" + bytes(7), 16),
            Sample(MAC + struct.pack(">H", 14) + b"\xf0\xf0\x01\x05" + bytes(10), 16),
            Sample(MAC + struct.pack(">H", 12) + b"\xaa\xaa\x03\0\0\0\x12\x34" + bytes(4), 22, (14, 15, 16)),
            Sample(MAC + b"\x12\x34" + bytes(20), 14, eth),
        ],
        "tunnel": [
            Sample(four(4, ip4(17, udp(40000, 50001, b"in"))), 34, (34, 43, *range(54, 58))),
            Sample(four(41, ip6(17, udp(40000, 50001, b"in"))), 34, (34, 40, *range(74, 78))),
        ],
    }  # fmt: skip


def label(*words: bytes) -> bytes:
    return b"".join(bytes([len(each)]) + each for each in words) + b"\0"


WWW = label(b"www", b"example", b"com")
POINTER = b"\xc0\x0c"  # to the name of the question


def dns(flags: int, questions: list[bytes], *sections: list[bytes]) -> bytes:
    counts = [len(each) for each in (questions, *sections)] + [0] * (3 - len(sections))
    return (
        struct.pack(">HHHHHH", 4660, flags, *counts)
        + b"".join(questions)
        + b"".join(b"".join(each) for each in sections)
    )


def rr(name: bytes, kind: int, data: bytes, group: int = 1, life: int = 3600) -> bytes:
    return name + struct.pack(">HHIH", kind, group, life, len(data)) + data


def ask(kind: int, group: int = 1) -> bytes:
    return WWW + struct.pack(">HH", kind, group)


ANSWERS = [
    rr(POINTER, 1, b"\xc0\0\2\1"), rr(POINTER, 28, bytes.fromhex("20010db8000000000000000000000007")),
    rr(POINTER, 5, label(b"other") [:-1] + POINTER), rr(POINTER, 15, b"\0\x0a" + label(b"mail")[:-1] + POINTER),
    rr(POINTER, 16, b"\x05hello\x03\x01\xff\\"), rr(POINTER, 33, struct.pack(">HHH", 1, 2, 5060) + WWW),
    rr(POINTER, 6, WWW + POINTER + struct.pack(">5I", 1, 2, 3, 4, 5)), rr(POINTER, 46, bytes(30)),
    rr(POINTER, 256, b"\0\1\0\2http://x"), rr(POINTER, 38, b"\x40" + bytes(8) + WWW), rr(POINTER, 65399, b"abc"),
    rr(POINTER, 250, label(b"hmac") + bytes(6) + struct.pack(">HH4sHHH", 300, 4, b"sign", 7, 0, 0)),
]  # fmt: skip
OPT = b"".join(
    struct.pack(">HH", kind, len(data)) + data
    for kind, data in [
        (3, b"ns"), (5, b"\1\x08\x0d"), (6, b"\1\2"), (7, b"\1\2"), (8, b"\0\1\x18\0\xc0\0\2"), (8, b"\0\2\x10\0\x20\x01"),
        (9, b"\0\0\0\5"), (10, bytes(range(8))), (10, bytes(range(16))), (11, b"\0\x64"), (12, bytes(5)), (13, WWW),
        (14, b"\0\1\0\2"), (99, b"xyz"), (15, b""),
    ]
)  # fmt: skip


@samples
def names() -> dict[str, list[Sample]]:
    """DNS, with EDNS and DNSSEC; multicast DNS."""
    messages = [
        dns(0x0100, [ask(1)]),
        dns(0x0110, [ask(28)], [], [], [rr(b"\0", 41, OPT, 4096, 0x8000)]),
        dns(0x8180, [ask(1)], ANSWERS[:3]),
        dns(0x8583, [ask(28)], ANSWERS[:2], [ANSWERS[6]]),
        dns(0x85A3, [ask(255)], [], [ANSWERS[6]], [rr(b"\0", 41, b"", 1232, 0x01000000)]),
        dns(0x8180, [ask(15)], ANSWERS[3:6], ANSWERS[6:8], ANSWERS[8:]),
        dns(0x0800, [], [ANSWERS[0]]),
        dns(0x0900, [ask(1)]),
        dns(0x2800, [ask(6, 4)], [], [ANSWERS[0]], [ANSWERS[1]]),
    ]
    multicast = [
        dns(0, [ask(12, 0x8001), ask(33)]),
        dns(0x8400, [], [rr(WWW, 1, b"\xc0\0\2\1", 0x8001), rr(b"\xc0\x0c", 12, WWW, 1)]),
    ]
    made = [Sample(udp4(40000, 53, each), 42, ()) for each in messages]
    made += [Sample(udp4(5353, 5353, each), 42) for each in multicast]
    made.append(Sample(four(6, tcp(40000, 53, struct.pack(">H", len(messages[2])) + messages[2])), 54, (54, 55)))
    return {"dns": made}


@samples
def groups() -> dict[str, list[Sample]]:
    """IGMP, and the rest of ICMPv6."""
    group, source = b"\xe0\0\0\x05", b"\x0a\0\0\7"
    igmp = [
        b"\x63\0\0\0abcd",
        b"\x11\x64\0\0" + bytes(4), b"\x11\x0a\0\0" + group, b"\x11\0\0\0" + group, b"\x12\0\0\0" + group,
        b"\x16\0\0\0" + group, b"\x17\0\0\0" + group, b"\x11\xc8\0\0" + group + b"\2\x7d\0\1" + source,
        b"\x22\0\0\0\0\0\0\2" + b"\1\0\0\1" + group + source + b"\4\0\0\0" + group,
        b"\x1f\1\0\0" + group + source + source + source + b"\x05\0\0\x09",
    ]  # fmt: skip
    one, two = bytes.fromhex("20010db8" + "00" * 11 + "07"), bytes.fromhex("fe80" + "00" * 13 + "01")
    options = (
        b"\1\1" + MAC[:6]
        + b"\3\4\x40\xc0" + struct.pack(">III", 86400, 0xFFFFFFFF, 0) + one
        + b"\5\1\0\0\0\0\5\xdc" + b"\x19\3\0\0\0\0\0\x3c" + one + b"\x1f\3\0\0\0\0\0\x3c" + (WWW + bytes(16))[:16]
        + b"\x07\1\0\0\0\0\1\0" + b"\x08\1\0\0\0\1\0\2" + b"\x18\2\x20\x08\0\0\0\x09" + one[:8] + b"\x63\1abcdef"
    )  # fmt: skip
    inner = ip6(17, udp(1000, 2000, b"x"))
    messages = [
        struct.pack(">BBHHH", 128, 0, 0, 7, 8) + b"ping", struct.pack(">BBHHH", 129, 0, 0, 7, 8),
        b"\1\4\0\0\0\0\0\0" + inner, b"\1\0\0\0\0\0\0\0" + inner, b"\1\2\0\0\0\0\0\0" + inner, b"\1\x09\0\0" + bytes(8),
        b"\2\0\0\0\0\0\5\0" + inner, b"\3\0\0\0\0\0\0\0" + inner, b"\3\1\0\0\0\0\0\0", b"\4\1\0\0\0\0\0\6" + inner,
        b"\x85\0\0\0\0\0\0\0" + options[:8], b"\x86\0\0\0\x40\xe8\x07\x08" + bytes(8) + options,
        b"\x87\0\0\0\0\0\0\0" + one + options[:8], b"\x88\0\0\0\xe0\0\0\0" + one + b"\2\1" + MAC[:6],
        b"\x89\0\0\0\0\0\0\0" + one + two + b"\4\2\0\0\0\0\0\0" + bytes(8),
        b"\x82\0\0\0\x03\xe8\0\0" + one, b"\x83\0\0\0\0\0\0\0" + one, b"\x84\0\0\0\0\0\0\0" + one,
        b"\x82\0\0\0\x93\xe8\0\0" + one + b"\x0a\x8d\0\1" + two,
        b"\x8f\0\0\0\0\0\0\2" + b"\4\0\0\1" + one + two + b"\1\0\0\0" + one,
        b"\x8a\0\0\0\0\0\0\1\7\xf8\0\5\0\0\0\1" + b"\1\x07\2\x40\x10\x80\0\0" + one + b"\x40\x10\xc0\xc0" + bytes(8) + b"\xc0\0\0\0" + two,
        b"\x8b\1\0\0\0\2\0\0" + bytes(8) + WWW, b"\x8b\0\0\0\0\3\0\x3e" + bytes(8) + one, b"\x8b\2\0\0\0\3\0\x3e" + bytes(8) + one[:4],
        b"\x8c\0\0\0\0\2\0\1" + bytes(8) + b"\0\0\0\x3c" + WWW, b"\x8c\0\0\0\0\3\0\x7f" + bytes(8) + b"\0\0\0\x3c" + one,
        b"\x8c\1\0\0\0\0\0\0" + bytes(8), b"\x8d\0\0\0", b"\x90\0\0\0\0\7\0\0", b"\x91\0\0\0\0\7\0\0" + one,
        b"\x92\0\0\0\0\7\0\0", b"\x93\0\0\0\0\7\xc0\0" + options[8:40], b"\xc9\0\0\0abcd", b"\x63\0\0\0abcd",
        b"\x9b\1\0\0\1\2\0\3\x88\5\0\0" + one + b"\1\2ab" + b"\0" + b"\4\0", b"\x9b\2\0\0\1\xc0\0\5" + one + b"\5\2ab",
        b"\x9b\3\0\0\1\x80\6\7" + one, b"\x9b\0\0\0", b"\x9b\x80\0\0", b"\x9b\x09\0\0",
    ]  # fmt: skip
    return {
        "igmp": [Sample(four(2, each), 34, (34,)) for each in igmp],
        "icmp6": [Sample(six(58, each), 55) for each in messages],
    }


@samples
def applications() -> dict[str, list[Sample]]:
    """NTP, TFTP, HTTP and its like, and tunnels."""
    stamps = b"".join(struct.pack(">II", 3_900_000_000 + at, at << 30) for at in (0, 1, 2, 1))
    times = [
        b"\x23\2\6\xec" + struct.pack(">HHHH", 0, 100, 1, 40000) + b"\x0a\0\0\1" + stamps,
        b"\x1c\1\xfa\xec" + bytes(8) + b"GPS\0" + stamps + bytes(4) + bytes(range(16)),
        b"\xe3\0\3\xfa" + bytes(44), b"\x16\x82\0\1\6\x18\0\2\0\0\0\4abcd", b"\x17" + bytes(20),
        b"\x25\x3e\6\xec" + bytes(44) + bytes(7),
    ]  # fmt: skip
    transfers = [
        b"\0\1file\0octet\0blksize\x001428\0", b"\0\2a\x01\xff\0netascii\0", b"\0\3\0\1" + bytes(20), b"\0\4\0\1",
        b"\0\5\0\1not found\0", b"\0\5\0\x63x\0", b"\0\6blksize\x001428\0", b"\0\x09abc",
    ]  # fmt: skip
    lines = [
        (80, b"GET /index.html HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n"),
        (8080, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x89PNG"), (80, b"just data\x01\x02\r\n"),
        (25, b"EHLO mail.example.com\r\n"), (21, b"220 ready\r\n"), (43, b"example.com\n"), (22, b"SSH-2.0-OpenSSH_9.2p1\r\n"),
        (22, bytes(range(40))), (554, b"DESCRIBE rtsp://x RTSP/1.0\r\nCSeq: 2\r\n\r\n"), (80, b"POST /x HTTP/1.0"),
    ]  # fmt: skip
    inside = ip4(17, udp(40000, 50001, b"in"))
    frame = ether(0x0800, inside)
    gre = [
        b"\0\0\x08\0" + inside, b"\xb0\0\x08\0" + b"\x12\x34\0\0" + b"\0\0\0\7" + b"\0\0\0\x09" + inside, b"\0\0\x65\x58" + frame,
        b"\0\0\x12\x34abcd", b"\x40\0\x08\0\0\0\0\0" + b"\x08\0\0\4\x0a\0\0\1" + b"\xff\xfe\0\2\0\7" + bytes(4) + inside,
        b"\x30\x81\x12\x34\0\4\0\1" + b"\0\0\0\1\0\0\0\2abcd", b"\x20\1\x12\x34\0\4\0\1", b"\0\7\0\0", b"\0\0\x86\xdd" + ip6(59, b""),
    ]  # fmt: skip
    found = {
        "ntp": [Sample(udp4(123, 123, each), 42) for each in times],
        "tftp": [Sample(udp4(40000, 69, each), 42) for each in transfers],
        "text": [Sample(four(6, tcp(40000, port, each)), 54) for port, each in lines],
        "gre": [
            Sample(four(47, each), 34, tuple(range(35, 34 + len(each))) if b"E\0" in each else (35, 36, 37, 38, 44))
            for each in gre
        ],
        "vxlan": [Sample(udp4(40000, 4789, b"\x08\0\0\0\0\0\x07\0" + frame), 42, tuple(range(62, 92)))],
    }
    return found


@samples
def leases() -> dict[str, list[Sample]]:
    """DHCP and DHCPv6, with every option that has a printer."""
    head = b"\1\1\6\1" + struct.pack(">IHH", 0x1234, 3, 0x8000) + bytes(12) + b"\x0a\0\0\1" + MAC[:6] + bytes(10)
    options = [
        (53, b"\1"), (55, b"\1\3\6\x0f\x77\xfb"), (61, b"\1" + MAC[:6]), (61, b"\0me"), (61, b"\x63ab"), (12, b"host\x01"),
        (1, b"\xff\xff\xff\0"), (3, b"\x0a\0\0\1\x0a\0\0\2"), (2, b"\xff\xff\xff\xf0"), (21, bytes(16)), (57, b"\5\xdc"),
        (19, b"\1\0\5"), (43, b"\1\2\3"), (46, b"\x08"), (46, b"\x03"), (52, b"\3"), (77, b"\2ab\1c"), (81, b"\x05\1\2name"),
        (82, b"\1\2ab\2\1c\x09\1d"), (121, b"\x18\x0a\0\1\x0a\0\0\1\0\x0a\0\0\2"), (249, b"\x21abcde"), (200, b"ab"),
        (201, b"abcd"), (202, b"abc"), (51, b"\0\0\x0e\x10\1"), (53, b"\1\2"), (61, b""), (52, b""),
    ]  # fmt: skip
    body = b"".join(bytes([kind, len(data)]) + data for kind, data in options) + bytes(4) + b"\xff"
    cookie = b"\x63\x82\x53\x63"
    messages = [
        head + bytes(192) + cookie + body, b"\2\6\x08\0" + head[4:] + b"name\0" + bytes(59) + b"file\0" + bytes(123) + cookie + b"\x35\1\5\xff",
        head + bytes(192) + b"CMU\0" + b"\3" + bytes(3) + bytes(range(1, 33)), head + bytes(192) + b"\1\2\3\4",
    ]  # fmt: skip
    one = bytes.fromhex("20010db8" + "00" * 11 + "07")

    def option(kind: int, data: bytes) -> bytes:
        return struct.pack(">HH", kind, len(data)) + data

    address = option(5, one + struct.pack(">II", 100, 200) + option(13, b"\0\2full"))
    every = [
        option(1, b"\0\1\0\1\0\0\0\5" + MAC[:6]), option(2, b"\0\2" + bytes(8)), option(2, b"\0\3\0\1" + MAC[:6]), option(1, b"\0\7"),
        option(3, struct.pack(">III", 1, 2, 3) + address), option(4, b"\0\0\0\1" + address), option(6, b"\0\x17\0\x18\0\xff"),
        option(7, b"\5"), option(8, b"\0\x64"), option(11, b"\2\1\0" + bytes(8) + b"realm" + bytes(20)),
        option(11, b"\3\1\0" + bytes(8) + b"\1" + bytes(16)), option(11, b"\x09\2\3" + bytes(8)), option(13, b"\1\0"), option(14, b""),
        option(18, b"eth0"), option(19, b"\5"), option(19, b"\1"), option(20, b""), option(23, one + one), option(24, WWW + WWW),
        option(25, struct.pack(">III", 1, 2, 3) + option(26, struct.pack(">IIB", 1, 2, 56) + one)), option(32, b"\0\0\0\7"),
        option(37, b"\0\0\0\x09remote-id-long"), option(38, b"subscriber-long"), option(41, b"EST5EDT"), option(44, b"\1" + one + address),
        option(45, address), option(46, b"\0\0\0\1"), option(47, one + b"relay"), option(56, option(1, one) + option(3, WWW) + option(9, b"x")),
        option(64, WWW), option(112, b"https://x/"), option(300, b"abc"), option(8, b"\0"),
    ]  # fmt: skip
    second = [b"\1\x12\x34\x56" + b"".join(every[:14]), b"\7\x12\x34\x56" + b"".join(every[14:]), b"\x20\0\0\0"]
    second += [b"\x0c\1" + one + one + option(9, second[2] + every[8]) + every[14], b"\3\0\0\1" + option(4, b"\0")]
    return {
        "dhcp": [Sample(udp4(68, 67, each), 42) for each in messages],
        "dhcp6": [Sample(six(17, udp(546, 547, each)), 62) for each in second],
    }


def part(kind: int, data: bytes) -> bytes:
    """Of LLDP, and inside of DCBX's part again: seven bits of type, nine of length."""
    return struct.pack(">H", kind << 9 | len(data)) + data


@samples
def switches() -> dict[str, list[Sample]]:
    """LLDP, with what IEEE, TIA, IANA and DCBX put into it."""
    address = b"\x05\x01\x0a\0\0\7" + b"\2\0\0\0\x05" + b"\x04\x2b\x06\1\4"
    plain = [
        part(1, b"\4" + MAC[:6]), part(1, b"\5\1\x0a\0\0\7"), part(1, b"\7name\0more"), part(1, b"\x09??"),
        part(2, b"\3" + MAC[6:12]), part(2, b"\5Gi0/1"), part(2, b"\4\2" + SIX[0]), part(2, b"\4\x63x"), part(3, b"\0\x78"),
        part(4, b"uplink \xc3\xa9"), part(5, b"switch-1"), part(6, b"Some OS\n1.0"), part(7, b"\0\x14\0\x04"), part(8, address),
        part(8, b"\x07\6" + MAC[:6] + b"\3\0\0\0\1"), part(9, b"abc"), part(127, b"\0\x80\x99abc"),
    ]  # fmt: skip
    ieee = [
        (1, b"\0\7"), (2, b"\6\0\7"), (3, b"\0\7\x05vlan7"), (4, b"\3abc"), (7, b"\3\0\0\0\x09"), (8, b"\x5a\xa5"),
        (9, b"\xca" + bytes(range(20))), (10, b"\3" + bytes(range(100, 120))), (11, b"\xd4\x81"), (12, b"\0\x63\x89\x06\x21\0\x09"),
        (13, bytes.fromhex("9abcde7ff1")), (14, b"\x98\0\0\7" + bytes.fromhex("001002003004")), (5, b"xyz"),
    ]  # fmt: skip
    wire = [(1, b"\3\x6c\x11\0\x1e"), (2, b"\x07\1\4"), (3, b"\1\0\0\0\2"), (4, b"\5\xee"), (9, b"x")]
    civic = b"\2\x0d\1DE\1\3BER\6\3abc"
    media = [
        (1, b"\0\x3f\3"), (2, b"\1\x40\x0e\xae"), (3, b"\1" + bytes(range(9, 25))), (3, civic), (3, b"\3112"), (3, b"\x09ab"),
        (4, b"\x53\0\x41"), (4, b"\x12\x04\x01"), (5, b"rev"), (11, b"asset\0"), (77, b"x"),
    ]  # fmt: skip
    inner = [
        part(1, b"\0\0\0\0\0\1\0\0\0\2"), part(2, b"\0\0\xa0\0\x01\x23\x45\x67" + bytes(range(9))),
        part(3, b"\0\0\x40\0\x55\4"), part(4, b"\0\0\x80\0\x89\x06\0\x1b\x21\x08" + b"\x0c\xbc\x40\x1b\x21\x10"), part(9, b"ab"),
    ]  # fmt: skip
    organizations = [
        *(part(127, b"\0\x80\xc2" + bytes([kind]) + data) for kind, data in ieee),
        *(part(127, b"\0\x12\x0f" + bytes([kind]) + data) for kind, data in wire),
        *(part(127, b"\0\x12\xbb" + bytes([kind]) + data) for kind, data in media),
        part(127, b"\0\0\x5e\1https://a.example/"), part(127, b"\0\0\x5e\2abcde"),
        part(127, b"\0\x1b\x21\2" + b"".join(inner)), part(127, b"\0\x1b\x21\1abc"),
    ]  # fmt: skip
    made = [Sample(ether(0x88CC, each + part(0, b"")), 14) for each in (*plain, *organizations)]
    made.append(Sample(ether(0x88CC, b"".join(plain) + part(0, b"")), 14))
    inside = ether(0x0800, ip4(17, udp(40000, 50001, b"hi")))
    return {
        "lldp": made,
        "in ip6": [Sample(six(143, inside), 54, (66, 67, 77, *range(88, 92))), Sample(four(143, inside), 34)],
        "mobility": [Sample(six(135, bytes([59, 4, kind, 0]) + bytes(range(36))), 56, (56,)) for kind in range(9)],
    }


def connections(chance: random.Random, count: int) -> list[bytes]:
    """Segments of a few connections in both directions, over IPv4 and IPv6, as they come."""
    made: list[bytes] = []
    stamps = b"\1\1\x08\x0a"
    for _ in range(count):
        port = 40000 + chance.randrange(6)
        ends = (port, 50001) if chance.random() < 0.5 else (50001, port)
        flags = chance.choice((2, 18, 16, 16, 16, 24, 24, 17, 4, 20, 0, 48))
        extra = chance.choice((b"", stamps + chance.randbytes(8), stamps[:3] + b"\x05" + chance.randbytes(8)))
        segment = bytearray(tcp(*ends, chance.randbytes(chance.choice((0, 0, 1, 9, 1400))), flags=flags, extra=extra))
        segment[4:12] = chance.randbytes(8) if chance.random() < 0.5 else bytes(3) + chance.randbytes(5)
        made.append(four(6, bytes(segment)) if port % 2 else six(6, bytes(segment)))
        if chance.random() < 0.3:
            made[-1] += bytes(chance.randrange(1, 8))  # as short frames are filled up
    return made
