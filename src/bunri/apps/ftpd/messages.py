"""Runs in: every process of the server; interfaces and values only. All that crosses between its processes.

No message to the monitor carries an address, an identity or a path to act on: those are the monitor's own.
"""

from __future__ import annotations

import socket
from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum

import msgspec

import bunri


class Ask(Enum):
    """What a user name is answered with."""

    PASSWORD = "password"
    DENIED = "denied"
    NEEDS_TLS = "needs tls"
    NO_TLS = "no tls"


class Kind(Enum):
    """What a login is."""

    ANONYMOUS = "anonymous"
    LOCAL = "local"
    GUEST = "guest"


class Greeting(msgspec.Struct, frozen=True):
    """What the pre-login worker says and offers."""

    banner: str
    attempts: int  # passwords; the monitor counts for itself
    tls: bool = False  # AUTH TLS is offered
    secured: bool = False  # TLS is on already (implicit_ssl)
    idle: int = 300  # seconds to the next command; the worker has fewer in all
    any_name: bool = False  # no name is refused before its password is looked at: none has to be asked about


class Handover(msgspec.Struct, frozen=True):
    """What the session goes on with."""

    sent_ahead: bytes
    protected: bool = False  # PROT P was said


class Rights(msgspec.Struct, frozen=True):
    """What a session does for its peer. Its user, its root and its filter decide besides."""

    kind: Kind
    user: str
    start: str  # the directory it begins in
    commands: frozenset[str]  # those it understands
    writes: bool = False
    overwrites: bool = False
    world_readable_only: bool = False
    umask: int = 0o077
    file_mode: int = 0o666
    hide_ids: bool = False
    local_time: bool = False
    message_file: str = ""  # shown to whoever enters its folder
    recursive: bool = False
    ascii_down: bool = False
    ascii_up: bool = False
    deny: str = ""
    hide: str = ""
    download: str = ""
    upload: str = ""
    rate: int = 0
    idle: int = 300
    stall: int = 300
    patience: int = 60  # seconds in which the peer makes a data connection
    pasv_address: str = ""
    log_lines: bool = False
    here: tuple[str, int] = ("", 0)  # the control connection's addresses, to show: with TLS its socket has none
    peer: tuple[str, int] = ("", 0)
    tls: bool = False  # PROT P can be had
    only_tls: bool = False  # and nothing else


MOST_LINES = 64  # of the log, in one message
MOST_SOCKETS = 16


class Action(Enum):
    """What is logged, in the words of vsftpd's log."""

    DOWNLOAD = "DOWNLOAD"
    UPLOAD = "UPLOAD"
    MKDIR = "MKDIR"
    RMDIR = "RMDIR"
    DELETE = "DELETE"
    RENAME = "RENAME"
    CHMOD = "CHMOD"
    MFMT = "MFMT"


class Transfer(msgspec.Struct, frozen=True):
    """What a session says that it did, or failed to do. For the log."""

    action: Action
    path: str
    complete: bool
    size: int = 0
    seconds: float = 0.0
    ascii: bool = False


class Speech(Enum):
    """Who said a line of the protocol."""

    COMMAND = "command"
    RESPONSE = "response"


class Said(msgspec.Struct, frozen=True):
    """A line of the protocol (log_ftp_protocol)."""

    speech: Speech
    text: str


@dataclass
class NoData(Exception):
    """There is no data connection."""

    reason: str
    code: int = 425

    def __str__(self) -> str:
        return f"{self.code} {self.reason}"


class Login(bunri.Service):
    """What a peer that has not logged in may ask for."""

    @abstractmethod
    @bunri.limit(size="1K")
    async def user(self, name: str) -> Ask:
        """Whether a password of this user would be looked at."""

    @abstractmethod
    @bunri.limit(size="1K")
    async def password(self, user: str, password: bunri.Secret) -> bool:
        """Whether this password logs this user in. A no comes late. One too many ends the worker."""

    @abstractmethod
    @bunri.raises(NoData)
    async def tls(self) -> socket.socket:
        """The plain end of the control connection, once the handshake is over."""


class Data(bunri.Service):
    """Data connections, to and from the peer of the control connection and nobody else."""

    @abstractmethod
    @bunri.raises(NoData)
    async def passive(self, count: int) -> list[socket.socket]:
        """So many sockets (MOST_SOCKETS at the most) that nobody but the peer reaches, each bound to a port: to listen on, and
        to accept from. Or none: then it is always `listen` and `accept`."""

    @abstractmethod
    @bunri.raises(NoData)
    async def listen(self) -> int:
        """Wait for the peer on a free port; the port. What was waited for before is forgotten."""

    @abstractmethod
    @bunri.raises(NoData)
    async def accept(self, protected: bool) -> socket.socket:
        """The peer's connection to the port; protected: its plain end, with TLS behind it."""

    @abstractmethod
    @bunri.raises(NoData)
    async def connect(self, port: int, protected: bool) -> socket.socket:
        """A connection to a port of the peer, likewise."""


class Uploads(bunri.Service):
    """New files that are not the session's user's (chown_uploads)."""

    @abstractmethod
    @bunri.limit(size="8K")
    @bunri.raises(FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError, OSError)
    async def create(self, name: str) -> bunri.File:
        """A new file beneath the session's root, open for writing, which belongs to chown_username already."""


class Owners(bunri.Service):
    """Who owns what is listed (text_userdb_names)."""

    @abstractmethod
    @bunri.limit(size="1K")
    async def user(self, uid: int) -> str:
        """The user's name, or the number."""

    @abstractmethod
    @bunri.limit(size="1K")
    async def group(self, gid: int) -> str:
        """The group's name, or the number."""


class Log(bunri.Service):
    """Lines of the log. Who and from where stands in them already."""

    @abstractmethod
    @bunri.limit(size="32K")
    async def lines(self, what: list[Transfer | Said]) -> None:
        """Things were done to files, or failed; or were said. MOST_LINES at the most. Whoever writes very much waits until they
        are written."""
