"""Compartments of `bunri dump` that belong to an attacker: the same policies and handles, and whatever code they are sent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Generator, Iterator
from typing import Annotated

from msgspec.structs import replace

import bunri
from bunri.apps.dump.compiler import Compiler
from bunri.apps.dump.decoder import Decoder, LiveDecoder
from bunri.apps.dump.messages import Batch, Cursor, Job, Names, Place, RingShape, Where, Written
from bunri.apps.dump.opener import Opener
from bunri.apps.dump.resolver import Resolver
from bunri.apps.dump.writer import Writer

libc = ctypes.CDLL(None, use_errno=True)
CODE = {"ctypes": ctypes, "libc": libc, "os": os, "signal": signal, "socket": socket, "time": time}


def run(code: str, **more: object) -> str:
    """The attacker's code; what it puts into `result`, or the name of what it was refused with."""
    space: dict[str, object] = {**CODE, **more}
    try:
        exec(code, space)
    except OSError as fault:
        return os.strerror(fault.errno or 0)
    return str(space.get("result"))


class OwnedDecoder(Decoder):
    def run_code(self, code: str) -> str:
        return run(code, decoder=self)


class OwnedCompiler(Compiler):
    def run_code(self, code: str) -> str:
        return run(code)


class OwnedResolver(Resolver):
    def run_code(self, code: str) -> str:
        return run(code)


class OwnedWriter(Writer):
    def run_code(self, code: str) -> str:
        return run(code, file=self._file)


class Lazy(Writer):
    """Says that it wrote nothing, so that it is given the next file, and the next."""

    def append(self, records: bytes, most: int) -> Written:
        return Written(0, 0)


class OwnedOpener(Opener):
    def __init__(self, packets: Annotated[socket.socket, bunri.Datagram], bell: bunri.File) -> None:
        super().__init__(packets, bell)

    def run_code(self, code: str) -> str:
        return run(code, packets=self._socket)


class OwnedLive(LiveDecoder):
    def __init__(
        self, job: Job, shape: RingShape, memory: bunri.Mapped, progress: bunri.Mapped, bell: bunri.File, start: Place,
        cursor: Cursor, names: Names | None,
    ) -> None:  # fmt: skip
        super().__init__(job, shape, memory, progress, bell, start, cursor, names)
        self._memory = memory.buffer

    def run_code(self, code: str) -> str:
        return run(code, memory=self._memory)


def _deadly(data: bytes, prints: bool) -> None:
    """What a fault in a printer would do, on the packets that say so."""
    if prints and b"DIES" in data:
        ctypes.string_at(0)
    if prints and b"RAISES" in data:
        raise ValueError("a fault in a printer")
    while prints and b"HANGS" in data:
        time.sleep(0.1)


class Fragile(Decoder):
    """A decoder with a fault."""

    def __init__(self, job: Job, cursor: Cursor, names: Names | None) -> None:
        super().__init__(job, cursor, names)
        places = self._capture.places

        def deadly(chunk: bytes) -> Generator[Where]:
            for place in places(chunk):
                _deadly(place[3][place[4] : place[5]], job.prints)
                yield place

        self._capture.places = deadly  # type: ignore[method-assign]

    def feed(self, chunk: bytes, most: int, steps: int) -> Batch:
        return super().feed(chunk, most, steps)


class FragileLive(LiveDecoder):
    """The same for a living capture."""

    def __init__(
        self, job: Job, shape: RingShape, memory: bunri.Mapped, progress: bunri.Mapped, bell: bunri.File, start: Place,
        cursor: Cursor, names: Names | None,
    ) -> None:  # fmt: skip
        super().__init__(job, shape, memory, progress, bell, start, cursor, names)
        places = self._ring.places

        def deadly(stop: int = 1 << 32) -> Iterator[Where]:
            for place in places(stop):
                _deadly(place[3][place[4] : place[5]], job.prints)
                yield place

        self._ring.places = deadly  # type: ignore[method-assign]


BAD_RECORDS: dict[bytes, Callable[[bytes], bytes]] = {
    b"BEYOND ITS END": lambda records: records[:8] + struct.pack("<I", len(records)) + records[12:],
    b"ENDS EARLIER": lambda records: records[:-5],
    b"HALF A HEAD": lambda records: records + bytes(15),
    b"LARGER THAN ANY": lambda records: struct.pack("<IIII", 1, 2, 262145, 4) + bytes(262145),
    b"NO RECORDS": lambda records: b"#!/bin/sh\nrm -rf /\n" * 4,
}
BAD_COUNTS = {b"FEWER THAN NONE": -1, b"MORE THAN IT MAY": 1 << 40}


class Liar(LiveDecoder):
    """Lies about what it hands on, in the way that a packet names."""

    def batch(self, most: int) -> Batch:
        batch = super().batch(most)
        for mark, lie in BAD_RECORDS.items():
            if mark in batch.records:
                return replace(batch, records=lie(batch.records))
        for mark, count in BAD_COUNTS.items():
            if mark in batch.records:
                return replace(batch, packets=count)
        return batch


class Unstartable(LiveDecoder):
    """A decoder that cannot begin."""

    def __init__(
        self, job: Job, shape: RingShape, memory: bunri.Mapped, progress: bunri.Mapped, bell: bunri.File, start: Place,
        cursor: Cursor, names: Names | None,
    ) -> None:  # fmt: skip
        raise MemoryError("there is none left")


class Slow(Resolver):
    """A name server that lets wait; of the addresses that end in 3 for ever, in 4 it is the end of its resolver."""

    def host(self, address: bytes) -> str:
        if address[-1] == 4:
            ctypes.string_at(0)
        time.sleep(60 if address[-1] == 3 else 1.5)
        return f"host-{address[-1]}.example"


if __name__ == "__main__":
    import sys

    import dump_owned

    from bunri.apps.dump import live, monitor
    from bunri.apps.dump.command import main

    which = sys.argv[1]
    if which == "Slow":
        monitor.Resolver = dump_owned.Slow  # type: ignore[misc]
    else:
        live.LiveDecoder = getattr(dump_owned, which)  # type: ignore[misc]
    live.PATIENCE_FOR_ONE = 1.0
    sys.exit(main(sys.argv[2:]))
