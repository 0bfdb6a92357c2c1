"""Runs in: the monitor, which hands these objects out; the work itself is done by a broker's process, as the subject.

Each object stands for one thing: one directory, one address, one port. Holding it is the permission. Behind each is a
process of its own, started at the first use and ended with the object: it is the subject, has no capabilities, and can
reach nothing else (`confining`). What the worker sends is a name, a number, a mode; the descriptor that comes back was
opened by that process, not by the monitor.
"""

from __future__ import annotations

import os
import socket
import weakref
from abc import abstractmethod
from collections.abc import Callable
from typing import Final, cast

import msgspec

from bunri.broker import _hooks
from bunri.broker._hooks import Agent, Wish
from bunri.broker.messages import (
    Answer,
    Ask,
    AskAddresses,
    AskConnect,
    AskGroup,
    AskListen,
    AskNames,
    AskOpen,
    AskUser,
)
from bunri.errors import UsageError
from bunri.handles import MODES, File
from bunri.policy import Access, User, net
from bunri.service import Service, limit, raises
from bunri.wire import here_only

CONCURRENT: Final = 8  # calls of one object at a time; its broker answers one after the other


class Directory(Service):
    """One directory, as a service: files are opened beneath it and handed over, each as a `File`.

    `Directory.at(path, Access.WRITE)` makes one, in the monitor. A name leads nowhere else: no "..", no symbolic link, no
    mount, no device (openat2(2)); a file is written only if it has one name and the subject owns it.
    """

    @classmethod
    @here_only
    def at(cls, path: str | os.PathLike[str], access: Access = Access.READ, *, user: User | None = None) -> Directory:
        """The directory at `path`. The subject is `user`, or else the directory's owner; never with capabilities.

        OSError at the first use where there is no such directory. `Access.WRITE` reads, too.
        """
        where = os.path.abspath(str(path))
        if not isinstance(cast(object, access), Access):
            raise UsageError(f"Directory.at({where!r}, {access!r}): write Access.READ or Access.WRITE")
        return _DirectoryHere(Wish(tree=where, writable=access is Access.WRITE, user=user), f"Directory.at({where!r})")

    @limit(concurrent=CONCURRENT)
    @raises(FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError, OSError)
    @abstractmethod
    async def open(self, name: str, mode: str = "rb") -> File:
        """The file `name` beneath the directory. Modes: those of `File.open`."""
        ...

    @limit(concurrent=CONCURRENT)
    @raises(PermissionError, OSError)
    @abstractmethod
    async def list(self) -> list[str]:
        """The names in the directory itself, sorted; at most 10,000. Names that are no UTF-8 are left out."""
        ...


class Connector(Service):
    """Connections to one address. `Connector.to(host, port)` or `Connector.unix(path)` makes one, in the monitor."""

    @classmethod
    @here_only
    def to(cls, host: str, port: int, *, user: User | None = None) -> Connector:
        """TCP connections to this host and port. A name is looked up once, when the first connection is made."""
        grant = net.connect(host, port)
        return _ConnectorHere(Wish(connect=(grant.host, grant.port), user=user), repr(grant))

    @classmethod
    @here_only
    def unix(cls, path: str | os.PathLike[str], *, user: User | None = None) -> Connector:
        """Connections to the Unix socket at this path. Its owner sees the subject's uid (SO_PEERCRED)."""
        grant = net.unix(path)
        return _ConnectorHere(Wish(socket=grant.path, user=user), repr(grant))

    @limit(concurrent=CONCURRENT)
    @raises(ConnectionRefusedError, TimeoutError, FileNotFoundError, PermissionError, OSError)
    @abstractmethod
    async def connect(self) -> socket.socket:
        """A connection, made now."""
        ...


class Listener(Service):
    """Sockets that listen on one port. `Listener.on(port)` makes one, in the monitor."""

    @classmethod
    @here_only
    def on(cls, port: int, host: str = "127.0.0.1", *, user: User | None = None) -> Listener:
        """TCP connections to this port of ours, at the address `host` (a number; "0.0.0.0" and "::" are all of them)."""
        grant = net.listen(port)
        return _ListenerHere(Wish(listen=grant.port, user=user), repr(grant), host)

    @raises(PermissionError, OSError)
    @abstractmethod
    async def listen(self, backlog: int = 128) -> socket.socket:
        """A socket that listens there. EADDRINUSE while another one does."""
        ...


class UserEntry(msgspec.Struct, frozen=True):
    """A user, as the user database has him; no password."""

    name: str
    uid: int
    gid: int
    groups: list[int]
    description: str
    home: str
    shell: str


class GroupEntry(msgspec.Struct, frozen=True):
    """A group, as the group database has it."""

    name: str
    gid: int
    members: list[str]


class Names(Service):
    """Look-up of hosts, users and groups. `Names.here()` makes one, in the monitor.

    The libraries that ask name servers and directories run in the broker, as a uid of its own, and never in the monitor.
    """

    @classmethod
    @here_only
    def here(cls, *, user: User | None = None) -> Names:
        """The names that this host knows."""
        return _NamesHere(Wish(looks_up=True, user=user), "Names.here()")

    @limit(concurrent=CONCURRENT, size="4K")
    @raises(FileNotFoundError, OSError)
    @abstractmethod
    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host, in the order in which they should be tried. FileNotFoundError for an unknown one."""
        ...

    @limit(concurrent=CONCURRENT, size="4K")
    @raises(OSError)
    @abstractmethod
    async def user(self, who: str | int) -> UserEntry | None:
        """The user of this name or number; None where there is none."""
        ...

    @limit(concurrent=CONCURRENT, size="4K")
    @raises(OSError)
    @abstractmethod
    async def group(self, which: str | int) -> GroupEntry | None:
        """The group of this name or number; None where there is none."""
        ...


class _Brokered:
    """What the implementations share: a broker, started at the first use, let go with the object."""

    def __init__(self, wish: Wish, spelling: str) -> None:
        self._wish = wish
        self._spelling = spelling
        self._agent: Agent | None = None

    def __repr__(self) -> str:
        return f"bunri.broker.{self._spelling}"

    async def _ask(self, make: Callable[[int], Ask]) -> tuple[Answer, int]:
        if self._agent is None:
            self._agent = _hooks.start(self._wish)
            weakref.finalize(self, self._agent.drop).atexit = False
        return await self._agent.ask(make)


class _DirectoryHere(_Brokered, Directory):
    async def open(self, name: str, mode: str = "rb") -> File:
        flags = MODES.get(mode)
        if flags is None:
            raise OSError(22, f"{mode!r} is no mode; write one of r, w, a, x, r+")
        _, fd = await self._ask(lambda number: AskOpen(number, name, flags, 0o600))
        return File(fd)

    async def list(self) -> list[str]:
        answer, _ = await self._ask(AskNames)
        return [*answer.texts]


class _ConnectorHere(_Brokered, Connector):
    async def connect(self) -> socket.socket:
        _, fd = await self._ask(AskConnect)
        return socket.socket(fileno=fd)


class _ListenerHere(_Brokered, Listener):
    def __init__(self, wish: Wish, spelling: str, host: str) -> None:
        super().__init__(wish, spelling)
        self._host = host

    async def listen(self, backlog: int = 128) -> socket.socket:
        _, fd = await self._ask(lambda number: AskListen(number, self._host, max(0, min(backlog, 4096))))
        return socket.socket(fileno=fd)


class _NamesHere(_Brokered, Names):
    async def addresses(self, host: str) -> list[str]:
        answer, _ = await self._ask(lambda number: AskAddresses(number, host))
        return [*answer.texts]

    async def user(self, who: str | int) -> UserEntry | None:
        try:
            answer, _ = await self._ask(
                lambda number: AskUser(number, name=who) if isinstance(who, str) else AskUser(number, uid=who)
            )
        except FileNotFoundError:
            return None
        uid, gid, *groups = answer.numbers
        name, description, home, shell = answer.texts
        return UserEntry(name, uid, gid, groups, description, home, shell)

    async def group(self, which: str | int) -> GroupEntry | None:
        try:
            answer, _ = await self._ask(
                lambda number: AskGroup(number, name=which) if isinstance(which, str) else AskGroup(number, gid=which)
            )
        except FileNotFoundError:
            return None
        name, *members = answer.texts
        return GroupEntry(name, answer.numbers[0], members)


__all__ = ["Connector", "Directory", "GroupEntry", "Listener", "Names", "UserEntry"]
