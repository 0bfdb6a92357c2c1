"""Runs in: the session worker, after confinement. Where the peer's data connections come in (PASV, EPSV).

The monitor makes sockets, each bound to a port by chance, and lets only the peer reach them; it hands over some at a time,
more to a peer who fetches many files. The session listens on one when the peer says PASV, and accepts from it: once.
Where there are no such sockets the monitor listens and accepts: with TLS, for the connection is the tls worker's then; and
where the kernel does not let it put filters on sockets.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable

import bunri
from bunri.apps.ftpd.messages import MOST_SOCKETS, Data, NoData


class Passive:
    """One way or the other."""

    def __init__(self, data: Data, patience: int, before_long: Callable[[], None]) -> None:
        """`patience`: seconds in which the peer has to come. `before_long`: called before these are waited."""
        self._data = data
        self._patience = patience
        self._before_long = before_long
        self._is_handed = True  # sockets are, as far as is known
        self._unused: list[socket.socket] = []
        self._next = 1  # how many are asked for
        self._listener: socket.socket | None = None

    def listen(self) -> int:
        """Wait for the peer on a port, and on no other any more; the port. NoData where there is none."""
        self.forget()
        while self._is_handed:
            if not self._unused:
                self._unused = bunri.call(self._data.passive, self._next).result()
                self._next = min(2 * self._next, MOST_SOCKETS)
                self._is_handed = bool(self._unused)
            elif port := self._listened(self._unused.pop()):
                return port
        return bunri.call(self._data.listen).result()

    def _listened(self, found: socket.socket) -> int | None:
        """The port; None where another session listens there by now."""
        try:
            found.listen(1)
        except OSError as fault:
            found.close()
            if fault.errno != errno.EADDRINUSE:
                raise NoData(f"No data connection: {fault.strerror}.") from None
            return None
        self._listener = found
        port: int = found.getsockname()[1]
        return port

    def come(self) -> socket.socket | None:
        """The peer's connection, if he has made it already; of one that the monitor waits for, only the monitor knows."""
        if self._listener is None:
            return None
        try:
            found = self._listener.accept()[0]
        except OSError:  # not yet, or he is gone already
            return None
        self.forget()
        found.setblocking(False)
        return found

    def accept(self, protected: bool) -> socket.socket:
        """The peer's connection; NoData where none came. Either way nothing is waited for any more."""
        found = self.come()
        if found is not None:
            return found
        asked = None if self._is_handed else bunri.call(self._data.accept, protected)
        self._before_long()
        if asked is not None:
            given = asked.result()
            given.setblocking(False)
            return given
        if self._listener is not None:
            select.select([self._listener], (), (), self._patience)
        found = self.come()
        self.forget()
        if found is None:
            raise NoData("Failed to establish connection.")
        return found

    def forget(self) -> None:
        """The peer is not to come. The monitor forgets when it is asked for the next."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
