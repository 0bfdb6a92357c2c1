"""Runs in: the decoder and its zygote. A stranger's packets in, text out; it holds nothing.

Its own uid, no file, no network, no packet socket: the bytes of a capture file come in messages; of a living capture
it has the memory that the kernel writes packets to (ring.py), and an eventfd that says when. Whoever owns it can print
wrong lines, and stop. It is then replaced by another one, which goes on behind the packet that did it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from msgspec.structs import replace

import bunri
from bunri.apps.dump import bpf, capture
from bunri.apps.dump.messages import (
    BadCapture,
    Batch,
    Cursor,
    Decoded,
    Instruction,
    Job,
    Kind,
    Names,
    Place,
    RingShape,
    Style,
    Where,
)
from bunri.apps.dump.ring import Ring

MEMORY = 512 << 20
POLICY = bunri.Policy(memory=MEMORY, cpu="60s")
_MOST_VALUES = 1024  # packets in one answer
_WAIT = 1.0  # seconds that a decoder waits for its bell until it says that it still lives
_PRINTERS = (
    "bunri.apps.dump.work",
)  # imported by the zygote; the monitor, which has these classes too, knows no printer


class Decoder(bunri.Compartment):
    """Reads a capture file, piece by piece."""

    policy = POLICY
    preload = _PRINTERS

    def __init__(self, job: Job, cursor: Cursor, names: Names | None) -> None:
        from bunri.apps.dump.work import Work

        self._work = Work(job, cursor, names)
        self._capture = capture.Capture(cursor, 9 if job.style.nanoseconds else 6)

    def kind(self, head: bytes) -> Kind:
        """What the beginning of a capture says of it. Nothing of it is read yet."""
        beginning = capture.Capture(Cursor(), 6)
        try:
            for _ in beginning.feed(head):
                break
        except BadCapture as bad:
            if beginning.cursor.first < 0:
                return Kind(bad.said, 0, 0)
        cursor = beginning.cursor
        if cursor.first < 0:
            return Kind(beginning.finish(), 0, 0, more=True)
        return Kind("", cursor.first, cursor.snap)

    def carry(self, rest: bytes) -> None:
        """Bytes that the decoder before this one had not used; nothing of them is read yet."""
        self._capture.carry(rest)

    def feed(self, chunk: bytes, most: int, steps: int) -> Batch:
        """What the capture's next bytes make: at most `most` packets that match, `steps` that are read; -1 is no bound."""
        fault = ""
        work = self._work
        work.begin(most)
        places = self._places(chunk)
        try:
            if work.only_prints and most < 0 and steps < 0:
                work.print(places)
            for place in places:
                work.take(*place)
                steps -= 1
                if steps == 0 or work.full:
                    break
        except BadCapture as bad:
            fault = bad.said
        # Closing puts what was not read back, so that the cursor is right.
        places.close()
        cursor = replace(self._capture.cursor, carried=self._capture.carried)
        return work.end(cursor, fault)

    def follow(self, chunk: bytes) -> int:
        """The capture's next bytes, which another decoder prints; how many packets those were."""
        work = self._work
        work.begin(-1)
        with contextlib.suppress(BadCapture):  # the other one says so
            work.follow(self._places(chunk))
        return work.end(self._capture.cursor, "").packets

    def _places(self, chunk: bytes) -> Generator[Where]:
        places = self._capture.places(chunk)
        if self._work.link >= 0:
            return places
        return self._first_places(places)

    def _first_places(self, places: Generator[Where]) -> Generator[Where]:
        """Before the first packet it is known of which link all are."""
        try:
            for place in places:
                if self._work.link < 0:
                    self._work.set_link(self._capture.cursor.first)
                yield place
        finally:
            places.close()

    def finish(self) -> Batch:
        """The end of the capture."""
        self._work.begin(-1)
        return self._work.end(self._capture.cursor, self._capture.finish())


class _Values:
    """Makes values of packets, for a program that wants them and no page of text."""

    def __init__(self, style: Style, program: list[Instruction], interfaces: dict[int, str]) -> None:
        from bunri.apps.dump.decode.core import Dissector
        from bunri.apps.dump.decode.fields import fields
        from bunri.apps.dump.decode.table import Tables

        self._fields = fields
        self._accept = bpf.machine(program) if program else None
        self._dissector = Dissector(style, Tables())
        self._dissector.interfaces = interfaces
        self._number = 0
        self._link = -1

    def of(self, packet: capture.Packet, link: int) -> Decoded | None:
        """The next packet, of this link; None where it is not let through."""
        self._number += 1
        second, fraction, length, data = packet
        if self._accept is not None and not self._accept(data, length):
            return None
        dissector = self._dissector
        if self._link != link:
            self._link = link
            dissector.set_link(link)
        dissector.packet(second, fraction, length, data, 0, len(data))
        text = dissector.taken().decode().removesuffix("\n")
        ip, carried = self._fields(link, data)
        return Decoded(self._number, second, fraction, length, data, text, ip, carried)


class PacketDecoder(bunri.Compartment):
    """Reads a capture file, as values."""

    policy = POLICY
    preload = (*_PRINTERS, "bunri.apps.dump.decode.fields")

    def __init__(self, style: Style, program: list[Instruction]) -> None:
        self._values = _Values(style, program, {})
        self._capture = capture.Capture(Cursor(), 9)
        self._bad: BadCapture | None = None

    @bunri.raises(BadCapture)
    def feed(self, chunk: bytes) -> list[Decoded]:
        """The packets that are whole now, and let through."""
        if self._bad is not None:
            raise self._bad
        made = (self._values.of(packet, self._capture.cursor.first) for packet in self._readable(chunk))
        return [packet for packet in made if packet is not None]

    def _readable(self, chunk: bytes) -> Iterator[capture.Packet]:
        """Packets up to the place where the capture is wrong: that is told when they were taken."""
        try:
            yield from self._capture.feed(chunk)
        except BadCapture as bad:
            self._bad = bad

    @bunri.raises(BadCapture)
    def finish(self) -> None:
        """The end of the capture. BadCapture where it comes too soon."""
        if self._bad is not None:
            raise self._bad
        if said := self._capture.finish():
            raise BadCapture(said)


class LivePacketDecoder(bunri.Compartment):
    """Reads the ring that the kernel fills, as values."""

    policy = POLICY.with_(cpu=None, memory=bunri.AT_START)
    preload = PacketDecoder.preload

    def __init__(
        self,
        style: Style,
        program: list[Instruction],
        interfaces: dict[int, str],
        shape: RingShape,
        memory: bunri.Mapped,
        progress: bunri.Mapped,
        bell: bunri.File,
    ) -> None:
        self._values = _Values(style, program, interfaces)
        self._link = shape.link
        self._ring = Ring(shape, memory.buffer, progress.buffer, bell, Place(0, 0))
        self._places: Iterator[Where] | None = None

    def batch(self) -> list[Decoded]:
        """What has arrived, as far as one answer may carry it. Nothing, where nothing comes for a while."""
        found: list[Decoded] = []
        if self._places is None:
            if not self._ring.comes(_WAIT):
                return found
            self._places = self._ring.places()
        for second, fraction, length, b, start, stop in self._places:
            value = self._values.of(capture.Packet(second, fraction, length, b[start:stop]), self._link)
            if value is not None:
                found.append(value)
                if len(found) == _MOST_VALUES:
                    return found
        self._places = None
        self._ring.give_back()
        return found


class LiveDecoder(bunri.Compartment):
    """Reads the ring that the kernel fills."""

    policy = POLICY.with_(cpu=None, memory=bunri.AT_START)  # the ring counts, and how large it is the user says
    preload = _PRINTERS

    def __init__(
        self,
        job: Job,
        shape: RingShape,
        memory: bunri.Mapped,
        progress: bunri.Mapped,
        bell: bunri.File,
        start: Place,
        cursor: Cursor,
        names: Names | None,
    ) -> None:
        from bunri.apps.dump.work import Work

        self._work = Work(job, cursor, names)
        self._work.set_link(shape.link)
        self._cursor = cursor
        self._ring = Ring(shape, memory.buffer, progress.buffer, bell, start)

    def batch(self, most: int) -> Batch:
        """What has arrived, at most `most` packets that match (-1: no bound). Nothing, where nothing comes for a while."""
        work, ring = self._work, self._ring
        work.begin(most)
        if not work.full and ring.comes(_WAIT):
            work.take_block(ring)
            if not work.full:
                ring.give_back()
        batch = work.end(self._cursor, "")
        self._cursor = batch.cursor
        return batch

    def until(self, packet: int, most: int) -> Batch:
        """What the packets make that stand before this one in the block: another decoder died before it told."""
        self._work.begin(most)
        self._work.take_all(self._ring.places(packet))
        return self._work.end(self._cursor, "")

    def lost(self) -> Batch | None:
        """The packet at the place where this decoder starts, as a record: the one on which another one ended. None where
        no packet stands there."""
        packet = self._ring.here()
        if packet is None:
            return None
        self._work.begin(-1)
        self._work.take_packet(packet)
        return self._work.end(self._cursor, "")
