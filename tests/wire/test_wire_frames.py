"""Packets: what was packed is read, and any other bytes are a ProtocolError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunri.errors import ProtocolError
from bunri.wire import frames
from bunri.wire.frames import HEADER_SIZE, LARGEST_PACKET, Blob, Flag, FrameKind, Message, Reader, pack, pack_large

U32 = st.integers(0, 2**32 - 1)
BLOBS = st.lists(st.builds(Blob, U32, U32, U32), max_size=3).map(tuple)
MESSAGES = st.builds(
    Message,
    kind=st.sampled_from([kind for kind in FrameKind if kind is not FrameKind.CHUNK]),
    flags=st.sampled_from([0, int(Flag.CALLER_BLOCKS)]),
    obj=U32,
    method=st.integers(0, 2**16 - 1),
    call=U32,
    descriptors=st.just(0),
    blobs=BLOBS,
    body=st.binary(max_size=60),
)


def packed(message: Message) -> bytes:
    return pack(
        message.kind,
        message.body,
        flags=message.flags,
        obj=message.obj,
        method=message.method,
        call=message.call,
        descriptors=message.descriptors,
        blobs=message.blobs,
    )


@given(st.lists(MESSAGES, min_size=1, max_size=5))
def test_what_was_packed_is_read(messages: list[Message]) -> None:
    assert Reader().read(b"".join(map(packed, messages))) == messages


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_protocol_error(packet: bytes) -> None:
    try:
        Reader().read(packet)
    except ProtocolError:
        return


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.data())
def test_a_true_packet_with_bytes_changed_is_messages_or_a_protocol_error(
    messages: list[Message], data: st.DataObject
) -> None:
    packet = bytearray(b"".join(map(packed, messages)))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    reader = Reader()
    for _ in range(3):  # also with what the first reading has left behind
        try:
            reader.read(bytes(packet))
        except ProtocolError:
            return


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.data())
def test_a_packet_cut_anywhere_but_between_messages_is_refused(messages: list[Message], data: st.DataObject) -> None:
    pieces = [packed(message) for message in messages]
    ends = {sum(map(len, pieces[: n + 1])) for n in range(len(pieces))}
    packet = b"".join(pieces)
    cut = data.draw(st.integers(0, len(packet) - 1).filter(lambda at: at not in ends))
    with pytest.raises(ProtocolError):
        Reader().read(packet[:cut])


@given(
    size=st.one_of(
        st.integers(0, 300_000),
        st.integers(-40, 40).map(lambda near: LARGEST_PACKET - HEADER_SIZE + near),
        st.integers(-40, 40).map(lambda near: 2 * (LARGEST_PACKET - HEADER_SIZE) + near),
    ),
    blobs=st.integers(0, 3),
)
def test_a_large_body_travels_in_packets_that_fit_and_is_whole_again(size: int, blobs: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    table = [Blob(n, n, n) for n in range(blobs)]
    packets = pack_large(FrameKind.REPLY, body, call=9, blobs=table)
    reader, read = Reader(), []
    for packet in packets:
        assert len(packet) <= LARGEST_PACKET
        read += reader.read(packet)
    assert read == [Message(FrameKind.REPLY, 0, 0, 0, 9, 0, tuple(table), body)]


def test_chunks_of_two_calls_may_alternate() -> None:
    one, other = (pack_large(FrameKind.REPLY, bytes([n]) * 150_000, call=n) for n in (1, 2))
    reader, read = Reader(), []
    for a, b in zip(one, other, strict=True):
        read += [*reader.read(a), *reader.read(b)]
    assert [(m.call, m.body == bytes([m.call]) * 150_000) for m in read] == [(1, True), (2, True)]


def test_a_body_larger_than_the_channel_allows_is_refused_while_it_comes() -> None:
    reader = Reader(largest_body=200_000)
    packets = pack_large(FrameKind.CALL, bytes(400_000), call=1)
    for packet in packets[:3]:  # 65,516 bytes each
        assert reader.read(packet) == []
    with pytest.raises(ProtocolError, match="200000"):
        reader.read(packets[3])


def test_the_bound_is_of_all_unfinished_bodies_together() -> None:
    reader = Reader(largest_body=100)
    reader.read(pack(FrameKind.CHUNK, bytes(60), obj=FrameKind.CALL, call=1))
    with pytest.raises(ProtocolError, match="100"):
        reader.read(pack(FrameKind.CHUNK, bytes(60), obj=FrameKind.CALL, call=2))


def test_a_finished_body_frees_its_share() -> None:
    reader = Reader(largest_body=100)
    for call in range(20):
        reader.read(pack(FrameKind.CHUNK, bytes(60), obj=FrameKind.CALL, call=call))
        (message,) = reader.read(pack(FrameKind.CALL, b"end", call=call))
        assert message.body == bytes(60) + b"end"


def test_too_many_unfinished_bodies_are_refused() -> None:
    reader = Reader()
    for call in range(frames.MOST_UNFINISHED):
        reader.read(pack(FrameKind.CHUNK, b"x", obj=FrameKind.CALL, call=call))
    with pytest.raises(ProtocolError, match="unfinished"):
        reader.read(pack(FrameKind.CHUNK, b"x", obj=FrameKind.CALL, call=99))


def test_chunks_of_a_blob_are_taken_once_and_only_at_their_length() -> None:
    reader = Reader()
    reader.read(pack(FrameKind.CHUNK, b"abc", obj=0x100, call=5))
    assert reader.take_chunks(0x100, 5, 3) == b"abc"
    with pytest.raises(ProtocolError):
        reader.take_chunks(0x100, 5, 3)
    reader.read(pack(FrameKind.CHUNK, b"abc", obj=0x100, call=5))
    with pytest.raises(ProtocolError):
        reader.take_chunks(0x100, 5, 4)


HEADER = struct.Struct("<BBBBIHHII")
REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "half a header": b"\x03" * 7,
    "kind 0": HEADER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0),
    "kind 16": HEADER.pack(16, 0, 0, 0, 0, 0, 0, 0, 0),
    "an unknown flag": HEADER.pack(3, 2, 0, 0, 0, 0, 0, 0, 0),
    "spare bits": HEADER.pack(3, 0, 0, 0, 0, 0, 1, 0, 0),
    "17 descriptors": HEADER.pack(3, 0, 17, 0, 0, 0, 0, 0, 0),
    "17 blobs": HEADER.pack(3, 0, 0, 17, 0, 0, 0, 0, 0) + bytes(17 * 12),
    "a table of blobs cut off": HEADER.pack(3, 0, 0, 2, 0, 0, 0, 0, 0) + bytes(20),
    "a body cut off": HEADER.pack(3, 0, 0, 0, 0, 0, 0, 0, 9) + bytes(8),
    "a length like a bomb": HEADER.pack(3, 0, 0, 0, 0, 0, 0, 0, 2**32 - 1),
    "descriptors beside a second message": pack(FrameKind.CALL, descriptors=1) + pack(FrameKind.CALL),
    "descriptors of a second message": pack(FrameKind.CALL) + pack(FrameKind.CALL, descriptors=1),
    "an empty chunk": pack(FrameKind.CHUNK, b"", obj=3, call=1),
    "more than a packet": pack(FrameKind.CALL, bytes(LARGEST_PACKET)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_packet_out_of_the_grammar_is_refused(case: str) -> None:
    with pytest.raises(ProtocolError):
        Reader().read(REFUSED[case])


def test_a_header_is_small_and_fixed() -> None:
    assert HEADER_SIZE == HEADER.size == 20
