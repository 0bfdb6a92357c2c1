"""Runs in: the monitor. Data connections: sockets that the monitor makes, and sessions get as descriptors.

Both ends' addresses are those of the control connection, taken from the kernel when it was accepted. No message has an
address in it, so a session cannot ask for anybody else's (FTP bounce, RFC 2577), whoever runs it.
"""

from __future__ import annotations

import asyncio
import random
import socket

import bunri
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.messages import Data, NoData
from bunri.apps.ftpd.pace import Pace
from bunri.apps.ftpd.secure import Secure

LOWEST_PORT = 1024  # below it a port of the peer may be a service of somebody else (RFC 2577, section 3)
EVERY, AHEAD = 0.001, 0.2  # a session may ask once a millisecond, and has this many seconds' worth to begin with


class DataHere(Data):
    """The data connections of one session. One listener at a time."""

    def __init__(self, control: socket.socket, config: Config, secure: Secure | None, only_tls: bool) -> None:
        self._family = control.family
        self._here = control.getsockname()[0]
        self._peer = control.getpeername()[0]
        self._config = config
        self._secure = secure
        self._only_tls = only_tls
        self._listener: socket.socket | None = None
        self._pace = Pace(AHEAD)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def listen(self) -> int:
        if not self._config.pasv_enable:
            raise NoData("Passive mode is off here.")
        await self._not_too_often()
        self.close()
        self._listener = self._bound_for_peer()
        self._listener.listen(1)
        port: int = self._listener.getsockname()[1]
        return port

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
                    if address[0] == self._peer:
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
        connection = self._socket(self._config.ftp_data_port if self._config.connect_from_port_20 else 0)
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await asyncio.get_running_loop().sock_connect(connection, (self._peer, port))
        except OSError:  # TimeoutError is one
            connection.close()
            raise NoData("Failed to establish connection.") from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _bound_for_peer(self) -> socket.socket:
        low, high = self._config.pasv_min_port, self._config.pasv_max_port
        if not (low or high):
            return self._socket(0)
        ports = range(max(low, LOWEST_PORT), (high or 65535) + 1)
        for port in random.sample(ports, len(ports)) if len(ports) < 2000 else random.sample(ports, 2000):
            try:
                return self._socket(port)
            except NoData:
                continue  # taken
        raise NoData("No port is free.")

    def _socket(self, port: int) -> socket.socket:
        made = None
        try:
            made = socket.socket(self._family, socket.SOCK_STREAM)
            made.setblocking(False)
            if port:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((self._here, port))
        except OSError as fault:
            if made is not None:
                made.close()
            raise NoData(f"No data connection: {fault.strerror}.") from None
        return made

    async def _not_too_often(self) -> None:
        seconds = self._pace.left(EVERY)
        if seconds > 0:
            await asyncio.sleep(seconds)
