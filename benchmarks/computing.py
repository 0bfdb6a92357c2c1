"""Runs in: the benchmark. Workers that only compute (mode 1, and its mode-2 twin) beside an ordinary one."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator

from benchmarks.measure import Cores, Row, Subject, compared, interleaved, placed, whole
from benchmarks.parts import ComputeDecoder, Decoder, StrictDecoder

_KINDS: dict[str, type[Decoder]] = {"ordinary": Decoder, "compute": ComputeDecoder, "strict": StrictDecoder}
DATA = zlib.compress(json.dumps([{"number": n, "text": str(n) * 9} for n in range(2000)]).encode())


def computing() -> Iterator[Row]:
    """A null call, a decoding, and a start to the first answer; the zygotes are warm."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(placed(Cores.TWO))
        workers = {name: stack.enter_context(kind.start()) for name, kind in _KINDS.items()}
        assert {worker.decode(DATA) for worker in workers.values()} == {2000}
        yield from _beside("null call", {name: _call(worker.same, 7) for name, worker in workers.items()}, 40, 100)
        yield from _beside(
            "zlib and json", {name: _call(worker.decode, DATA) for name, worker in workers.items()}, 30, 3
        )
        yield from _beside("start to first answer", {name: _start(kind) for name, kind in _KINDS.items()}, 25, 2)


def _beside(what: str, subjects: dict[str, Subject], rounds: int, repeats: int) -> Iterator[Row]:
    interleaved(1, repeats, subjects)
    found = interleaved(rounds, repeats, subjects)
    for name in ("compute", "strict"):
        yield compared(f"{what}, {name}", found[name], "ordinary worker", found["ordinary"], None)


def _call(method: Callable[..., int], argument: object) -> Subject:
    return whole(lambda: method(argument))


def _start(kind: type[Decoder]) -> Subject:
    def once() -> None:
        with kind.start() as worker:
            worker.same(7)

    return whole(once)
