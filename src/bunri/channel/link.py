"""Runs in: monitor and worker. Packets, with and without descriptors, over one SEQPACKET socket.

The worker's side reads and writes with read(2) and write(2), which its filter need not look into; only where a
signature carries descriptors it uses recvmsg(2) and sendmsg(2).
The monitor's side never waits for a worker in a send. It asks for descriptors only where the contract lets some come
up, and then closes everything that came when a packet is not what it should be (THREATS 18).
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from bunri.errors import ProtocolError
from bunri.wire.frames import LARGEST_PACKET, MOST_DESCRIPTORS

_DESCRIPTOR_SPACE = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
# As numbers: `|` of two of socket's flags makes an object of a class, for every packet.
_NOW = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_IF_THERE = int(socket.MSG_DONTWAIT)
_CLOSED_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT, _WITHOUT_SOME = int(socket.MSG_TRUNC), int(socket.MSG_CTRUNC)
_PATIENCE, _UNTIL_SOME_ARRIVE = 0.25, 0.001  # seconds
_TIMEVAL = struct.pack("@ll", 0, int(_PATIENCE * 1e6))
_ROOM = LARGEST_PACKET + 1  # one more than allowed, so that a longer packet shows


class Link:
    """One end of the socket."""

    def __init__(self, sock: socket.socket, *, takes: bool, restless: bool = False) -> None:
        """`takes`: descriptors may arrive. `restless`: every wait ends now and then, and begins anew.

        Python runs signal handlers between its own instructions. A Ctrl-C that comes after the last of these and before
        read(2) sleeps would not be noticed until a packet comes; so the monitor does not sleep for long (SO_RCVTIMEO,
        socket(7), which costs a call nothing).
        """
        if restless:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
        self.sock = sock
        self.number = sock.fileno()
        self._takes = takes

    def receive(self) -> tuple[bytes, list[int]]:
        """Wait for one packet. Empty bytes: the end, or a packet of no bytes, which is the same to us (THREATS 21)."""
        while True:
            try:
                if not self._takes:
                    return os.read(self.number, _ROOM), []
                return self._receive_with_descriptors(0)
            except BlockingIOError:
                continue  # of a restless one; whatever signal there was has been handled
            except ConnectionResetError:
                continue  # it ended with packets of ours unread. Told once, and before what it said last

    def receive_now(self) -> tuple[bytes, list[int]] | None:
        """One packet if there is one; None otherwise."""
        try:
            if not self._takes:
                return self.sock.recv(_ROOM, _IF_THERE), []
            return self._receive_with_descriptors(_IF_THERE)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return self.receive_now()  # as in `receive`

    def has_unread(self) -> bool:
        """Whether a packet waits. For the monitor's side."""
        try:
            return bool(self.sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        except ConnectionResetError:
            return self.has_unread()  # as in `receive_now`
        except OSError:
            return False  # nothing there, or closed already

    def send(self, packet: bytes | bytearray, descriptors: Sequence[int] = ()) -> None:
        """Send, waiting for room. For the worker's side."""
        if not descriptors:
            os.write(self.number, packet)
            return
        while True:
            try:
                socket.send_fds(self.sock, [packet], list(descriptors), socket.MSG_NOSIGNAL)
            except OSError as fault:
                if fault.errno != errno.ETOOMANYREFS:
                    raise
                # As many are under way as one user may have open (unix(7)): some are about to arrive.
                time.sleep(_UNTIL_SOME_ARRIVE)
            else:
                return

    def send_now(self, packet: bytes | bytearray, descriptors: Sequence[int] = ()) -> bool:
        """Send if there is room; False if there is none. For the monitor's side."""
        try:
            if descriptors:
                socket.send_fds(self.sock, [packet], list(descriptors), _NOW)
            else:
                self.sock.send(packet, _NOW)
        except BlockingIOError:
            return False
        return True

    def wait(self, *, for_room: bool, seconds: float | None = None) -> None:
        """Wait until a packet can be read, or (with `for_room`) sent; for a moment at the most, as a restless one does."""
        poll = select.poll()
        poll.register(self.number, select.POLLIN | (select.POLLOUT if for_room else 0))
        poll.poll(1000 * (_PATIENCE if seconds is None else min(max(0.0, seconds), _PATIENCE)))

    def hang_up(self) -> None:
        """Let both ends know that it is over: a thread that waits here, and a worker that its dead template left
        behind, unreported, before it could ask for its own death."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.sock.close()

    def _receive_with_descriptors(self, flags: int) -> tuple[bytes, list[int]]:
        data, control, seen, _ = self.sock.recvmsg(_ROOM, _DESCRIPTOR_SPACE, flags | _CLOSED_ON_EXEC)
        numbers = array.array("i")
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
        descriptors = numbers.tolist()
        if seen & (_CUT | _WITHOUT_SOME):
            close_all(descriptors)
            if seen & _WITHOUT_SOME and len(descriptors) < MOST_DESCRIPTORS:
                raise ProtocolError(
                    "descriptors came, and there was no room for them. Close handles, or raise open_files (RLIMIT_NOFILE)"
                )
            raise ProtocolError("a packet, or its descriptors, was longer than the protocol allows")
        return data, descriptors


def close_all(descriptors: Sequence[int]) -> None:
    """Close each."""
    for number in descriptors:
        os.close(number)
