"""Runs in: the session worker, after confinement. What is to be logged, on its way to the monitor, which writes it.

The lines of one moment go together, and the peer waits for none of them.
"""

from __future__ import annotations

import bunri
from bunri.apps.ftpd.messages import MOST_LINES, Log, Said, Transfer

ROOM = 4096  # characters of lines in one message, unless a single one has more


class Journal:
    """The lines of one session, in their order."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lines: list[Transfer | Said] = []
        self._length = 0
        self._sent: bunri.Call[None] | None = None

    def add(self, line: Transfer | Said) -> None:
        """One more. It goes with the next `send`, or where there is no room for it."""
        length = len(line.path if isinstance(line, Transfer) else line.text)
        if len(self._lines) == MOST_LINES or self._length + length > ROOM:
            self.send()
        self._lines.append(line)
        self._length += length

    def send(self) -> None:
        """All that is there, once what was sent before is written: who writes very much waits."""
        if self._lines:
            self._settle()
            self._sent = bunri.call(self._log.lines, self._lines)
            self._lines, self._length = [], 0

    def close(self) -> None:
        """Until the log has everything."""
        self.send()
        self._settle()

    def _settle(self) -> None:
        if self._sent is not None:
            self._sent.result()
            self._sent = None
