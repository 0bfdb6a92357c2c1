"""Runs in: the monitor. Where decoded text and records go: standard output, and the writer with its rotation.

File names are made here, from the command line, the clock and a count: nothing that a packet says gets into one.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack

import bunri
from bunri.apps.dump.messages import Batch
from bunri.apps.dump.monitor import Failed, safe
from bunri.apps.dump.options import Options
from bunri.apps.dump.writer import Writer


class Output:
    """Takes batches."""

    def __init__(self, options: Options, stack: ExitStack) -> None:
        self._options = options
        self._stack = stack
        self._writer: Writer | None = None
        self._link = (0, 0)
        self._number = 0
        self._since = 0.0
        self._flushes = options.line_buffered or sys.stdout.isatty()
        self.full = False  # -W files were written

    def open(self, link: int, snap: int) -> None:
        """The capture's kind is known: begin the first file."""
        if self._options.write and self._writer is None:
            self._link = (link, snap)
            file = self._file()
            nanoseconds = int(self._options.style.nanoseconds)
            self._writer = self._stack.enter_context(Writer.start(file, {12: 101}.get(link, link), snap, nanoseconds))
            file.close()

    def take(self, batch: Batch) -> None:
        """One batch: its text to standard output, its records to the writer."""
        if batch.text:
            _write(safe(batch.text))
            if self._flushes:
                sys.stdout.buffer.flush()
        if batch.records and self._writer is not None:
            self._append(self._writer, batch.records)

    def _append(self, writer: Writer, records: bytes) -> None:
        options = self._options
        if options.rotate_seconds and time.time() - self._since >= options.rotate_seconds and not self._rotate(writer):
            return
        while records:
            written = writer.append(records, options.rotate_size)
            if not 0 <= written.used <= len(records):
                raise Failed("the writer says that it wrote what it was not given")
            records = records[written.used :]
            if records and not self._rotate(writer):
                return

    def _rotate(self, writer: Writer) -> bool:
        self._number += 1
        if self._options.files and self._number >= self._options.files:
            if self._options.rotate_seconds:
                self.full = True
                return False
            self._number = 0
        with self._file() as file:
            writer.next(file)
        return True

    def _file(self) -> bunri.File:
        options = self._options
        self._since = time.time()
        if options.write == "-":
            sys.stdout.flush()
            return bunri.File(os.dup(1))
        name = options.write
        if options.rotate_seconds:
            name = time.strftime(name, time.localtime())
        if options.rotate_size and (self._number or options.files):
            width = len(str(options.files - 1)) if options.files else 0
            name += f"{self._number:0{width}}" if width else str(self._number)
        try:
            return bunri.File.open(name, "w")
        except OSError as fault:
            raise Failed(f"{name}: {fault.strerror}") from None


def _write(text: bytes) -> None:
    """All of it: where Python's own buffers are off (PYTHONUNBUFFERED), a disk that fills up takes a part."""
    left = memoryview(text)
    while left:
        left = left[sys.stdout.buffer.write(left) :]
