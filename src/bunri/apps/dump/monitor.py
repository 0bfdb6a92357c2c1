"""Runs in: the monitor, with the user's rights. Opens what is asked for, starts the processes, passes bytes along.

It reads no packet. A capture file's bytes go to the decoder as they come; text comes back, and only what a terminal
may see gets there. When a decoder dies or hangs, another one gets the same bytes packet by packet until the one is
found that did it; that packet is reported, kept with --quarantine, and the capture goes on behind it.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import bunri
from bunri import fs
from bunri.apps.dump import bpf, compiler, resolver
from bunri.apps.dump.compiler import Compiler
from bunri.apps.dump.decoder import Decoder
from bunri.apps.dump.messages import BadExpression, Batch, Cursor, Instruction, Job, Names
from bunri.apps.dump.resolver import Resolver

CHUNK = 1 << 18
LONG = 2 << 20  # bytes of a file for which a second decoder is worth its start
_AHEAD = 4  # pieces that two decoders are given before one is back
PATIENCE = 20.0  # seconds for one piece of a capture
PATIENCE_FOR_ONE = 3.0  # seconds for one packet of which it is known that one of its neighbours hangs

# What may reach a terminal: printable ASCII, and the line ends and tabs that the lines are made of.
_SAFE = bytes(code if 32 <= code < 127 or code in b"\n\t" else 0x3F for code in range(256))


class Source(Protocol):
    """Where a capture's bytes come from."""

    def read1(self, size: int = -1, /) -> bytes:
        """Some bytes; none at the end."""
        ...


class Failed(Exception):
    """It ends here, with this sentence."""


@dataclass(frozen=True)
class Lost:
    """A packet on which decoders die."""

    number: int  # as it stands in the capture
    cause: str


class ResolvingNames(Names):
    """Answers the decoder's questions from the resolver's word. A resolver that died is not asked again."""

    def __init__(self, worker: Resolver) -> None:
        self._worker: Resolver | None = worker

    def host(self, address: bytes) -> str:
        """The name of an address; empty where there is none."""
        if self._worker is None:
            return ""
        try:
            with bunri.deadline(10):
                return self._worker.host(address)
        except bunri.PeerError:
            self._worker = None
            return ""


def compile_expression(expression: str, link: int, snap: int, *, optimize: bool, netmask: int = 0) -> list[Instruction]:
    """The checked program of a filter expression. Failed with libpcap's own words."""
    there = [fs.read(path) for path in compiler.NAMES if os.path.exists(path)]
    with Compiler.start_under(Compiler.policy.with_(files=there)) as worker:
        try:
            program = worker.compile(expression, {101: 12}.get(link, link), snap, int(optimize), netmask)
        except BadExpression as bad:
            raise Failed(bunri.printable(bad.said, limit=500)) from None
        except bunri.PeerError as fault:
            raise Failed(f"the compiler of filter expressions failed: {fault}") from None
    try:
        bpf.check(program)
    except bpf.Refused as refused:
        raise Failed(f"the compiled filter was refused: {refused}") from None
    return program


def names_for(stack: ExitStack, numeric: int) -> Names | None:
    """The service that the decoder may ask for names; None with -n."""
    if numeric:
        return None
    there = [path for path in resolver.FILES if os.path.exists(path)]
    return ResolvingNames(stack.enter_context(Resolver.start_under(resolver.policy(there))))


def safe(text: bytes) -> bytes:
    """Text of a decoder, as a terminal may see it."""
    return text.translate(_SAFE)


class Reading:
    """One capture file, read by decoders that may die."""

    def __init__(
        self,
        stream: Source,
        job: Job,
        names: Names | None,
        most: int,
        decoder: Decoder | None = None,
        *,
        long: bool = False,
    ) -> None:
        """`most` packets that match; -1: all. `decoder`: one that was started for this job."""
        self._in_turn = long and most < 0 and names is None and _can_be_followed(job)
        self._stream = stream
        self._job = job
        self._names = names
        self._most = most
        self._cursor = Cursor()
        self._decoder = decoder
        self._kept = b""  # the bytes that a decoder carries over: another one needs them
        self._pair: list[Decoder] = []
        self.lost: list[Lost] = []
        self.quarantined: list[bytes] = []

    def batches(self) -> Iterator[Batch]:
        """What the decoders make of the file, in order."""
        try:
            yield from self._all()
        finally:
            self._end()

    def _all(self) -> Iterator[Batch]:
        if self._in_turn and not (yield from self._both()):
            return
        ahead: deque[tuple[bytes, bunri.Call[Batch]]] = deque()
        more = True
        while more or ahead:
            while more and len(ahead) < (1 if self._most > 0 else 2):
                chunk = self._read()
                more = bool(chunk)
                if more:
                    ahead.append((chunk, self._send(chunk)))
            if not ahead:
                break
            chunk, call = ahead.popleft()
            try:
                batch = self._checked(call.result(), len(self._kept) + len(chunk))
            except bunri.PeerError as fault:
                pieces = [chunk, *(piece for piece, _ in ahead)]
                for _, other in ahead:
                    other.cancel()
                ahead.clear()
                yield from self._without_the_killer(pieces, fault)
                if self._most == 0:
                    return
                continue
            self._take(batch, chunk)
            yield batch
            if batch.done or batch.fault:
                return
        yield self._last()

    def _both(self) -> Generator[Batch, None, bool]:
        """Two decoders in turn: one prints a piece, while the other notes of it what it needs to print the next one.

        False where all is said; true where one decoder has to go on, since one of these died."""
        pair = self._pair = [self._worker(), Decoder.start(self._job, Cursor(), None)]
        ahead: deque[tuple[bytes, bunri.Call[Batch], bunri.Call[int]]] = deque()
        more = True
        while True:
            while more and len(ahead) < _AHEAD:
                chunk = self._read()
                more = bool(chunk)
                if more:
                    pair.reverse()
                    with bunri.deadline(PATIENCE):
                        ahead.append(
                            (chunk, bunri.call(pair[0].feed, chunk, -1, -1), bunri.call(pair[1].follow, chunk))
                        )
            if not ahead:
                self._decoder = pair[0]
                return True
            chunk, printed, followed = ahead.popleft()
            try:
                batch = self._checked(printed.result(), len(self._kept) + len(chunk))
                followed.result()
            except bunri.PeerError as fault:
                for _, printing, following in ahead:
                    printing.cancel()
                    following.cancel()
                self._end()
                yield from self._without_the_killer([chunk, *(each[0] for each in ahead)], fault)
                return self._most != 0
            self._take(batch, chunk)
            yield batch
            if batch.fault:
                return False

    def _read(self) -> bytes:
        return self._stream.read1(CHUNK)

    def _take(self, batch: Batch, chunk: bytes) -> None:
        self._cursor = batch.cursor
        carried = batch.cursor.carried
        self._kept = _last_of(self._kept, chunk, carried)
        if self._most > 0:
            self._most = max(self._most - batch.packets, 0)

    def _checked(self, batch: Batch, given: int) -> Batch:
        """The decoder may lie: what it says of its bytes must be possible."""
        if not 0 <= batch.cursor.carried <= given:
            raise bunri.ProtocolError(f"a decoder carries {batch.cursor.carried} of {given} bytes")
        return batch

    def _worker(self) -> Decoder:
        if self._decoder is None:
            self._decoder = Decoder.start(self._job, replace(self._cursor, carried=0), self._names)
            if self._kept:
                with bunri.deadline(PATIENCE):
                    self._decoder.carry(self._kept)
        return self._decoder

    def _send(self, chunk: bytes) -> bunri.Call[Batch]:
        worker = self._worker()
        with bunri.deadline(PATIENCE):
            return bunri.call(worker.feed, chunk, self._most, -1)

    def _end(self) -> None:
        decoders = self._pair or ([self._decoder] if self._decoder is not None else [])
        self._decoder, self._pair = None, []
        for decoder in decoders:
            decoder.close()

    def _without_the_killer(self, pieces: list[bytes], fault: bunri.PeerError) -> Iterator[Batch]:
        """Packet by packet until a decoder dies again; then behind that one."""
        self._end()
        rest = b"".join(pieces)
        while True:
            before = len(self._kept) + len(rest)
            try:
                with bunri.deadline(PATIENCE_FOR_ONE):
                    batch = self._checked(self._worker().feed(rest, self._most, 1), before)
            except bunri.PeerError as again:
                yield from self._skip(rest, again)
                return
            stuck = batch.cursor.packets == self._cursor.packets
            self._take(batch, rest)
            rest = b""
            yield batch
            if batch.done or batch.fault or self._most == 0:
                self._most = 0
                return
            if stuck:
                return  # it was not the packet: the first one died of something else

    def _skip(self, rest: bytes, fault: bunri.PeerError) -> Iterator[Batch]:
        """Leave one packet out: a decoder that prints nothing finds where it ends."""
        self._end()
        given = self._kept + rest
        quiet = replace(self._job, prints=False, records=True, program=[])
        cause = bunri.printable(str(fault).partition("\n")[0], limit=200)
        with Decoder.start(quiet, replace(self._cursor, carried=0), None) as walker, bunri.deadline(PATIENCE_FOR_ONE):
            batch = self._checked(walker.feed(given, -1, 1), len(given))
        self.lost.append(Lost(batch.cursor.packets, cause))
        self.quarantined.append(batch.records)
        carried = batch.cursor.carried
        self._kept = given[-carried:] if carried else b""
        self._cursor = replace(batch.cursor, matched=self._cursor.matched, reference=self._cursor.reference)
        # What is left may hold whole packets: they are fed as if they had just come.
        left, self._kept = self._kept, b""
        if left:
            call = self._send(left)
            try:
                after = self._checked(call.result(), len(left))
            except bunri.PeerError as again:
                yield from self._without_the_killer([left], again)
                return
            self._take(after, left)
            yield after
            if after.done or after.fault:
                self._most = 0

    def _last(self) -> Batch:
        with bunri.deadline(PATIENCE):
            return self._worker().finish()


def _last_of(kept: bytes, chunk: bytes, count: int) -> bytes:
    """The last `count` bytes of both, which are mostly of the chunk alone."""
    if count <= len(chunk):
        return chunk[len(chunk) - count :]
    return (kept + chunk)[-count:]


def _can_be_followed(job: Job) -> bool:
    """Whether noting what a packet changes takes less than printing it; -ttt and -ttttt change something each time."""
    return job.prints and not job.records and not job.program and job.style.brief and job.style.time not in (3, 5)


def complain(text: str) -> None:
    """One line on standard error, in tcpdump's way."""
    sys.stderr.write(f"bunri dump: {bunri.printable(text, keep_newlines=True)}\n")
    sys.stderr.flush()
