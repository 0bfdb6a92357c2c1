"""Runs in: the test process, with tcpdump beside it. Domain names that are chains: as tcpdump prints them, and in time."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable

import pytest
from packets import capture, different, four, ours, udp

_FIRST = 12 + 1 + 10  # where the data of the first record begins
_CHAINED = 16000  # bytes of it: pointers reach no further


def pointer(at: int) -> bytes:
    return struct.pack(">H", 0xC000 | at)


def record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack(">HHIH", kind, 1, 1, len(data)) + data


def message(data: bytes, starts: list[int], length: int) -> bytes:
    """A record of no kind that is printed with these bytes, and records whose names begin at these places of it."""
    body = record(b"\0", 10, data)
    count = 1
    while len(body) < length:
        body += record(pointer(starts[count % len(starts)]), 5, pointer(starts[count * 7 % len(starts)]))
        count += 1
    return four(17, udp(53, 40000, struct.pack(">HHHHHH", 1, 0x8000, 0, count, 0, 0) + body))


def chain(piece: Callable[[], bytes], chance: random.Random, back: int, size: int) -> tuple[bytes, list[int]]:
    """Pieces that each end with a pointer to one of the last `back` before it; where they begin."""
    data, starts = b"\0", [_FIRST]
    while len(data) < size:
        each = piece() + pointer(chance.choice(starts[-back:]))
        starts.append(_FIRST + len(data))
        data += each
    return data, starts


def labels(chance: random.Random, most: int) -> bytes:
    """Some labels; now and then one of the other kinds."""
    made = b""
    for _ in range(chance.randrange(most + 1)):
        size = chance.choice((1, 1, 2, 5, 20, 63))
        made += chance.choices(
            (
                bytes([size]) + chance.randbytes(size),
                b"\x41\x05\xa8",
                b"\x80",
                b"\x42",
                pointer(chance.randrange(16384)),
            ),
            (200, 10, 1, 1, 1),
        )[0]
    return made


@pytest.mark.parametrize("seed", range(30))
def test_chains_of_pointers_and_labels_are_printed_as_tcpdump_prints_them(seed: int) -> None:
    chance = random.Random(seed)
    most = seed % 6
    packets: list[bytes] = []
    for _ in range(6):
        data, starts = chain(lambda: labels(chance, most), chance, chance.choice((1, 2, 9)), chance.randrange(40, 3000))
        whole = message(data, [chance.choice(starts) for _ in range(9)], len(data) + 300)
        packets += [whole, whole[: chance.randrange(50, len(whole))]]
    for arguments in ([], ["-vv"]):
        assert different(packets, *arguments) == []


def _long_names() -> dict[str, bytes]:
    chance = random.Random(1)
    pure, pointers = chain(bytes, chance, 1, _CHAINED)
    short, both = chain(lambda: b"\1a", chance, 1, _CHAINED)
    run = b"\1a" * 15000 + b"\0"
    return {
        "pointers": message(pure, pointers[-1:], 60000),
        "labels and pointers": message(short, both[-3:], 60000),
        "labels": message(run, [_FIRST + 2 * each for each in range(7000)], 60000),
    }


@pytest.mark.parametrize("which", ["pointers", "labels and pointers", "labels"])
def test_a_message_of_nothing_but_chains_takes_no_longer_than_its_text(which: str) -> None:
    """Each of thousands of names is thousands of steps long. Walked one by one they took seven seconds."""
    packet = _long_names()[which]
    since = time.process_time()
    text = ours(capture([packet]), "-n", "-t")
    assert time.process_time() - since < 3
    assert text.startswith("IP 10.0.0.1.53 > 10.0.0.2.40000: 1-")
    assert different([packet]) == []
