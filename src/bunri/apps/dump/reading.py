"""Runs in: the monitor, with the user's rights. A capture file, or a pipe: its bytes to decoders that may die or hang.

A piece is sent whole, and the next one behind it as soon as it is there. Where a decoder ends, another one gets the
same bytes packet by packet until the packet is found on which decoders end; a third one, which prints nothing, finds
where that packet ends. What is kept for this are the last bytes of the capture that no decoder has told of.
"""

from __future__ import annotations

import os
import select
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

from msgspec.structs import replace

import bunri
from bunri.apps.dump import bpf
from bunri.apps.dump.decoder import Decoder
from bunri.apps.dump.linktypes import LINK_TYPES
from bunri.apps.dump.messages import Batch, Cursor, Instruction, Job, Kind, Style
from bunri.apps.dump.monitor import (
    PATIENCE,
    PATIENCE_FOR_ONE,
    Asked,
    Failed,
    Signals,
    answer,
    begin,
    cause_of,
    compile_expression,
)
from bunri.apps.dump.options import Options
from bunri.apps.dump.output import LeftOut, show

T = TypeVar("T")

CHUNK = 1 << 19
LONG = 2 << 20  # bytes of a file for which a second decoder is worth its start
_AHEAD = 4  # pieces that two decoders are given before one is back
_MOST_CARRIED = (16 << 20) + 64  # bytes: a block of pcapng


class Stream:
    """Where a capture's bytes come from."""

    def __init__(self, number: int) -> None:
        """`number`: of the open file, which stays its owner's."""
        self.number = number
        self._head = b""

    def read(self) -> bytes:
        """What is there, as soon as something is; nothing at the end."""
        head, self._head = self._head, b""
        try:
            return head or os.read(self.number, CHUNK)
        except OSError as fault:
            raise Failed(f"error reading dump file: {fault.strerror}") from None

    def is_ready(self) -> bool:
        """Whether `read` would not wait. A file never lets wait, a pipe does."""
        return bool(self._head) or bool(select.select([self.number], [], [], 0)[0])

    def put_back(self, head: bytes) -> None:
        """What was read is to be read again."""
        self._head = head

    def is_long(self) -> bool:
        """A file in which there is enough to do for two decoders, where each has a processor, and this process too.

        On two processors, two decoders take as long as one, and longer where others use them as well."""
        if len(os.sched_getaffinity(0)) < 3:
            return False
        status = os.fstat(self.number)
        return stat.S_ISREG(status.st_mode) and status.st_size >= LONG


class _Tail:
    """The last bytes of what went by, uncopied: a decoder that claims to have carried over much costs no time here."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self.size = 0

    def add(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self.size += len(piece)

    def keep(self, count: int) -> None:
        """Forget all but the last `count` bytes, which are there."""
        while self._pieces and self.size - len(self._pieces[0]) >= count:
            self.size -= len(self._pieces.popleft())
        if self.size > count:
            self._pieces[0] = self._pieces[0][self.size - count :]
            self.size = count

    def bytes(self) -> bytes:
        return b"".join(self._pieces)


class Reading:
    """One capture file, read by decoders that may end."""

    def __init__(
        self,
        stream: Stream,
        job: Job,
        names: Asked | None,
        most: int,
        left_out: LeftOut,
        decoder: Decoder | None = None,
        signals: Signals | None = None,
    ) -> None:
        """`most` packets that match; -1: all. `decoder`: one that was started for this job."""
        self._in_turn = most < 0 and names is None and _can_be_followed(job) and stream.is_long()
        self._stream = stream
        self._job = job
        self._names = names
        self._most = most
        self._left_out = left_out
        self._decoder = decoder
        self._signals = signals or Signals()
        self._cursor = Cursor()
        self._kept = _Tail()  # the bytes that a decoder carries over: another one needs them
        self._pieces: deque[bytes] = deque()  # read, and not told of
        self._more = True
        self._over = most == 0
        self._pair: list[Decoder] = []

    def batches(self) -> Iterator[Batch]:
        """What the decoders make of the file, in order."""
        straight: Callable[[], Iterator[Batch]] = self._both if self._in_turn else self._straight
        try:
            while not self._over:
                try:
                    yield from straight()
                except bunri.PeerError:
                    self._end()
                    yield from self._one_by_one()
                straight = self._straight
        finally:
            self._end()

    def _straight(self) -> Iterator[Batch]:
        """Piece by piece. Where a number of packets is asked for, one is not sent before the one before is back."""
        calls: deque[bunri.Call[Batch]] = deque()
        while True:
            while len(calls) < (1 if self._most > 0 else 2) and self._has(len(calls)):
                calls.append(begin(self._worker().feed, self._pieces[len(calls)], self._most, -1))
            if not calls:
                break
            batch = self._next(calls[0])
            calls.popleft()
            self._take(batch, self._pieces.popleft())
            yield batch
            if self._over:
                return
        self._over = True
        try:
            last = self._answer(begin(self._worker().finish), PATIENCE)
        except bunri.PeerError as fault:
            raise Failed(f"what the end of the capture is cannot be told: {cause_of(fault)}") from None
        yield last

    def _both(self) -> Iterator[Batch]:
        """Two decoders in turn: one prints a piece, while the other notes of it what it needs to print the next one."""
        pair = self._pair = [Decoder.start(self._job, Cursor(), None), self._worker()]  # the second one begins
        calls: deque[tuple[bunri.Call[Batch], bunri.Call[int]]] = deque()
        while True:
            while len(calls) < _AHEAD and self._has(len(calls)):
                piece = self._pieces[len(calls)]
                pair.reverse()
                calls.append((begin(pair[0].feed, piece, -1, -1), begin(pair[1].follow, piece)))
            if not calls:
                self._decoder, self._pair = pair[0], []
                pair[1].close()
                return
            printed, followed = calls[0]
            batch = self._next(printed)
            self._answer(followed, PATIENCE)
            calls.popleft()
            self._take(batch, self._pieces.popleft())
            yield batch
            if self._over:
                return

    def _has(self, index: int) -> bool:
        """Whether there is a piece of this index. The first one is waited for, others only looked for."""
        while self._more and len(self._pieces) <= index and (index == 0 or self._stream.is_ready()):
            with self._signals.waiting():
                piece = self._stream.read()
            if piece:
                self._pieces.append(piece)
            else:
                self._more = False
        return len(self._pieces) > index

    def _next(self, call: bunri.Call[Batch]) -> Batch:
        """What the piece made that is the first one not told of."""
        given = self._kept.size + len(self._pieces[0])
        return self._checked(self._answer(call, PATIENCE), min(given, _MOST_CARRIED))

    def _answer(self, call: bunri.Call[T], patience: float) -> T:
        with self._signals.waiting():
            return answer(call, patience, self._news)

    def _news(self) -> int:
        return self._names.asked if self._names is not None else 0

    def _take(self, batch: Batch, piece: bytes) -> None:
        self._cursor = batch.cursor
        self._kept.add(piece)
        self._kept.keep(batch.cursor.carried)
        if self._most > 0:
            self._most = max(self._most - batch.packets, 0)
        self._over = batch.done or bool(batch.fault) or self._most == 0

    def _checked(self, batch: Batch, most: int) -> Batch:
        """The decoder may lie: what it says of its bytes must be possible, and what is kept for it has a bound."""
        if not 0 <= batch.cursor.carried <= most or batch.packets < 0:
            raise bunri.ProtocolError(f"a decoder says that it carries {batch.cursor.carried} of {most} bytes")
        return batch

    def _worker(self) -> Decoder:
        if self._decoder is None:
            self._decoder = self._start(self._job, self._names)
            if self._kept.size:
                self._answer(begin(self._decoder.carry, self._kept.bytes()), PATIENCE)
        return self._decoder

    def _start(self, job: Job, names: Asked | None) -> Decoder:
        """Another decoder, when it is there: starts are held back where many have died, and that is not its hanging."""
        decoder = Decoder.start(job, replace(self._cursor, carried=0), names)
        try:
            with self._signals.waiting():
                _ = decoder.process
        except BaseException:
            decoder.close()
            raise
        return decoder

    def _end(self) -> None:
        decoders = self._pair or ([self._decoder] if self._decoder is not None else [])
        self._decoder, self._pair = None, []
        for decoder in decoders:
            decoder.close()

    def _one_by_one(self) -> Iterator[Batch]:
        """Packet by packet to the end of what is there, but for those on which decoders end."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        while not self._over:
            given = self._kept.size + len(rest)
            try:
                call = begin(self._worker().feed, rest, self._most, 1)
                batch = self._checked(self._answer(call, PATIENCE_FOR_ONE), given)
            except bunri.PeerError as fault:
                self._end()
                yield self._skip(rest, fault)
                rest = b""
                continue
            stuck = batch.cursor.packets == self._cursor.packets or batch.cursor.carried == given
            self._take(batch, rest)
            rest = b""
            yield batch
            if stuck:
                return

    def _skip(self, rest: bytes, fault: bunri.PeerError) -> Batch:
        """Leave one packet out: a decoder that prints nothing finds where it ends. For -w it is a packet like any."""
        given = self._kept.bytes() + rest
        quiet = replace(self._job, prints=False, records=True)
        try:
            with closing(self._start(quiet, None)) as walker:
                call = begin(walker.feed, given, -1, 1)
                batch = self._checked(self._answer(call, PATIENCE_FOR_ONE), len(given))
        except bunri.PeerError as again:
            raise Failed(f"behind packet {self._cursor.packets} it cannot be read on: {cause_of(again)}") from None
        if batch.cursor.packets == self._cursor.packets or batch.cursor.carried == len(given):
            raise Failed(f"behind packet {self._cursor.packets} it cannot be read on: {cause_of(fault)}")
        self._left_out.report(f"packet {batch.cursor.packets}", cause_of(fault), batch.records)
        told = replace(batch, text=b"", cursor=replace(batch.cursor, reference=self._cursor.reference))
        if not self._job.records:
            told = replace(told, records=b"", packets=0)
        self._take(told, rest)
        return told


def _can_be_followed(job: Job) -> bool:
    """Whether noting what a packet changes takes less than printing it; -ttt and -ttttt change something each time."""
    return job.prints and not job.records and not job.program and job.style.brief and job.style.time not in (3, 5)


def beginning(worker: Decoder, stream: Stream) -> Kind:
    """What kind of capture it is, told by a decoder, as all that is in it: from as little of it as that takes.

    The stream begins anew afterwards. A capture without packets has a kind too."""
    head = b""
    while True:
        piece = stream.read()
        head += piece
        try:
            kind = answer(begin(worker.kind, head), PATIENCE, int)
        except bunri.PeerError as fault:
            raise Failed(f"the beginning of the file could not be read: {fault}") from None
        if not (kind.more and piece) or len(head) >= CHUNK:
            break
    if kind.fault:
        raise Failed(bunri.printable(kind.fault, limit=300))
    if not (0 <= kind.link < 1 << 32 and 0 <= kind.snap < 1 << 32):
        raise Failed("the beginning of the file could not be read: a decoder says what cannot be")
    stream.put_back(head)
    return kind


def kind_of(stream: Stream) -> Kind:
    """The same, for whoever has no use for the decoder that told it."""
    with Decoder.start(Job(Style(), [], prints=False, records=False, interfaces={}), Cursor(), None) as worker:
        return beginning(worker, stream)


def wanted(kind: Kind, options: Options) -> list[Instruction] | None:
    """The filter for a capture of this kind; None where -d was all that was asked for, and has been answered."""
    if kind.link not in LINK_TYPES and not 104 <= kind.link <= 289:
        raise Failed(f"unknown data link type {kind.link} (min 104, max 289)")
    program: list[Instruction] = []
    if options.expression or options.listing:
        program = compile_expression(options.expression, kind.link, kind.snap, optimize=options.optimize)
    if bpf.asks_direction(program):
        text = LINK_TYPES.get(kind.link, ("", f"DLT {kind.link}"))[1]
        raise Failed(f"inbound/outbound not supported on {text} when reading savefiles")
    if options.listing:
        show(bpf.listing(program, min(options.listing, 3)).encode())
        return None
    return program
