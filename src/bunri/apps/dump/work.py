"""Runs in: the decoder, confined. What it does with each packet: filter, record, print; or only follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from msgspec.structs import replace

from bunri.apps.dump import bpf, capture
from bunri.apps.dump.decode.core import Dissector
from bunri.apps.dump.decode.table import Tables
from bunri.apps.dump.messages import Batch, Cursor, Job, Names, Where
from bunri.apps.dump.ring import Ring


class Work:
    """What is done with each packet."""

    def __init__(self, job: Job, cursor: Cursor, names: Names | None) -> None:
        self._job = job
        self._accept = bpf.machine(job.program) if job.program else None
        self._known: Names | None = names
        self._dissector = Dissector(job.style, Tables(), names.host if names is not None else None)
        self._dissector.reference = cursor.reference
        self._dissector.before = cursor.matched
        self._dissector.interfaces = job.interfaces
        self._read = cursor.packets
        self._matched = cursor.matched
        self._records = bytearray()
        self._count = 0
        self._most = -1
        self.full = False
        self.only_prints = job.prints and not job.records and not job.program
        self.link = -1

    def set_link(self, link: int) -> None:
        """The link type of the capture."""
        self.link = link
        self._dissector.set_link(link)

    def begin(self, most: int) -> None:
        """The next batch."""
        self._count = 0
        self._most = most
        self.full = most == 0

    def take_packet(self, packet: capture.Packet) -> None:
        """One packet."""
        second, fraction, length, data = packet
        self.take(second, fraction, length, data, 0, len(data))

    def take_all(self, places: Iterator[Where]) -> None:
        """Packets, as far as the batch may have them."""
        while not self.full and (place := next(places, None)) is not None:
            self.take(*place)

    def take_block(self, ring: Ring) -> None:
        """The packets of a block, as `take_all` takes them, in no more steps than the job asks for."""
        job, most = self._job, self._most
        if job.program or (job.prints and job.records):
            self.take_all(ring.places())
        elif job.prints:
            self.print(islice(ring.places(), None if most < 0 else most))
        elif job.records:
            self._add(ring.add_records(self._records, most))
        else:
            self._add(ring.count() if most < 0 else min(ring.count(), most))
        self.full = self._count == most

    def print(self, places: Iterable[Where]) -> None:
        """All of these packets, where that is all there is to do."""
        before = self._dissector.captured
        try:
            self._dissector.packets(places)
        finally:
            self._add(self._dissector.captured - before)

    def follow(self, places: Iterable[Where]) -> None:
        """Packets that another decoder prints, in the same way."""
        before = self._dissector.captured
        try:
            self._dissector.follow(places)
        finally:
            self._add(self._dissector.captured - before)

    def _add(self, count: int) -> None:
        self._read += count
        self._count += count

    def take(self, second: int, fraction: int, length: int, b: bytes, start: int, stop: int) -> None:
        """One packet, where it was read."""
        self._read += 1
        if self._accept is not None and not self._accept(b[start:stop], length):
            return
        self._count += 1
        if self._job.records:
            self._records += capture.record(capture.Packet(second, fraction, length, b[start:stop]))
        if self._job.prints:
            self._dissector.packet(second, fraction, length, b, start, stop)
        self.full = self._count == self._most

    def end(self, cursor: Cursor, fault: str) -> Batch:
        """What the batch made."""
        self._matched += self._count
        dissector = self._dissector
        cursor = replace(cursor, packets=self._read, matched=self._matched, reference=dissector.reference)
        records = bytes(self._records)
        self._records.clear()
        return Batch(dissector.taken(), records, self._count, cursor, fault, self.full)
