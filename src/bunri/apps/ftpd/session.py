"""Runs in: the session worker; the user's id, his folder as its root, no network. Talks to a peer who has logged in.

It holds the control socket, a `Data` that gives sockets to and for that peer only, and a `Log`; and where the
configuration asks for that, `Uploads` and `Owners`.
"""

from __future__ import annotations

import socket

import bunri
from bunri import seccomp
from bunri.apps.ftpd.engine import Engine, Services, drive, rehearse_session
from bunri.apps.ftpd.messages import Data, Handover, Log, Owners, Rights, Uploads


class Session(bunri.Compartment):
    """A session, from login to its end."""

    policy = bunri.Policy(
        user=bunri.AT_START,
        files=bunri.AT_START,
        file_size=bunri.AT_START,
        memory="256M",
        cpu=None,
        open_files=32,
        syscalls=(
            "sendfile",  # a file goes out without a copy in this process
            *("epoll_create1", "epoll_ctl", "epoll_wait"),  # pyftpdlib's loop
            # Sockets that nobody but the peer reaches. All others are connected, and do not listen.
            seccomp.allow("listen", "accept4", reason="the peer's data connections"),
        ),
    )

    @classmethod
    def warm_up(cls) -> None:
        Engine.prepare()
        rehearse_session()

    def __init__(
        self,
        control: socket.socket,
        data: Data,
        log: Log,
        rights: Rights,
        next_: Handover,
        uploads: Uploads | None = None,
        owners: Owners | None = None,
    ) -> None:
        self._control = control
        self._services = Services(data, log, uploads, owners)
        self._rights = rights
        self._next = next_

    def serve(self) -> None:
        """Until the peer leaves."""
        drive(self._control, self._services, self._rights, self._next)
