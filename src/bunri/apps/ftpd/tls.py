"""Runs in: the tls worker, one a connection; its own uid, no network, an empty root with a scratch for loading the key.

It holds the private key and the sockets that the peer's ciphertext comes from. The processes that parse FTP get the
other ends, with plain text, so whoever takes one of them over never sees the key. Each connection has a context of its
own, and so its own ticket keys: a session that was resumed is one of this connection (what require_ssl_reuse asks).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

import bunri

CHUNK = 1 << 16
PEM = "/key/pem"


class Tls(bunri.Compartment):
    """Turns ciphertext into plain text and back, for one peer."""

    policy = bunri.Policy(files=[bunri.fs.scratch("/key", "256K")], memory="128M", cpu=None, open_files=32)

    @classmethod
    def warm_up(cls) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ssl.SSLContext.wrap_bio(context, ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)

    def __init__(self, certificate: bunri.File, key: bunri.File | None, reuse: bool, ciphers: str = "") -> None:
        self._reuse = reuse
        self._running: dict[asyncio.Task[None], _Line] = {}
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ciphers:  # of TLS 1.2; those of 1.3 are the library's
            self._context.set_ciphers(ciphers)
        descriptor = os.open(PEM, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for file in (certificate, key):
                if file is not None:
                    with file.as_file() as stream:
                        os.write(descriptor, stream.read(128 << 10) + b"\n")
            self._context.load_cert_chain(PEM)
        finally:
            os.close(descriptor)
            os.unlink(PEM)

    async def control(self, cipher: socket.socket, plain: socket.socket) -> str:
        """The control connection. Returns once the handshake is over: why it failed, or nothing."""
        return await self._carry(cipher, plain, reused=False)

    async def data(self, cipher: socket.socket, plain: socket.socket) -> str:
        """A data connection, likewise."""
        return await self._carry(cipher, plain, reused=self._reuse)

    async def _carry(self, cipher: socket.socket, plain: socket.socket, *, reused: bool) -> str:
        line = _Line(self._context, cipher, plain)
        try:
            await line.handshake()
        except (ssl.SSLError, OSError) as fault:
            line.close()
            return f"SSL connection failed: {getattr(fault, 'reason', None) or fault.strerror or 'closed'}"
        if reused and not line.is_resumed:
            line.close()
            return "SSL connection failed: session reuse required"
        task = asyncio.get_running_loop().create_task(line.carry())
        self._running[task] = line
        task.add_done_callback(self._running.pop)
        return ""

    async def sent(self) -> None:
        """Until every connection whose plain end was closed has been told so, behind all that was written to it."""
        for line in list(self._running.values()):
            await line.sent.wait()


class _Line:
    """One connection: ciphertext on one side, plain text on the other."""

    def __init__(self, context: ssl.SSLContext, cipher: socket.socket, plain: socket.socket) -> None:
        self._cipher = cipher
        self._plain = plain
        cipher.setblocking(False)
        plain.setblocking(False)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self.sent = asyncio.Event()

    @property
    def is_resumed(self) -> bool:
        return bool(self._tls.session_reused)

    def close(self) -> None:
        self._cipher.close()
        self._plain.close()

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()  # the alert
                raise
            else:
                await self._flush()
                return

    async def carry(self) -> None:
        """Both ways, until both have ended. What a peer breaks ends his own connection."""
        try:
            await asyncio.gather(self._up(), self._down())
        except (ssl.SSLError, OSError):
            return
        finally:
            self.close()
            self.sent.set()

    async def _up(self) -> None:
        while data := await self._read():
            await self._loop.sock_sendall(self._plain, data)
        self._plain.shutdown(socket.SHUT_WR)

    async def _read(self) -> bytes:
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""  # many clients close without saying so first (strict_ssl_read_eof=NO)

    async def _down(self) -> None:
        while data := await self._loop.sock_recv(self._plain, CHUNK):
            self._tls.write(data)
            await self._flush()
        with contextlib.suppress(ssl.SSLError):  # it says that it ends; the peer's own word comes later or never
            self._tls.unwrap()
        await self._flush()
        self._cipher.shutdown(socket.SHUT_WR)
        self.sent.set()

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self._cipher, CHUNK)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            if data := self._out.read():
                await self._loop.sock_sendall(self._cipher, data)
