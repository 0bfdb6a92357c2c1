"""Runs in: every process of `bunri dump`. What travels between them: plain values, and nothing that could be called."""

from __future__ import annotations

import enum
from abc import abstractmethod
from dataclasses import dataclass

import msgspec

import bunri

Instruction = tuple[int, int, int, int]
"""One instruction of the classic BPF machine: code, jt, jf, k (struct sock_filter)."""


Where = tuple[int, int, int, bytes, int, int]
"""A packet where it was read: second, fraction, length; the bytes in which it stands, its start and its end there.
It stays in the decoder."""


# What no program sees is a struct: each dataclass takes half a millisecond of the start of every process that knows it.


class Style(msgspec.Struct, frozen=True):
    """How packets are printed; each field is an option of tcpdump, named by what it does."""

    verbose: int = 0  # -v
    quiet: int = 0  # -q
    link: bool = False  # -e
    numeric: int = 0  # -n
    no_domains: bool = False  # -N
    absolute: bool = False  # -S
    unchecked: bool = False  # -K
    time: int = 0  # -t
    hexadecimal: int = 0  # -x
    hex_ascii: int = 0  # -X
    ascii: int = 0  # -A
    number: bool = False  # -#
    nanoseconds: bool = False  # --time-stamp-precision, --nano
    type: str = ""  # -T
    zone: bytes = b""  # the local time zone as a TZif file; empty: what TZ says
    services: dict[str, dict[int, str]] = {}  # "tcp" and "udp": port -> name

    @property
    def brief(self) -> bool:
        """Nothing was asked for that changes the line of an ordinary packet behind its time."""
        told = self.verbose or self.quiet or self.link or self.absolute or self.type
        return not (told or self.hexadecimal or self.hex_ascii or self.ascii)


class Interface(msgspec.Struct, frozen=True):
    """What a capture says of the time stamps of one interface: what they count (pcapng's if_tsresol), offset in seconds."""

    resolution: int
    offset: int


class Swapped(enum.Enum):
    """Whether a packet's two lengths stand the other way round in a capture."""

    NEVER = 0
    PERHAPS = 1
    ALWAYS = 2


class Cursor(msgspec.Struct, frozen=True):
    """Where in a capture file a decoder stands: enough for another one to go on.

    It was written by a decoder that may have been taken over, so it goes to decoders of the same capture and to nobody
    else: the monitor only keeps it.
    """

    started: bool = False
    big_endian: bool = False
    next_generation: bool = False  # pcapng
    first: int = -1  # the link type that the capture's header, or its first interface, told
    snap: int = 0  # and its snapshot length
    head: int = 16  # bytes before each packet of a pcap file
    swapped: Swapped = Swapped.NEVER
    interfaces: list[Interface] = []
    packets: int = 0  # read so far
    matched: int = 0  # let through by the filter
    reference: tuple[int, int] | None = None  # -ttt and -ttttt
    carried: int = 0  # bytes of the last chunk that were not used yet


class Kind(msgspec.Struct, frozen=True):
    """What kind of packets a capture has; or what is wrong with it."""

    fault: str
    link: int
    snap: int
    more: bool = False  # it takes more bytes to tell


class Job(msgspec.Struct, frozen=True):
    """What a decoder is to do with each packet."""

    style: Style
    program: list[Instruction]  # the filter; empty: everything
    prints: bool
    records: bool
    interfaces: dict[int, str]  # index -> name


class RingShape(msgspec.Struct, frozen=True):
    """The memory that the kernel writes packets to, and what stands in it."""

    block_size: int
    blocks: int
    link: int
    cooked: int  # 0: frames as they were; 1, 2: without their link header, which SLL or SLL2 stands for
    snap: int
    nanoseconds: bool
    loopback: int  # the index of the interface on which every packet is seen twice; 0: none
    direction: str  # "", "in", "out"


class Place(msgspec.Struct, frozen=True):
    """A packet of the ring."""

    block: int
    packet: int


class Counted(msgspec.Struct, frozen=True):
    """What the kernel counted since the capture began."""

    received: int
    dropped: int


class Written(msgspec.Struct, frozen=True):
    """What a writer did with records: bytes of them that were used, size of the file now."""

    used: int
    size: int


class Batch(msgspec.Struct, frozen=True):
    """What a decoder made of one piece of a capture."""

    text: bytes
    records: bytes  # as they would stand in a pcap file, for -w
    packets: int  # of this piece, after the filter
    cursor: Cursor
    fault: str = ""  # the capture cannot be read further
    done: bool = False  # as many packets as were asked for


@dataclass(frozen=True)
class Network:
    """The outermost IP header of a packet (RFC 791, RFC 8200)."""

    version: int  # 4 or 6
    source: bytes  # 4 or 16 bytes: `ipaddress.ip_address` reads them
    target: bytes
    protocol: int  # what it carries; of IPv6 behind the extension headers
    hops: int  # that it may still take
    later: bool  # a fragment that is not the first: what it carries has no header


@dataclass(frozen=True)
class Segment:
    """TCP (RFC 9293): ports, numbers as they are on the wire, flags as its fourteenth byte has them."""

    source: int
    target: int
    sequence: int
    acknowledgement: int
    flags: int  # 1 FIN, 2 SYN, 4 RST, 8 PSH, 16 ACK, 32 URG, 64 ECE, 128 CWR
    window: int
    payload: bytes  # what was captured of it


@dataclass(frozen=True)
class Datagram:
    """UDP (RFC 768)."""

    source: int
    target: int
    payload: bytes  # what was captured of it


@dataclass(frozen=True)
class Decoded:
    """One packet, for a program: its bytes, its headers, and what tcpdump would say of it."""

    number: int  # in the capture, from 1
    second: int  # since 1970
    nanosecond: int
    length: int  # on the wire
    data: bytes  # what was captured of it
    text: str  # without the time; several lines with verbose
    ip: Network | None = None  # None: the packet has none, or not whole
    carried: Segment | Datagram | None = None  # None: something else, or not whole


@dataclass
class BadExpression(Exception):
    """What libpcap says of a filter expression."""

    said: str

    def __str__(self) -> str:
        return self.said


@dataclass
class WriteFailed(Exception):
    """What the kernel says of a file that records were to go to."""

    said: str


@dataclass
class BadCapture(Exception):
    """The beginning of a capture file is not one."""

    said: str

    def __str__(self) -> str:
        return self.said


class Names(bunri.Service):
    """Names for addresses, without -n. Asked by the decoder, answered from the resolver's word."""

    @abstractmethod
    def host(self, address: bytes) -> str:
        """The name of an IPv4 or IPv6 address; empty where it has none."""
        ...
