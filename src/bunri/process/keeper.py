"""Runs in: every zygote (base, role, template), single-threaded, with that zygote's rights. The loop they share.

A keeper has one control socket, watches its children and the monitor, and reaps. It ends when the socket or the
monitor does, and takes all its children with it: by pidfd for those it knows, by waiting for those it does not
(THREATS 22). The monitor is watched by pidfd, because a forked child of the monitor may hold the other end of the
socket open.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import NoReturn

from bunri.errors import InternalError
from bunri.kernel import sockets
from bunri.process import messages
from bunri.process.messages import Down, Ended, Message

_MOST_DESCRIPTORS = 32


class Keeper:
    """One zygote's loop. Subclasses answer requests in `handle`."""

    def __init__(self, control: socket.socket, monitor: int) -> None:
        self.control = control
        self.monitor = monitor  # pidfd
        self.children: dict[int, int] = {}  # pidfd -> number
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(monitor, select.POLLIN)

    def handle(self, request: Down, descriptors: list[int]) -> None:
        """Answer one request of the monitor. The descriptors belong to the callee."""
        raise InternalError(f"{type(self).__name__} has no answer to {type(request).__name__}")

    def run(self) -> NoReturn:
        """Serve until the control socket or the monitor ends."""
        control = self.control.fileno()
        while True:
            for number, _ in self._poll.poll():
                if number == control:
                    if not self._serve_one():
                        self.end()
                elif number == self.monitor:
                    self.end()
                else:
                    self._reap(number)

    def say(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send one message to the monitor. A monitor that is gone is noticed by the loop."""
        try:
            sockets.send(self.control, messages.encode(message), descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return

    def adopt(self, pidfd: int, number: int) -> None:
        """Watch a new child."""
        self.children[pidfd] = number
        self._poll.register(pidfd, select.POLLIN)

    def end(self) -> NoReturn:
        """Kill and reap every child, then end."""
        for pidfd in self.children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        os._exit(0)

    def _serve_one(self) -> bool:
        try:
            data, descriptors, flags = sockets.receive(self.control, messages.LARGEST, _MOST_DESCRIPTORS)
        except ConnectionResetError:
            return False  # the monitor is gone, with words of ours unread
        if not data or flags & sockets.CUT:
            return False
        self.handle(messages.decode_down(data), list(descriptors))
        return True

    def _reap(self, pidfd: int) -> None:
        number = self.children.pop(pidfd)
        self._poll.unregister(pidfd)
        # WNOWAIT first is not needed: nobody else in this process waits.
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        if info is None:
            return
        if info.si_code == os.CLD_EXITED:
            self.say(Ended(number, code=info.si_status))
        else:
            self.say(Ended(number, signal=info.si_status))
