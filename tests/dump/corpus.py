"""Runs in: the test process. One or more packets of each protocol, and the bytes of each that choose its printer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from packets import MAC, ether, four, ip4, ip6, six, tcp, udp, udp4

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
