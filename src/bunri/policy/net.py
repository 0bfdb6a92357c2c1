"""Runs in: nowhere; values only. Grants of network: brokered, but for the one with danger in its name.

net.connect("db.example.org", 5432)   socket.create_connection works for that host and port
net.listen(8080)                      a socket listening there
net.unix("/run/postgresql/.s.PGSQL.5432")
net.dangerous_host()                  the host's network as it is: every address, every abstract socket
"""

from __future__ import annotations

import os
from enum import Enum

import msgspec

from bunri.errors import UsageError
from bunri.policy import _parse


class NetKind(Enum):
    """What kind of grant."""

    CONNECT = "connect"
    LISTEN = "listen"
    UNIX = "unix"
    DANGEROUS_HOST = "dangerous_host"


class NetGrant(msgspec.Struct, frozen=True):
    """One grant."""

    kind: NetKind
    host: str = ""
    port: int = 0
    path: str = ""

    def __repr__(self) -> str:
        match self.kind:
            case NetKind.CONNECT:
                inside = f"{self.host!r}, {self.port}"
            case NetKind.LISTEN:
                inside = f"{self.port}"
            case NetKind.UNIX:
                inside = f"{self.path!r}"
            case NetKind.DANGEROUS_HOST:
                inside = ""
        return f"net.{self.kind.value}({inside})"


def connect(host: str, port: int) -> NetGrant:
    """Connections to this host name or address and this TCP port, made by a broker."""
    if not host or not str(host).isprintable() or " " in host:
        raise UsageError(f'net.connect(host): {host!r} is no host. Write a name or an address, as "db.example.org"')
    return NetGrant(NetKind.CONNECT, host=host, port=_port(port, "net.connect(port)"))


def listen(port: int) -> NetGrant:
    """A TCP socket that listens on this port, made by a broker."""
    return NetGrant(NetKind.LISTEN, port=_port(port, "net.listen(port)"))


def unix(path: str | os.PathLike[str]) -> NetGrant:
    """Connections to the Unix socket at this path, made by a broker."""
    return NetGrant(NetKind.UNIX, path=_parse.path(path, "net.unix(path)"))


def dangerous_host() -> NetGrant:
    """The host's network without a bound. Nothing of the promise NETWORK is kept then."""
    return NetGrant(NetKind.DANGEROUS_HOST)


def _port(value: object, where: str) -> int:
    number = _parse.count(value, where, most=65535)
    if number == 0:
        raise UsageError(f"{where}: 0 is no port. Write 1 to 65535")
    return number
