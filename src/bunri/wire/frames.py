"""Runs in: every process; pure. Packets and the messages in them.

    packet   = message+                            at most LARGEST_PACKET bytes
    message  = header [blobs] body
    header   = kind:u8 flags:u8 descriptors:u8 blobs:u8  object:u32 method-or-count:u16 _:u16  call:u32  length:u32
    blobs    = (position:u32 offset:u32 length:u32) x blobs       where in the arena an argument's bytes are

All numbers are little-endian. A body that does not fit travels as CHUNK messages with the same call number, each with
a part of it, before the message itself, which has the last part. A packet with descriptors holds one message only, so
that nobody can mistake whose they are.

`Reader.read` is total: any bytes give messages or a ProtocolError, never anything else.
(lead: the channel is written against this file; extend, do not replace)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple

import msgspec

from bunri.errors import ProtocolError

LARGEST_PACKET = 64 << 10  # bytes
LARGEST_BODY = 64 << 20  # bytes, put together from chunks
LARGEST_UNCUT = LARGEST_PACKET - 1024  # bytes of a body that certainly travels in one packet
MOST_DESCRIPTORS = 16  # of one message
MOST_BLOBS = 16
MOST_UNFINISHED = 16  # bodies that are being put together at one time

_HEADER = struct.Struct("<BBBBIHHII")
_BLOB = struct.Struct("<III")
HEADER_SIZE = _HEADER.size
_pack_header = _HEADER.pack
_unpack_header = _HEADER.unpack_from


class FrameKind(IntEnum):
    """What a message says."""

    READY = 1  # worker: confined, waiting
    START = 2  # monitor: the arguments of __init__
    CALL = 3
    REPLY = 4
    ERROR = 5  # an exception that no `raises` declares
    RAISED = 6  # one that does
    CANCEL = 7  # of a call in flight
    ITEM = 8  # of a stream
    CREDIT = 9  # `method` items consumed
    CLOSE = 10  # of a stream, by its taker
    END = 11  # of a stream, by its giver
    RELEASE = 12  # object number no longer held; `call` times received
    FREED = 13  # `call` arena blocks copied out
    CHUNK = 14  # part of a body
    FAILED = 15  # worker: could not be confined


AT_CHECKPOINT = 1  # the `method` of a READY that is not the last: the worker waits to be looked at


class Flag(IntFlag):
    """Bits beside the kind."""

    CALLER_BLOCKS = 1  # the caller serves nothing until the answer is there


_KINDS = {int(kind): kind for kind in FrameKind}
BLOCKING = int(Flag.CALLER_BLOCKS)  # as a number: `&` of a Flag makes an object of a class, for every message
_FLAGS = BLOCKING


class Blob(NamedTuple):
    """Bytes of the argument at `position`, in the arena."""

    position: int
    offset: int
    length: int


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message. It holds nothing that could hold it."""

    kind: FrameKind
    flags: int
    obj: int
    method: int
    call: int
    descriptors: int
    blobs: tuple[Blob, ...]
    body: bytes


def pack(
    kind: FrameKind,
    body: bytes = b"",
    *,
    flags: int = 0,
    obj: int = 0,
    method: int = 0,
    call: int = 0,
    descriptors: int = 0,
    blobs: Sequence[Blob] = (),
) -> bytes:
    """One message that fits a packet."""
    header = _pack_header(kind, flags, descriptors, len(blobs), obj, method, 0, call, len(body))
    if not blobs:
        return header + body
    return b"".join((header, *(_BLOB.pack(*blob) for blob in blobs), body))


def pack_large(
    kind: FrameKind,
    body: bytes,
    *,
    flags: int = 0,
    obj: int = 0,
    method: int = 0,
    call: int = 0,
    descriptors: int = 0,
    blobs: Sequence[Blob] = (),
) -> list[bytes]:
    """One message as the packets it takes: one, or its chunks first. The last packet is the message itself."""
    room = LARGEST_PACKET - HEADER_SIZE - len(blobs) * _BLOB.size
    if len(body) <= room:
        return [pack(kind, body, flags=flags, obj=obj, method=method, call=call, descriptors=descriptors, blobs=blobs)]
    step = LARGEST_PACKET - HEADER_SIZE
    cut = (len(body) - 1) // step * step
    if len(body) - cut > room:
        cut += len(body) - cut - room
    view = memoryview(body)
    packets: list[bytes] = []
    for start in range(0, cut, step):
        packets.append(pack(FrameKind.CHUNK, bytes(view[start : min(start + step, cut)]), obj=kind, call=call))
    rest = bytes(view[cut:])
    packets.append(
        pack(kind, rest, flags=flags, obj=obj, method=method, call=call, descriptors=descriptors, blobs=blobs)
    )
    return packets


# The short way, for the commonest message: a plain CALL of object 0 (the compartment) or a plain REPLY. Its header is read as
# (everything before the method, method and spare, call, length), so that one comparison says that nothing else stands there.
# What does not compare equal goes the whole way, through `Reader.read`; nothing is refused here, and nothing else accepted.
_QUICK = struct.Struct("<QIII")
PLAIN_CALL = int(FrameKind.CALL)
PLAIN_CALL_BLOCKING = PLAIN_CALL | BLOCKING << 8
PLAIN_REPLY = int(FrameKind.REPLY)
quick_header: Callable[..., tuple[int, int, int, int]] = _QUICK.unpack_from
pack_quick: Callable[[int, int, int, int], bytes] = (
    _QUICK.pack
)  # (PLAIN_..., method, call, length of the body): a header


class Reader:
    """Takes one side's packets apart, and puts chunked bodies together."""

    def __init__(self, largest_body: int = LARGEST_BODY) -> None:
        self._largest = largest_body
        self.parts: dict[tuple[int, int], bytearray] = {}  # (kind, call) -> what has come of the body
        self._held = 0  # bytes in all of them

    def read(self, packet: bytes) -> list[Message]:
        """The whole messages of a packet. ProtocolError for anything that is not in the grammar."""
        size = len(packet)
        if size > LARGEST_PACKET:
            raise ProtocolError(f"a packet of more than {LARGEST_PACKET} bytes")
        messages: list[Message] = []
        start = 0
        while start < size:
            if size - start < HEADER_SIZE:
                raise ProtocolError("a packet ends inside a header")
            kind_number, flags, descriptors, blob_count, obj, method, spare, call, length = _unpack_header(
                packet, start
            )
            kind = _KINDS.get(kind_number)
            if kind is None:
                raise ProtocolError(f"message kind {kind_number} does not exist")
            if flags & ~_FLAGS or spare or descriptors > MOST_DESCRIPTORS or blob_count > MOST_BLOBS:
                raise ProtocolError(
                    f"a {kind.name} message with flags {flags}, {descriptors} descriptors, {blob_count} blobs"
                )
            begin = start + HEADER_SIZE
            blobs: tuple[Blob, ...] = ()
            if blob_count:
                end_of_blobs = begin + blob_count * _BLOB.size
                if end_of_blobs > size:
                    raise ProtocolError("a packet ends inside the table of blobs")
                blobs = tuple(Blob(*_BLOB.unpack_from(packet, at)) for at in range(begin, end_of_blobs, _BLOB.size))
                begin = end_of_blobs
            end = begin + length
            if end > size:
                raise ProtocolError(f"a {kind.name} message of {length} bytes in a packet that has {size - begin}")
            if descriptors and (start or end != size):
                raise ProtocolError("a message with descriptors is not alone in its packet")
            body = packet[begin:end]
            start = end
            if kind is FrameKind.CHUNK:
                self._keep(obj, call, body)
                continue
            if self.parts:
                body = self._whole(kind, call, body)
            messages.append(Message(kind, flags, obj, method, call, descriptors, blobs, body))
        if not size:
            raise ProtocolError("an empty packet")
        return messages

    def _keep(self, kind: int, call: int, body: bytes) -> None:
        key = (kind, call)
        parts = self.parts.get(key)
        if parts is None:
            if len(self.parts) >= MOST_UNFINISHED:
                raise ProtocolError("too many unfinished messages at one time")
            parts = self.parts[key] = bytearray()
        self._held += len(body)
        if not body or self._held > self._largest:
            raise ProtocolError(f"a message of more than {self._largest} bytes, or an empty chunk")
        parts += body

    @property
    def is_idle(self) -> bool:
        """Whether no body is being put together."""
        return not self.parts

    def take_chunks(self, kind: int, call: int, length: int) -> bytes:
        """What has come in CHUNKs for (kind, call); ProtocolError unless it is exactly `length` bytes."""
        parts = self.parts.pop((kind, call), None)
        if parts is None or len(parts) != length:
            raise ProtocolError(f"{length} bytes announced, {len(parts or b'')} came")
        self._held -= length
        return bytes(parts)

    def _whole(self, kind: FrameKind, call: int, last: bytes) -> bytes:
        parts = self.parts.pop((int(kind), call), None)
        if parts is None:
            return last
        self._held -= len(parts)
        parts += last
        return bytes(parts)
