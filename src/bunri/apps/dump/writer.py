"""Runs in: the writer and its zygote. Appends records to a capture file; it cannot name one.

The monitor opens each file and hands it over. What arrives comes from a decoder, so it is taken apart into records
first: a file that `bunri dump -w` wrote is a capture, whatever owns the decoder.
"""

from __future__ import annotations

import os
import struct

import bunri
from bunri.apps.dump import capture
from bunri.apps.dump.messages import WriteFailed, Written


class Writer(bunri.Compartment):
    """Writes one capture, to one file after another."""

    policy = bunri.Policy(memory="256M", cpu=None, file_size="1T")

    def __init__(self, file: bunri.File, link: int, snap: int, nanoseconds: int) -> None:
        self._header = capture.file_header(link, snap, nanoseconds=bool(nanoseconds))
        self._snap = snap
        self._file = file
        self._size = 0

    @bunri.raises(WriteFailed)
    def begin(self) -> None:
        """Write what a capture begins with."""
        self._write(self._header)

    @bunri.raises(WriteFailed)
    def next(self, file: bunri.File) -> None:
        """Go on with another file."""
        self._file.close()
        self._file = file
        self._size = 0
        self._write(self._header)

    @bunri.raises(WriteFailed)
    def append(self, records: bytes, most: int) -> Written:
        """Write records until the file is larger than `most` bytes (0: no bound); whatever is left is for the next."""
        if not capture.are_records(records):
            raise ValueError("no packet records")
        used = len(records)
        if most and self._size + used > most:
            used = self._until(records, most)
        self._write(records[:used])
        return Written(used, self._size)

    def _until(self, records: bytes, most: int) -> int:
        """As tcpdump does: a packet is still written while the file is not larger than the bound."""
        at = 0
        while at < len(records) and self._size + at <= most:
            at += 16 + int(struct.unpack_from("<I", records, at + 8)[0])
        return at

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        except OSError as fault:
            raise WriteFailed(fault.strerror or "it cannot be written to") from None
        self._size += len(data)
