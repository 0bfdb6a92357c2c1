"""What a call costs in the codec: arguments and result, both sides, with every check. Printed, never asserted.

python tests/wire/bench_codec.py
"""

from __future__ import annotations

import dataclasses
import timeit
from typing import Any

from wire_parts import taking

from bunri.wire.frames import FrameKind, Reader, pack


@dataclasses.dataclass
class Point:
    x: int
    y: int


CASES: tuple[tuple[str, tuple[Any, ...], Any, tuple[Any, ...], Any], ...] = (
    ("int -> None", (int,), None, (1,), None),
    ("int, str -> int", (int, str), int, (7, "abc"), 8),
    ("bytes (1 KiB) -> bytes", (bytes,), bytes, (bytes(1024),), bytes(1024)),
    ("dataclass -> dataclass", (Point,), Point, (Point(1, 2),), Point(3, 4)),
    ("list of 1,000 int -> int", (list[int],), int, (list(range(1000)),), 1),
    ("list of 1,000 str -> int", (list[str],), int, (["text"] * 1000,), 1),
    ("list of 1,000 dataclasses -> int", (list[Point],), int, ([Point(1, 2)] * 1000,), 1),
)


def microseconds(function: Any) -> float:
    """The best of five."""
    timer = timeit.Timer(function)
    count, _ = timer.autorange()
    return min(timer.repeat(5, count)) / count * 1e6


def main() -> None:
    print(f"{'call':36}{'codec us':>10}{'frames us':>11}")
    for name, takes, returns, args, result in CASES:
        method = taking(*takes, returns=returns)
        reader = Reader()

        def codec(method: Any = method, args: Any = args, result: Any = result) -> None:
            body, _ = method.encode_arguments(args, None)
            method.decode_arguments(body, None, None)
            body, _ = method.encode_result(result, None)
            method.decode_result(body, None, None)

        body, _ = method.encode_arguments(args, None)

        def frames(body: bytes = body, reader: Reader = reader) -> None:
            reader.read(pack(FrameKind.CALL, body, call=1))
            reader.read(pack(FrameKind.REPLY, b"\xc0", call=1))

        print(f"{name:36}{microseconds(codec):>10.2f}{microseconds(frames):>11.2f}")


if __name__ == "__main__":
    main()
