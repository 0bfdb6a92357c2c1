# pyright: basic, reportMissingTypeStubs=false, reportMissingModuleSource=false
"""Runs in: the session worker, after confinement. What comes on the control connection, cut into commands.

A command ends at a line feed, as before login and as in vsftpd: so no name that a peer writes contains one. Each line,
whatever is wrong with it, has one answer.
"""

from __future__ import annotations

from typing import Any

from pyftpdlib.handlers import FTPHandler
from pyftpdlib.ioloop import _RetryError

LONGEST = 2048  # bytes of a command


class Lines(FTPHandler):
    """The lines of one peer."""

    ac_in_buffer_size = 1 << 13
    ac_in_buffer: bytes
    producer_fifo: Any
    _is_too_long = False  # the line that comes is; what there was of it is forgotten

    def handle_read(self) -> None:
        try:
            self.ac_in_buffer += self.recv(self.ac_in_buffer_size)
        except _RetryError:
            return
        self._obey()

    def _obey(self) -> None:
        """The commands that are there."""
        while not (self._closed or self._closing or self._quit_pending):
            line, end, rest = self.ac_in_buffer.partition(b"\n")
            self._is_too_long |= len(line) > LONGEST
            if not end:
                self.ac_in_buffer = b"" if self._is_too_long else line
                return
            self.ac_in_buffer = rest
            self._obey_line(line.removesuffix(b"\r"))

    def _obey_line(self, line: bytes) -> None:
        if self._is_too_long:
            self._is_too_long = False
            self.respond("500 Command too long.")
        elif b"\0" in line:
            self.respond("501 A command has no zero bytes.")
        else:
            self._in_buffer = [line]
            self.found_terminator()
