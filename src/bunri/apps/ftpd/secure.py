"""Runs in: the monitor. Starts a connection's tls worker and hands it what it carries. Never reads the key itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import bunri
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.messages import NoData
from bunri.apps.ftpd.tls import Tls

HANDSHAKE = 30.0  # seconds
LINGER = 30.0  # seconds
_Carry = Callable[[socket.socket, socket.socket], Awaitable[str]]


class Secure:
    """The TLS of one connection."""

    def __init__(self, worker: Tls) -> None:
        self._worker = worker

    @classmethod
    def start(cls, config: Config) -> Secure:
        """A tls worker with the configured certificate and key."""
        certificate = bunri.File.open(config.rsa_cert_file, "rb")
        key = bunri.File.open(config.rsa_private_key_file, "rb") if config.rsa_private_key_file else None
        try:
            return cls(Tls.start(certificate, key, config.require_ssl_reuse, config.ssl_ciphers))
        finally:
            certificate.close()
            if key is not None:
                key.close()

    async def finish(self) -> None:
        """Until the peer has been sent what others wrote before their ends were closed. One who does not read is not
        waited for any longer."""
        with contextlib.suppress(TimeoutError, bunri.PeerError):
            async with asyncio.timeout(LINGER):
                await bunri.call(self._worker.sent)

    def close(self) -> None:
        self._worker.close()

    async def control(self, cipher: socket.socket) -> socket.socket:
        """The plain end of the control connection. NoData if there was no handshake."""
        return await self._carried(cipher, self._worker.control)

    async def data(self, cipher: socket.socket) -> socket.socket:
        """The plain end of a data connection, whose ciphertext end is closed here."""
        with cipher:
            return await self._carried(cipher, self._worker.data)

    async def _carried(self, cipher: socket.socket, method: _Carry) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                async with asyncio.timeout(HANDSHAKE):
                    fault = await bunri.call(method, cipher, theirs)
        except (TimeoutError, bunri.PeerError):
            ours.close()
            raise NoData("SSL connection failed.", 522) from None
        except BaseException:
            ours.close()
            raise
        if fault:
            ours.close()
            raise NoData(bunri.printable(fault, limit=200), 522)
        return ours
