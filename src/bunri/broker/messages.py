"""Runs in: nowhere; values only. What the monitor and a broker's process say to each other.

The same wire as between monitor and zygotes: one SEQPACKET socket, a msgpack message per packet, descriptors beside it.
Downwards it is trusted. Upwards the monitor decodes by type, and ends a broker that says anything else: the broker has
read names that a worker chose.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Refuser = Literal["seccomp filter", "broker", "file permissions"]
Registers = tuple[int, int, int, int, int, int]


class Word(msgspec.Struct, frozen=True, tag_field="say", forbid_unknown_fields=True):
    """One message."""


class TreeGrant(msgspec.Struct, frozen=True):
    """A directory or a file outside, and where a worker knows it."""

    path: str
    at: str
    writable: bool = False
    links: bool = False
    optional: bool = False


class Address(msgspec.Struct, frozen=True):
    """A granted host and port. `addresses` are those that the name had when it was looked up, once."""

    host: str
    port: int
    addresses: tuple[str, ...]


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker is to do, and as whom. Told once, before it gives up its rights; it never grows."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    trees: tuple[TreeGrant, ...] = ()
    connects: tuple[Address, ...] = ()
    listens: tuple[int, ...] = ()
    sockets: tuple[str, ...] = ()  # paths of Unix sockets
    looks_up: bool = False  # names of hosts, users and groups
    texts: tuple[tuple[str, str], ...] = ()  # files of our own making: path and content
    transparent: bool = False  # a listener comes with it, and the memory of its worker
    several: bool = False  # the worker may be several processes, whose memory is asked for
    filter: bytes = b""  # development mode: the worker's without it; its refusals are given here, and told
    landlock: int = 0  # ABI
    changes_ids: bool = False


# The monitor asks ---------------------------------------------------------------------------------------------------


class Ask(Word, frozen=True):
    """A request; `number` comes back with the answer."""

    number: int


class AskOpen(Ask, frozen=True, tag="open"):
    """Open `name` beneath the tree."""

    name: str
    flags: int
    mode: int


class AskNames(Ask, frozen=True, tag="names"):
    """What the tree holds."""


class AskConnect(Ask, frozen=True, tag="connect"):
    """A connection to the one address, or the one Unix socket, of the charge."""


class AskListen(Ask, frozen=True, tag="listen"):
    """A socket that listens on the one port of the charge, at this address."""

    host: str
    backlog: int


class AskAddresses(Ask, frozen=True, tag="addresses"):
    """The addresses of a host."""

    host: str


class AskUser(Ask, frozen=True, tag="user"):
    """A user, by name or by number."""

    name: str = ""
    uid: int = -1


class AskGroup(Ask, frozen=True, tag="group"):
    """A group, by name or by number."""

    name: str = ""
    gid: int = -1


# The broker answers -------------------------------------------------------------------------------------------------


class BrokerReady(Word, frozen=True, tag="broker_ready"):
    """It holds what it was charged with, and has given up the rest."""

    pid: int


class BrokerFailed(Word, frozen=True, tag="broker_failed"):
    """It cannot do what it was charged with, and ends."""

    text: str
    step: str
    errno: int


class Answer(Word, frozen=True, tag="answer"):
    """What was asked for; a descriptor stands beside it where one was."""

    number: int
    texts: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


class Refusal(Word, frozen=True, tag="refusal"):
    """What was asked for was refused."""

    number: int
    errno: int
    text: str


class Want(Word, frozen=True, tag="want"):
    """The memory of one of the worker's processes; with `fd`, what stands under that number there."""

    pid: int
    fd: int = -1


class Denied(Word, frozen=True, tag="denied"):
    """A call of the worker that was refused, or, `deadly`, stands still until the worker is killed for it.

    `texts`: what paths, names and socket addresses said, by argument."""

    number: int  # of the call
    args: Registers
    errno: int
    layer: Refuser
    deadly: bool = False
    texts: tuple[tuple[int, str], ...] = ()
    untold: int = 0  # refusals before it that were too many to be told


# The monitor answers ------------------------------------------------------------------------------------------------


class Given(Word, frozen=True, tag="given"):
    """The memory is beside it. `inode`: of the socket under the number; 0 where none was asked for, or it is none."""

    inode: int


class NotGiven(Word, frozen=True, tag="not_given"):
    """That process has ended, or is none of the worker's."""


Asked = AskOpen | AskNames | AskConnect | AskListen | AskAddresses | AskUser | AskGroup

encode = msgspec.msgpack.Encoder().encode
decode_given = msgspec.msgpack.Decoder(Given | NotGiven).decode
decode_asked = msgspec.msgpack.Decoder(Asked).decode
