"""The compartments of the tests of explicit brokers: they use what they were handed, and nothing else."""

from __future__ import annotations

import socket

import msgspec

import bunri
from bunri.broker import Connector, GroupEntry, Listener, Names, UserEntry
from bunri.wire import contract_of


def switch_checks_off(service: type[bunri.Service]) -> None:
    """In the worker: whatever is called goes out as it is, unlooked at. The other side has to hold alone."""
    for method in contract_of(service).methods:
        method.bind = lambda args, kwargs: (*args, *kwargs.values())  # type: ignore[method-assign]
        method.encode_arguments = lambda args, sink: (msgspec.msgpack.encode(args), ())


class Uses(bunri.Compartment):
    """Was handed a directory."""

    def __init__(self, folder: bunri.Directory) -> None:
        self._folder = folder

    def lie(self) -> None:
        switch_checks_off(bunri.Directory)

    async def read(self, name: str) -> bytes:
        with (await self._folder.open(name, "rb")).as_file() as file:
            return file.read()

    async def write(self, name: str, data: bytes, mode: str = "wb") -> int:
        with (await self._folder.open(name, mode)).as_file() as file:
            return file.write(data)

    async def refused(self, name: str, mode: str = "rb") -> str:
        """The exception's name, or "opened"."""
        try:
            (await self._folder.open(name, mode)).close()
        except OSError as fault:
            return type(fault).__name__
        return "opened"

    async def refused_raw(self, name: bytes) -> str:
        return await self.refused(name.decode())

    async def list(self) -> list[str]:
        return await self._folder.list()


class Reaches(bunri.Compartment):
    """Was handed a way to one address."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def talk(self, data: bytes) -> bytes:
        with await self._connector.connect() as peer:
            peer.sendall(data)
            return peer.recv(100)


class Listens(bunri.Compartment):
    """Was handed a port."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    async def listen(self) -> socket.socket:
        return await self._listener.listen()


class LooksUp(bunri.Compartment):
    """Was handed the names."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def addresses(self, host: str) -> list[str]:
        return await self._names.addresses(host)

    async def user(self, who: str | int) -> UserEntry | None:
        return await self._names.user(who)

    async def group(self, which: str | int) -> GroupEntry | None:
        return await self._names.group(which)
