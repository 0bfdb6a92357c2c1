"""Runs in: the monitor. Data connections: sockets that the monitor makes, and sessions get as descriptors.

Both ends' addresses are those of the control connection, taken from the kernel when it was accepted. No message has an
address in it, so a session cannot ask for anybody else's (FTP bounce, RFC 2577), whoever runs it. Where it accepts its
peer's connections itself, it does so on a socket that was made here, and that the kernel lets nobody else reach.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import bunri
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.messages import MOST_SOCKETS, Data, NoData
from bunri.apps.ftpd.pace import Pace
from bunri.apps.ftpd.peerfilter import PeerFilter, is_possible
from bunri.apps.ftpd.secure import Secure

LOWEST_PORT = 1024  # below it a port of the peer may be a service of somebody else (RFC 2577, section 3)
GUESSES, TRIES = 16, 2000  # ports that are tried at random, and then in turn
EVERY, AHEAD = 0.0005, 0.2  # seconds that each socket costs a session, and those that it has to begin with


class DataHere(Data):
    """The data connections of one session. One listener at a time."""

    def __init__(self, control: socket.socket, config: Config, secure: Secure | None, only_tls: bool) -> None:
        self._family = control.family
        self._here = control.getsockname()
        self._peer = control.getpeername()
        self._config = config
        self._secure = secure
        self._only_tls = only_tls
        self._listener: socket.socket | None = None
        self._pace = Pace(AHEAD)

    @cached_property
    def _filter(self) -> PeerFilter:
        return PeerFilter(self._peer)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def passive(self, count: int) -> list[socket.socket]:
        if not 1 <= count <= MOST_SOCKETS:
            raise bunri.Misbehaved(f"{count} sockets at one time")
        if self._secure is not None or self._only_tls or not is_possible():
            return []
        self._refuse_passive()
        await self._not_too_often(count)
        made: list[socket.socket] = []
        try:
            while len(made) < count:
                made.append(self._made(self._filter.put_on))
        except NoData:
            if not made:
                raise
        return made

    async def listen(self) -> int:
        self._refuse_passive()
        await self._not_too_often()
        self.close()
        self._listener = self._made(lambda made: made.listen(1))
        port: int = self._listener.getsockname()[1]
        return port

    def _refuse_passive(self) -> None:
        if not self._config.pasv_enable:
            raise NoData("Passive mode is off here.")

    async def accept(self, protected: bool) -> socket.socket:
        self._refuse_wrong(protected)
        return await self._protected(await self._accepted()) if protected else await self._accepted()

    async def _accepted(self) -> socket.socket:
        if self._listener is None:
            raise NoData("Use PORT or PASV first.")
        try:
            async with asyncio.timeout(self._config.accept_timeout):
                while True:
                    connection, address = await asyncio.get_running_loop().sock_accept(self._listener)
                    if address[0] == self._peer[0]:
                        return connection
                    connection.close()  # somebody else was quicker than the peer: he gets nothing
        except TimeoutError:
            raise NoData("Failed to establish connection.") from None
        finally:
            self.close()

    async def connect(self, port: int, protected: bool) -> socket.socket:
        self._refuse_wrong(protected)
        return await self._protected(await self._connected(port)) if protected else await self._connected(port)

    def _refuse_wrong(self, protected: bool) -> None:
        if protected and self._secure is None:
            raise NoData("There is no TLS here.", 522)
        if self._only_tls and not protected:
            raise NoData("Data connections must be encrypted.", 522)

    async def _protected(self, connection: socket.socket) -> socket.socket:
        if self._secure is None:
            raise bunri.Misbehaved("TLS that there is not")
        return await self._secure.data(connection)

    async def _connected(self, port: int) -> socket.socket:
        if not self._config.port_enable or not LOWEST_PORT <= port <= 65535:
            raise NoData("Illegal PORT command.")
        await self._not_too_often()
        self.close()
        try:
            connection = self._socket(self._config.ftp_data_port if self._config.connect_from_port_20 else 0)
        except OSError as fault:
            raise _none(fault) from None
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await asyncio.get_running_loop().sock_connect(connection, _at(self._peer, port))
        except OSError:  # TimeoutError is one
            connection.close()
            raise NoData("Failed to establish connection.") from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _made(self, prepare: Callable[[socket.socket], None]) -> socket.socket:
        """A socket bound to a free port."""
        for port in _ports(self._config.pasv_min_port, self._config.pasv_max_port):
            try:
                return self._socket(port, prepare)
            except OSError as fault:
                if fault.errno != errno.EADDRINUSE:
                    raise _none(fault) from None
        raise NoData("No port is free.")

    def _socket(self, port: int, prepare: Callable[[socket.socket], None] | None = None) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            if port:  # may have connections from before, that wait for their end (TIME_WAIT)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(_at(self._here, port))
            if prepare is not None:
                prepare(made)
        except BaseException:
            made.close()
            raise
        return made

    async def _not_too_often(self, count: int = 1) -> None:
        seconds = self._pace.left(EVERY * count)
        if seconds > 0:
            await asyncio.sleep(seconds)


def _at(name: tuple[Any, ...], port: int) -> tuple[Any, ...]:
    """Another port of an address; one that counts on one link only keeps that."""
    return name[0], port, *name[2:]


def _none(fault: OSError) -> NoData:
    return NoData(f"No data connection: {fault.strerror}.")


def _ports(low: int, high: int) -> Iterator[int]:
    """Those to try, by chance: who knows one port does not know the next."""
    ports = range(max(low, LOWEST_PORT), (high or 65535) + 1) if low or high else _usual()
    for _ in range(GUESSES):
        yield secrets.choice(ports)
    first = secrets.randbelow(len(ports))
    yield from islice(chain(ports[first:], ports[:first]), TRIES)


@cache
def _usual() -> range:
    """Of the ports from which the kernel chooses, those that it does not take first for connect(2). A port that was used
    cannot be had by anybody else for a minute: a peer with many files would leave this machine none to connect from."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        low, high = 32768, 60999
    return range(max(low, LOWEST_PORT) + 1, high + 1, 2)
