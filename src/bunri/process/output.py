"""Runs in: the monitor, on the supervisor's thread. What a process prints, as lines of the monitor's log (THREATS 25).

A worker's descriptors 1 and 2 are one pipe. Its lines are hostile text: each is cut, escaped, and prefixed from the
monitor's own state. A worker that prints without end is read on (else it would stop), but only so many lines a second
are logged, and only so many bytes in the long run: a log stands on a disk.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from bunri.text import printable

_LONGEST_LINE = 2000  # characters
_PER_SECOND = 200  # lines
_RATE, _AT_ONCE = 1 << 15, 1 << 20  # bytes a second of one process; and before that
_PIECE = 65536
_PIECES_LEFT = 64  # more than a pipe holds, at its end


class Share:
    """What one process may have logged: so much at once, and so much a second after that."""

    def __init__(self) -> None:
        self._left = float(_AT_ONCE)
        self._seen = time.monotonic()

    def takes(self, size: int) -> bool:
        """Whether so many bytes are in it. If so, they are taken out."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._seen) * _RATE, _AT_ONCE)
        self._seen = now
        if size > self._left:
            return False
        self._left -= size
        return True


class Output:
    """One pipe and its logger."""

    def __init__(self, number: int, logger: logging.Logger, prefix: str, forget: Callable[[int], None]) -> None:
        """`forget` is told the descriptor before it is closed."""
        self.number = number
        self._forget = forget
        self._logger = logger
        self._prefix = prefix
        self._rest = b""
        self._second: int = 0
        self._lines: int = 0
        self._dropped = 0
        self._share = Share()

    def drain(self) -> None:
        """Log what is there, without waiting. At the end of the pipe it closes itself."""
        if self.number >= 0 and self._take() == 0:
            self.close()

    def _take(self) -> int | None:
        """Log one piece: its length; 0 at the end of the pipe, None where nothing is there."""
        try:
            data = os.read(self.number, _PIECE)
        except BlockingIOError:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        for index, line in enumerate(lines):
            self._log(line)
            if self._lines > _PER_SECOND:  # the others of this piece are no longer looked at: there may be 65,536
                self._dropped += len(lines) - index - 1
                break
        return len(data)

    def close(self) -> None:
        """Log what is left, in the pipe too, and close it."""
        if self.number < 0:
            return
        for _ in range(_PIECES_LEFT):
            if not self._take():
                break
        if self._rest:
            self._log(self._rest)
            self._rest = b""
        self._tell_dropped()
        number, self.number = self.number, -1  # first: a fork by another thread, meanwhile, is not to close it again
        self._forget(number)
        os.close(number)

    def close_in_child(self) -> None:
        """In a forked child: the pipe is the parent's to log."""
        if self.number >= 0:
            os.close(self.number)
            self.number = -1

    def _log(self, line: bytes) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._tell_dropped()
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > _PER_SECOND:
            self._dropped += 1
            return
        text = printable(line.decode("utf-8", "backslashreplace"), limit=_LONGEST_LINE)
        if self._share.takes(len(text)):
            self._logger.warning("%s%s", self._prefix, text)
        else:
            self._dropped += 1

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._logger.warning("%s[%d more lines in one second were not logged]", self._prefix, self._dropped)
            self._dropped = 0
