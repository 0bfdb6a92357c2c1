# pyright: basic, reportMissingTypeStubs=false, reportMissingModuleSource=false
"""Runs in: the session worker, after confinement. Data connections: those that pyftpdlib's loop drives, and small files,
which are gone before it would begin to.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from bunri.apps.ftpd.messages import Rights
from bunri.apps.ftpd.upstream import DTPHandler, FileReadWriteError, ThrottledDTPHandler

AT_ONCE = 1 << 16  # bytes of a file that is not worth a turn of the loop
MOMENT = 0.02  # seconds


def send_at_once(connection: socket.socket, file: Any) -> tuple[int, bool]:
    """Send the first bytes of a file, as far as there is room for them: how many went, and whether that was all of it.
    What is left stands where `file.tell()` says; a fault is met again by whoever goes on."""
    begun, sent = file.tell(), 0
    try:
        while sent < AT_ONCE:
            count = os.sendfile(connection.fileno(), file.fileno(), begun + sent, AT_ONCE - sent)
            if not count:
                return sent, True
            sent += count
    except OSError:
        pass  # no room, or a fault
    file.seek(begun + sent)
    return sent, False


def take_at_once(connection: socket.socket, control: socket.socket, file: Any) -> tuple[int, bool]:
    """Take the first bytes of an upload, as far as they come within a moment and no command comes with them: how many were
    written to the file, and whether that was all. `Aborted` where it has failed."""
    room, until, taken = memoryview(bytearray(AT_ONCE)), time.monotonic() + MOMENT, 0
    while taken < AT_ONCE:
        try:
            count = connection.recv_into(room)
        except BlockingIOError:
            ready, _, _ = select.select([connection, control], (), (), max(until - time.monotonic(), 0))
            if connection not in ready or control in ready:
                return taken, False
            continue
        except OSError:
            raise Aborted("426 Failure reading network stream.", taken) from None
        if not count:
            return taken, True
        try:
            file.write(room[:count])
        except OSError as fault:
            raise Aborted(f"426 {fault.strerror}; transfer aborted.", taken) from None
        taken += count
    return taken, False


@dataclass
class Aborted(Exception):
    """An upload has failed."""

    answer: str
    taken: int


class Explained:
    """Why a transfer failed: pyftpdlib loses it."""

    def handle_close(self: Any) -> None:
        """An upload whose connection was reset is not complete. Whoever met the reset calls this while handling it."""
        if not self._closed and self.receive and isinstance(sys.exc_info()[1], OSError):
            self._resp = ("426 Failure reading network stream.", None)
            self.close()
            return
        if not self._closed and self._had_cr:  # the last byte of a text: no line feed came behind it
            self._had_cr = False
            self.file_obj.write(b"\r")
        super().handle_close()  # type: ignore[misc]

    def handle_error(self: Any) -> None:
        fault = sys.exc_info()[1]
        if isinstance(fault, FileReadWriteError) and isinstance(fault.__cause__, OSError):
            self._resp = (f"426 {fault.__cause__.strerror}; transfer aborted.", None)
            self.close()
        else:
            super().handle_error()  # type: ignore[misc]


class Quick(DTPHandler):
    """A data connection without a rate: fewer and larger system calls."""

    file_obj: Any
    socket: Any
    _offset: Any
    ac_out_buffer_size = 1 << 24  # sendfile takes what the socket has room for

    def __init__(self, sock: socket.socket, cmd_channel: Any) -> None:
        super().__init__(sock, cmd_channel)
        self._room: memoryview | None = None

    def handle_read(self) -> None:
        if self._data_wrapper is not None:  # lines are to be translated
            super().handle_read()
            return
        if self._room is None:
            self._room = memoryview(bytearray(1 << 18))
        try:
            count = self.socket.recv_into(self._room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.handle_close()
            return
        if not count:
            self.transfer_finished = True
            self.handle_close()
            return
        self.tot_bytes_received += count
        try:
            self.file_obj.write(self._room[:count])
        except OSError as fault:
            raise FileReadWriteError(fault) from fault

    handle_read_event = handle_read  # what the loop calls

    def handle_close(self) -> None:
        """For pyftpdlib a download is complete that its peer reset before the loop's first turn."""
        if not self._closed and self._filefd is not None and self._offset < os.fstat(self._filefd).st_size:
            self._resp = (f"426 Transfer aborted; {self.tot_bytes_sent} bytes transmitted.", None)
            self.close()
        else:
            super().handle_close()


def handler_for(rights: Rights) -> Any:
    """The class of a session's data connections."""
    base = ThrottledDTPHandler if rights.rate else Quick
    more = {"read_limit": rights.rate, "write_limit": rights.rate} if rights.rate else {}
    return type("Transfer", (Explained, base), {"timeout": rights.stall, **more})
