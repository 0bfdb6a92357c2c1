"""Runs in: the monitor. Where decoded text and records go: standard output, and the writer with its rotation.

File names are made here, from the command line, the clock and a count: nothing that a packet says gets into one.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import ParamSpec, TypeVar

import bunri
from bunri.apps.dump.messages import Batch, WriteFailed
from bunri.apps.dump.monitor import (
    PATIENCE_FOR_ONE,
    WRITE_FAILED,
    Failed,
    Signals,
    answer,
    begin,
    cause_of,
    complain,
    safe,
)
from bunri.apps.dump.options import Options
from bunri.apps.dump.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")


def stand_in() -> None:
    """Whoever started this program may have closed its standard output: another file must not get its number's text."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), "w")  # each write fails, as it did
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), "w")


def flush() -> None:
    """What was printed so far is out; Failed, and nothing more is tried, where it cannot be."""
    try:
        sys.stdout.flush()
    except OSError as fault:
        raise _unwritten(fault) from None


def show(text: bytes, *, now: bool = False) -> None:
    """Print all of it; Failed where that cannot be. Where Python's own buffers are off (PYTHONUNBUFFERED), a disk that fills up takes a part."""
    left = memoryview(text)
    try:
        while left:
            left = left[sys.stdout.buffer.write(left) :]
        if now:
            sys.stdout.buffer.flush()
    except OSError as fault:
        raise _unwritten(fault) from None


@cache
def nowhere() -> int:
    """/dev/null, open: what is still to be printed goes there where nothing can be printed."""
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _unwritten(fault: OSError) -> Failed:
    os.dup2(nowhere(), sys.stdout.fileno())
    return Failed(f"Unable to write output: {fault.strerror}", WRITE_FAILED)


class Output:
    """Takes batches."""

    def __init__(self, options: Options, stack: ExitStack, signals: Signals) -> None:
        self._options = options
        self._stack = stack
        self._signals = signals
        self._writing: Writing | None = None
        self._link = (0, 0)
        self._number = 0
        self._periods = 0  # of -G that are over
        self._since = time.time()
        self._flushes = options.line_buffered or sys.stdout.isatty()
        self.full = False  # -W files were written

    def open(self, link: int, snap: int) -> None:
        """The capture's kind is known: begin the first file."""
        if self._options.write:
            writing = Writing(self._file(), self._signals, link, snap, nanoseconds=self._options.style.nanoseconds)
            self._writing = self._stack.enter_context(writing)

    def take(self, batch: Batch) -> None:
        """One batch: its text to standard output, its records to the writer."""
        if batch.text:
            show(safe(batch.text), now=self._flushes)
        if batch.records and self._writing is not None:
            self._append(self._writing, batch.records)

    def finish(self) -> None:
        """All is out."""
        flush()
        if self._writing is not None:
            self._writing.finish()

    def _append(self, writing: Writing, records: bytes) -> None:
        options = self._options
        if options.rotate_seconds and time.time() - self._since >= options.rotate_seconds:
            self._periods += 1
            if options.files and not options.rotate_size and self._periods >= options.files:
                sys.stderr.write(f"Maximum file limit reached: {options.files}\n")
                self.full = True
                return
            self._since = time.time()
            self._next(writing, 0)
        while records:
            records = records[writing.append(records, options.rotate_size) :]
            if records:
                self._next(writing, (self._number + 1) % (options.files or sys.maxsize))

    def _next(self, writing: Writing, number: int) -> None:
        """The next file. `number`: of those that -C made since -G began one, or since the beginning."""
        self._number = number
        writing.next(self._file())

    def _file(self) -> Target:
        options = self._options
        if options.write == "-":
            flush()
            return Target("standard output", os.dup(sys.stdout.fileno()))
        name = options.write
        if options.rotate_seconds:
            name = time.strftime(name, time.localtime(self._since))
        width = len(str(options.files - 1)) if options.files > 1 and options.rotate_size else 0
        if self._number or width:
            name += str(self._number).zfill(width)
        return Target.create(name, 0o666, options.owner)


class Target:
    """A file that records are to go to, open.

    No worker is handed a device: what is to go to one (/dev/null, a terminal) or to a socket goes through a pipe, and
    is carried on from here.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.fault = ""  # of a device
        self._carrier: threading.Thread | None = None
        mode = os.fstat(number).st_mode
        if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
            self.file = bunri.File(number)
            return
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self.file = bunri.File(writing)
        self._carrier = threading.Thread(target=self._carry, args=(reading, number), name="to a device", daemon=True)
        self._carrier.start()

    @classmethod
    def create(cls, name: str, mode: int = 0o600, owner: tuple[int, int] | None = None) -> Target:
        """A file of this name, with what the umask leaves of the mode; Failed in tcpdump's words."""
        try:
            number = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOCTTY, mode)
            if owner is not None:
                os.fchown(number, *owner)
        except OSError as fault:
            raise Failed(f"{name}: {fault.strerror}") from None
        return cls(name, number)

    def _carry(self, reading: int, number: int) -> None:
        try:
            while data := os.read(reading, 1 << 16):
                view = memoryview(data)
                while view:
                    view = view[os.write(number, view) :]
        except OSError as fault:
            self.fault = fault.strerror or str(fault)
        finally:
            os.close(reading)
            os.close(number)

    def wait(self, news: Callable[[], object]) -> None:
        """Until all of it is where it belongs: nobody has the pipe's other end any more. Failed where it is not."""
        while self._carrier is not None and self._carrier.is_alive():
            before = news()
            self._carrier.join(PATIENCE_FOR_ONE)
            if news() == before:
                break  # it is waited for no longer
        if self.fault:
            raise Failed(f"{self.name}: {self.fault}", WRITE_FAILED)


class Writing:
    """The writer, and the file that it is at."""

    def __init__(self, target: Target, signals: Signals, link: int, snap: int, *, nanoseconds: bool) -> None:
        self._target = target
        self._signals = signals
        with target.file:
            self._writer = Writer.start(target.file, {12: 101}.get(link, link), snap, int(nanoseconds))
        self._empty = True
        self._try(self._writer.begin)

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def append(self, records: bytes, most: int = 0) -> int:
        """How many bytes of the records the file took before it had more than `most` bytes (0: no bound)."""
        used = self._try(self._writer.append, records, most).used
        # Without a bound all of them, and of an empty file some: or whoever owns the writer had files made without end.
        least = 1 if self._empty else 0
        if not (least if most else len(records)) <= used <= len(records):
            raise Failed(f"{self._target.name}: the writer says what cannot be of what it wrote")
        self._empty = False
        return used

    def next(self, target: Target) -> None:
        """Go on with another file."""
        with target.file:
            self._try(self._writer.next, target.file)
        self._target.wait(self._signals.hurry)
        self._target = target
        self._empty = True

    def finish(self) -> None:
        """All records are where they belong."""
        self._writer.close()
        self._target.wait(self._signals.hurry)

    def _try(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A pipe may have a reader who takes his time: he is waited for until the user wants to wait no more."""
        try:
            return answer(begin(method, *args, **kwargs), PATIENCE_FOR_ONE, self._signals.hurry)
        except WriteFailed as fault:
            self.finish()  # a device says more
            raise Failed(f"{self._target.name}: {bunri.printable(fault.said, limit=200)}", WRITE_FAILED) from None
        except bunri.PeerError as fault:
            raise Failed(f"{self._target.name}: the writer failed: {cause_of(fault)}") from None


class LeftOut:
    """Packets on which decoders ended: reported, counted, and kept with --quarantine."""

    def __init__(self, path: str, stack: ExitStack, signals: Signals) -> None:
        """The file is made at once: whether it can be is known before the capture begins."""
        self._stack = stack
        self._signals = signals
        self._target = Target.create(path) if path else None
        self._writing: Writing | None = None
        self.count = 0

    def open(self, link: int, snap: int, *, nanoseconds: bool) -> None:
        """The capture's kind is known."""
        if self._target is not None:
            writing = Writing(self._target, self._signals, link, snap, nanoseconds=nanoseconds)
            self._writing = self._stack.enter_context(writing)

    def report(self, what: str, cause: str, record: bytes) -> None:
        """One more. `record`: as it stands in a capture."""
        self.count += 1
        complain(f"{what} was left out: {cause}")
        if record and self._writing is not None:
            self._writing.append(record)

    def finish(self) -> None:
        """How many there were; what is kept of them is where it belongs."""
        if self.count:
            complain(f"{self.count} packet{'' if self.count == 1 else 's'} left out")
        if self._writing is not None:
            self._writing.finish()
