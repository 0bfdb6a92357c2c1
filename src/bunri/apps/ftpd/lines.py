# pyright: basic, reportMissingTypeStubs=false, reportMissingModuleSource=false
"""Runs in: the session worker, after confinement. What comes on the control connection, cut into commands.

A command ends at a line feed, as before login and as in vsftpd: so no name that a peer writes contains one. Each line,
whatever is wrong with it, has one answer. While a file or a listing is on its way, what comes behind waits for its end, as
in vsftpd: for pyftpdlib a PASV would cut it off, and a RETR go on with another file in the same connection. And a peer who
does not read his answers is not read either: what waits for him would grow without end.
"""

from __future__ import annotations

from typing import Any

from bunri.apps.ftpd.upstream import AsyncChat, FTPHandler, RetryError

LONGEST = 2048  # bytes of a command
BEHIND = 1 << 16  # bytes of answers that wait for the peer until he is obeyed again; and of his commands that wait
AT_ONCE = (b"ABOR", b"NOOP", b"QUIT", b"STAT")  # are obeyed during a transfer, which goes on but for ABOR


class Lines(FTPHandler):
    """The lines of one peer."""

    ac_in_buffer_size = 1 << 13
    ac_in_buffer: bytes
    producer_fifo: Any
    _wanted_io_events: int
    data_channel: Any
    _is_too_long = False  # the line that comes is; what there was of it is forgotten
    _is_held = False  # the line that is there waits for the end of a transfer

    def readable(self) -> bool:
        """Where it is not, it is not asked for (`_await_events`)."""
        return True

    def handle_read(self) -> None:
        try:
            self.ac_in_buffer += self.recv(self.ac_in_buffer_size)
        except RetryError:
            return
        self._obey()
        if self._is_held:
            self._await_events()

    def handle_read_event(self) -> None:
        """What the loop calls."""
        self.handle_read()

    def handle_write(self) -> None:
        super().handle_write()
        self._obey()

    def handle_timeout(self) -> None:
        if self.producer_fifo:  # he does not read: a last word would not reach him
            self.close()
        else:
            super().handle_timeout()

    def answer(self, data: bytes) -> None:
        """At once, as far as there is room and nothing stands before it."""
        if not self.producer_fifo:
            data = data[self.send(data) :]
        if not data or self._closed:
            return
        if self.producer_fifo and isinstance(self.producer_fifo[-1], bytes):
            self.producer_fifo[-1] += data
        else:
            self.producer_fifo.append(data)
        self.initiate_send()

    def initiate_send(self) -> None:
        """As pyftpdlib's, but for what is waited for."""
        super(AsyncChat, self).initiate_send()
        if not self._closed:
            self._await_events()

    def _await_events(self) -> None:
        is_full = self._is_held and len(self.ac_in_buffer) >= BEHIND
        read = 0 if is_full or self._is_behind() else self.ioloop.READ
        wanted = read | self.ioloop.WRITE if self.producer_fifo else read
        if self._wanted_io_events != wanted:
            self.ioloop.modify(self._fileno, wanted)
            self._wanted_io_events = wanted

    def _is_behind(self) -> bool:
        """Whether the peer has answers to read first. A listing that is not written yet (STAT) counts as many."""
        if not self.producer_fifo:
            return False
        return sum(len(part) if isinstance(part, bytes) else BEHIND for part in self.producer_fifo) >= BEHIND

    def _obey(self) -> None:
        """The commands that are there."""
        while not (self._closed or self._closing or self._quit_pending or self._is_behind()):
            line, end, rest = self.ac_in_buffer.partition(b"\n")
            self._is_too_long |= len(line) > LONGEST
            if not end:
                self.ac_in_buffer = b"" if self._is_too_long else line
                return
            self._is_held = self.data_channel is not None and line.split(b" ")[0].strip()[-4:].upper() not in AT_ONCE
            if self._is_held:
                return
            self.ac_in_buffer = rest
            self._obey_line(line.removesuffix(b"\r"))

    def _on_dtp_close(self) -> None:
        super()._on_dtp_close()
        if self._is_held:  # later: this may be the answer to an ABOR
            self.ioloop.call_later(0, self._go_on, _errback=self.handle_error)

    def _go_on(self) -> None:
        self._obey()
        if not self._closed:
            self._await_events()

    def _obey_line(self, line: bytes) -> None:
        if self._is_too_long:
            self._is_too_long = False
            self.respond("500 Command too long.")
        elif b"\0" in line:
            self.respond("501 A command has no zero bytes.")
        else:
            self._in_buffer = [line]
            self.found_terminator()
