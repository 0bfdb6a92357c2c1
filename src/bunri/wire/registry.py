"""Runs in: every process. What the wire must know of the classes above it: framework bases and handle types.

The wire imports nothing that touches the kernel. The modules that define Compartment, Service, File and their like
announce them here when they are imported, so that the arrows between packages point one way.
"""

from __future__ import annotations

import socket
from enum import Enum, IntEnum
from typing import Final

import msgspec


class HandleKind(IntEnum):
    """What kind of handle stands in a value. A filter is derived from the kinds that a signature can carry."""

    FILE = 1
    SOCKET = 2  # a connected or listening stream or sequenced-packet socket
    DATAGRAM = 3  # declared Annotated[socket.socket, bunri.Datagram]: such a worker may not send handles (THREATS 2)
    MAPPED = 4  # constructor arguments only
    SERVICE = 5
    SECRET = 6  # no descriptor: bytes whose copies are overwritten


WITH_DESCRIPTOR: Final = frozenset({HandleKind.FILE, HandleKind.SOCKET, HandleKind.DATAGRAM, HandleKind.MAPPED})
"""Kinds that travel as a descriptor; a service is only a number, a secret only bytes."""


class Marker(Enum):
    """Declares, with Annotated, that a value may be what is refused by default."""

    NOT_FINITE = "NotFinite"
    RAW_TEXT = "RawText"
    DATAGRAM = "Datagram"

    def __repr__(self) -> str:
        return f"bunri.{self.value}"


NotFinite: Final = Marker.NOT_FINITE  # Annotated[float, NotFinite]: NaN and the infinities too; also for Decimal
RawText: Final = Marker.RAW_TEXT  # Annotated[str, RawText]: NUL and unpaired surrogates too, as in file names
Datagram: Final = Marker.DATAGRAM  # Annotated[socket.socket, Datagram]


class Family(Enum):
    """The two families of classes whose methods are called over the wire."""

    COMPARTMENT = "compartment"
    SERVICE = "service"


class Base(msgspec.Struct, frozen=True):
    """A framework base class. `reserved` names belong to the framework: a subclass may set `settable` ones only."""

    cls: type
    family: Family
    reserved: frozenset[str]
    settable: frozenset[str]


_bases: dict[type, Base] = {}
_handles: dict[type, HandleKind] = {socket.socket: HandleKind.SOCKET}


def register_base(
    cls: type, family: Family, *, reserved: frozenset[str] = frozenset(), settable: frozenset[str] = frozenset()
) -> None:
    """Announce a framework base. Its subclasses' public methods are exported."""
    _bases[cls] = Base(cls, family, reserved, settable)


def register_handle(cls: type, kind: HandleKind) -> None:
    """Announce a type that crosses as a handle of this kind."""
    _handles[cls] = kind


def base_of(cls: type) -> Base | None:
    """The framework base that a class stands below, if any."""
    for ancestor in cls.__mro__:
        if ancestor in _bases:
            return _bases[ancestor]
    return None


def handle_kind(cls: type) -> HandleKind | None:
    """The kind of handle that exactly this class is, if any."""
    return _handles.get(cls)
