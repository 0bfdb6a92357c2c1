"""Runs in: the monitor. Its handles of zygotes: sockets on which it asks and hears, and what stands behind them.

The monitor makes both ends of every socket, so it can ask a role for a template and the template for a worker before
either exists. What cannot be made says why on its own socket before that ends; the cause is then told to whatever
waited behind it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from bunri.broker.messages import Word
from bunri.errors import BunriError, HostError, InternalError
from bunri.kernel import sockets
from bunri.process import messages
from bunri.process.messages import Failed, Message
from bunri.process.refusals import start_error

if TYPE_CHECKING:
    from bunri.process.program import Program

_MOST_DESCRIPTORS = 4
_AT_ONCE = 16  # messages of one, before the others have their turn
_IF_THERE = int(socket.MSG_DONTWAIT)
_QUEUED = 1024  # more than a socket's buffer holds of the smallest


class Zygote:
    """One zygote's socket. Its messages are heard on the supervisor's thread."""

    def __init__(self, program: Program, what: str, ends: tuple[socket.socket, socket.socket] | None = None) -> None:
        """`ends`: of one that has its end already."""
        self.program = program
        self.what = what
        self.failure: BunriError | None = None
        self.ended = False
        self._sending = threading.Lock()
        self._hearing = threading.RLock()  # and then _sending, for who needs both
        self._control, self._theirs = ends or socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def hand_over(self) -> int:
        """The zygote's end, to be sent or inherited; close it with `handed_over`."""
        return self._theirs.fileno()

    def handed_over(self) -> None:
        """The zygote has its end: hear it from now on."""
        self._theirs.close()
        with self.program.lock:  # it may have ended meanwhile, and its parent said so
            if not self.ended:
                self.program.supervisor.add(self._control.fileno(), self.hear_some)

    def say(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Ask for something. A zygote that is gone is noticed where its socket is heard. HostError where descriptors go along, and
        this user has too many under way."""
        data = messages.encode(message)
        if len(data) > messages.LARGEST:
            raise InternalError(
                f"{len(data)} bytes for {self.what}: a plan, a path or an environment is too large for one message"
            )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError), self._sending:
            if not self.ended:
                self._send(data, list(descriptors))

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        try:
            sockets.send(self._control, data, descriptors)
        except OSError as fault:
            if fault.errno != errno.ETOOMANYREFS:
                raise
            raise HostError(
                f"{self.what} could not be asked: more descriptors of this user were sent and not yet received than a process "
                f"of his may have",
                layer="descriptors",
                errno=fault.errno,
                remedy="Receive what was sent, or raise RLIMIT_NOFILE (unix(7), ETOOMANYREFS)",
            ) from fault

    def hear_some(self) -> None:
        """Take a few messages: one that sends without end has no more than its turn."""
        self.hear(_AT_ONCE)

    def hear(self, most: int = _QUEUED) -> None:
        """Take the messages that are there. On the supervisor's thread, and of whoever must know what was told so far."""
        with self._hearing:
            self._hear(most)

    def _hear(self, most: int) -> None:
        for _ in range(most):
            if self.ended:
                return
            try:
                received = sockets.receive(self._control, messages.LARGEST, _MOST_DESCRIPTORS, _IF_THERE)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it ended with requests of ours unread: told once, and its last words are still to be heard
            if not received.data:
                self.end()
                return
            self._take(received.data, list(received.fds))

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        try:
            message = messages.decode_up(data)
        except msgspec.MsgspecError:
            sockets.close_all(descriptors)
            self.fail(InternalError(f"{self.what} sent a message that is none; it was ended"))
            self.end()
            return
        if isinstance(message, Failed) and not message.worker:
            self.fail(start_error(message))
            return
        if not self.on_message(message, descriptors):
            sockets.close_all(descriptors)

    def on_message(self, message: Message | Word, descriptors: list[int]) -> bool:
        """Handle one message; False if the descriptors are to be closed."""
        return False

    def fail(self, error: BunriError) -> None:
        """Remember why nothing will come of it."""
        if self.failure is None:
            self.failure = error

    def end(self) -> None:
        """Its socket has ended, so it has, or will: forget it."""
        with self.program.lock:
            if self.ended:
                return
            self.ended = True
            self.program.supervisor.remove(self._control.fileno())
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # who still sends is told so
        with self._hearing, self._sending:  # closed under him, the number could be another socket's when he uses it
            self._control.close()
        self.on_end()

    def on_end(self) -> None:
        """Tell whatever stood behind it."""

    def drop(self) -> None:
        """Let it go: the end of its socket ends the zygote and its children."""
        self.program.supervisor.run_soon(self.end)

    def close_sockets(self) -> None:
        """The descriptors only: in a forked child of the monitor, or where nothing was asked for."""
        for sock in (self._control, self._theirs):
            sock.close()


def died(what: str) -> BunriError:
    """The error for a zygote that ended without a word."""
    return HostError(
        f"{what} died",
        layer="zygote",
        remedy="Start again; if it dies again, look at what the compartment's module imports",
    )
