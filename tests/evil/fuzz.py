"""Runs in: the test process, or by hand. Frames that nobody of ours would send, to both ends of a conversation.

    python tests/evil/fuzz.py --frames 1000000     generated frames, by number
    python tests/evil/fuzz.py --seconds 60         coverage-guided (atheris), starting from tests/evil/corpus

Whatever comes, an end gives an answer, or ends with a ProtocolError. It raises nothing else, keeps no descriptor, holds no more
than the bounds allow, and neither imports nor runs anything.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import logging
import os
import random
import resource
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent))
CORPUS = Path(__file__).with_name("corpus")


def play(data: bytes) -> Counter[str]:
    """Feed one input: its first byte says which end, then packets, each after its length and the number of descriptors."""
    import ends

    seen: Counter[str] = Counter()
    if not data:
        return seen
    end: Any = ends.Monitor() if data[0] & 1 else ends.Worker()
    at = 1
    try:
        while at + 3 <= len(data):
            length, count = int.from_bytes(data[at : at + 2], "little"), data[at + 2] % 4
            packet = data[at + 3 : at + 3 + length]
            at += 3 + length
            end.feed(packet, [os.eventfd(0) for _ in range(count)])
            seen["answered"] += 1
            assert len(end.side.waiting) <= 2048, "a queue without a bound"
            assert sum(map(len, end.side._reader.parts.values())) <= 64 << 20, "bodies without a bound"
    except ends.Ended as ended:
        seen["ended: " + _kind_of(str(ended))] += 1
    finally:
        end.close()
    return seen


def _kind_of(cause: str) -> str:
    """A cause without its numbers."""
    return " ".join("N" if any(c.isdigit() for c in word) else word for word in cause.split(" - at ")[0].split())[:60]


# Inputs that have a shape ----------------------------------------------------------------------------------------------

_HEADER = struct.Struct("<BBBBIHHII")
_EDGES = (0, 1, 2, 3, 15, 16, 17, 255, 256, 65_535, 2**31, 2**32 - 1)
_pack = msgspec.msgpack.encode
_VALUES: list[Any] = [
    None, True, 0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 1.5, float("nan"), "", "a", "a\0", "\u202e", b"", b"x" * 40, [], [1], [[]], {},
    {"a": 1}, [1, "a"], [[1, "a"], [[1, "a"]]], [["a"], [[1]]], [[1, 1], [["a"], ["a"]]], [1, [1, "b"]], ["x", "y"], [0], [5], [[0, b"\x01"], []],
    [2, "no"], ["x"], "2020-01-01", [None, "text"], [2**31, "t"],
]  # fmt: skip


class Generator:
    """Packets of frames that are nearly right, and of some that are not."""

    def __init__(self, seed: int) -> None:
        import ends

        self.random = random.Random(seed)
        self.frames = 0
        self._right: list[list[tuple[int, int, int, int, bytes]]] = [ends.to_worker(), ends.to_monitor()]
        self._fitting: list[tuple[int, int, int, int, bytes]] = []

    def input(self) -> bytes:
        pick = self.random
        made = bytearray([pick.getrandbits(8)])
        self._fitting = pick.sample(self._right[made[0] & 1], len(self._right[made[0] & 1]))
        for _ in range(pick.randint(1, 12)):
            packet, descriptors = self._packet()
            made += len(packet).to_bytes(2, "little") + bytes([descriptors]) + packet
        return bytes(made)

    def _packet(self) -> tuple[bytes, int]:
        pick = self.random
        descriptors = pick.randint(1, 3) if pick.random() < 0.06 else 0
        count = 1 if descriptors else min(1 + int(pick.expovariate(0.4)), 40)
        packet = b"".join(self._frame(descriptors) for _ in range(count))
        self.frames += count
        chance = pick.random()
        if chance < 0.03:
            packet = packet[: pick.randint(0, len(packet))]
        elif chance < 0.08:
            changed = bytearray(packet)
            changed[pick.randrange(len(changed))] = pick.getrandbits(8)
            packet = bytes(changed)
        return packet[:65_000], descriptors if pick.random() < 0.9 else 0

    def _frame(self, descriptors: int) -> bytes:
        pick = self.random
        if self._fitting and pick.random() < 0.93:
            kind, obj, method, call, body = self._fitting.pop()
            if pick.random() < 0.04:
                body = self._body()
            return _HEADER.pack(kind, kind == 3, descriptors, 0, obj, method, 0, call, len(body)) + body
        kind = pick.choices(
            (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16), (1, 1, 30, 40, 8, 8, 4, 10, 6, 3, 3, 6, 1, 6, 1, 1)
        )[0]
        body = self._body()
        near = pick.random() < 0.97
        return _HEADER.pack(
            kind,
            pick.randint(0, 1) if near else pick.getrandbits(8),
            descriptors,
            0 if near else pick.randint(0, 3),
            pick.randint(0, 2) if near else pick.choice(_EDGES),
            pick.randint(0, 9) if near else pick.choice(_EDGES[:10]),
            0 if near else pick.getrandbits(4),
            pick.randint(1, 12) if near else pick.choice(_EDGES),
            len(body) if pick.random() < 0.995 else pick.choice(_EDGES),
        ) + body  # fmt: skip

    def _body(self) -> bytes:
        pick = self.random
        chance = pick.random()
        if chance < 0.1:
            return pick.randbytes(pick.randint(0, 12))
        value = pick.choice(_VALUES)
        if chance < 0.5:
            value = [value]
        elif chance < 0.6:
            value = [value, pick.choice(_VALUES)]
        body = _pack(value)
        if chance > 0.93:
            changed = bytearray(body)
            changed[pick.randrange(len(changed))] = pick.getrandbits(8)
            body = bytes(changed)
        elif chance > 0.91:
            body = b"\x91" * pick.randint(1, 400) + body
        elif chance > 0.89:
            body = bytes([pick.randint(0, 3)]) + body
        return body


def generated(frames: int, seed: int) -> tuple[int, Counter[str]]:
    """Play inputs until that many frames were generated."""
    generator, seen = Generator(seed), Counter[str]()
    while generator.frames < frames:
        given = generator.input()
        try:
            seen += play(given)
        except BaseException:
            Path(f"crash-{hashlib.sha256(given).hexdigest()[:12]}").write_bytes(given)
            raise
    return generator.frames, seen


# By hand ---------------------------------------------------------------------------------------------------------------


def _by_number(frames: int, seed: int) -> None:
    generated(20_000, seed + 1)  # what is made once is made
    gc.collect()
    open_before, begun = len(os.listdir("/proc/self/fd")), time.monotonic()
    size_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count, seen = generated(frames, seed)
    gc.collect()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size_before
    for what, times in seen.most_common(40):
        print(f"{times:10,}  {what}")
    open_after = len(os.listdir("/proc/self/fd"))
    print(
        f"{count:,} frames in {time.monotonic() - begun:.0f} s, {len(seen)} outcomes, memory grown by {grown} KiB, "
        f"descriptors {open_before} before and {open_after} after"
    )
    if open_after != open_before:
        sys.exit("descriptors were left open")


def _by_coverage(seconds: int, folder: str) -> None:
    guided: Any = importlib.import_module("atheris")  # of no extra: it is installed for this alone
    with guided.instrument_imports(
        include=["bunri.wire", "bunri.channel", "bunri.process.serving", "bunri.process.services"]
    ):
        import ends  # noqa: F401  (its imports are the instrumented ones)
    guided.Setup(
        [
            sys.argv[0],
            folder,
            str(CORPUS),
            f"-max_total_time={seconds}",
            "-max_len=4096",
            "-timeout=20",
            "-print_final_stats=1",
        ],
        play_for_atheris,
    )
    guided.Fuzz()


def play_for_atheris(data: bytes) -> None:
    play(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--folder", default="/tmp/bunri-fuzz", help="where inputs that reach new code are kept")
    chosen = parser.parse_args()
    logging.disable()  # services that fail say so, thousands of times
    if chosen.seconds:
        Path(chosen.folder).mkdir(exist_ok=True)
        _by_coverage(chosen.seconds, chosen.folder)
    else:
        _by_number(chosen.frames, chosen.seed)
