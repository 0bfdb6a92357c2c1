"""Runs in: the user's shell. A command's own terminal, and the user's: bytes go to and fro, nothing else does.

The command gets a pseudo-terminal, never the user's: what it does to its terminal it does to its own (no TIOCSTI).
The user's is raw meanwhile, so that Ctrl-C and its like are bytes, which the command's terminal makes signals of.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Generator
from types import FrameType

_CHUNK = 65536
_END_OF_INPUT = b"\x04"  # as a terminal says it


class Gone(Exception):
    """The user's terminal: closed, or its line is cut."""


@contextlib.contextmanager
def raw(terminal: int) -> Generator[None]:
    """The user's terminal, raw, until the end of the block."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal, termios.TCSADRAIN)  # what was typed ahead is kept
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # of one that is gone
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def is_in_foreground(terminal: int) -> bool:
    """Whether we may read from it and change it: else that stops us (SIGTTIN, SIGTTOU), as whatever a shell runs in the
    background. One that does not control us does not care."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True


def copy_size(source: int, target: int) -> None:
    """Rows and columns of one terminal to another, which tells its programs."""
    with contextlib.suppress(OSError):  # of one that has just gone
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0)))


def relay(command: int, source: int | None, target: int, size_of: int) -> None:
    """Bytes from `source`, if any, to the command's terminal, and from that to `target`, until nobody has the command's
    terminal any more. Gone, when `source` or `target` is."""

    def resized(_number: int, _frame: FrameType | None) -> None:
        copy_size(size_of, command)

    before = signal.signal(signal.SIGWINCH, resized)
    copy_size(size_of, command)
    os.set_blocking(command, False)
    try:
        _copy(command, source, target)
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy(command: int, source: int | None, target: int) -> None:
    typed = b""  # and not yet taken: whoever does not read is not waited for, he may be writing
    while True:
        reading = [command, *([source] if source is not None and not typed else [])]
        readable, writable, _ = select.select(reading, [command] if typed else [], [])
        if source is not None and source in readable:
            with _of_user():
                typed = os.read(source, _CHUNK)
            if not typed:
                source, typed = None, _END_OF_INPUT
        if writable:
            with contextlib.suppress(BlockingIOError):
                typed = typed[os.write(command, typed) :]
        if command in readable:
            data = _read(command)
            if not data:
                return
            while data:
                with _of_user():
                    data = data[os.write(target, data) :]


def _read(command: int) -> bytes:
    """Empty at the end: EIO, when nobody has the other side open."""
    try:
        return os.read(command, _CHUNK)
    except OSError:
        return b""


@contextlib.contextmanager
def _of_user() -> Generator[None]:
    try:
        yield
    except OSError as fault:
        raise Gone from fault
