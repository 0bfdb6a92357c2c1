"""Runs in: monitor and worker. Handles of one message as descriptors and numbers (THREATS 12, 18, 19).

Outwards a descriptor is duplicated; a regular file is opened anew on a file description of its own, because offset and flags of a shared one
are the other side's to change. Inwards every descriptor is looked at before anything is done with it: its kind, its way of access, its
file system. What does not fit closes all that came with the message.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Callable
from typing import Any, TypeVar

from bunri.channel.link import close_all
from bunri.errors import ProtocolError
from bunri.handles import File, Mapped, refuse_directory, refuse_place
from bunri.kernel import descriptors as fds
from bunri.kernel.mapping import shared
from bunri.policy import Access
from bunri.wire import Contract, contract_of
from bunri.wire.bounds import HANDLES, Fault
from bunri.wire.registry import HandleKind

_PSEUDO = frozenset(
    {0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x65735546, 0x6165676C}
)  # proc sysfs cgroup cgroup2 fuse pstore
_FILES = frozenset({"file", "pipe", "eventfd", "character device"})  # what a File may be; no pidfd, no epoll
_ADDRESS_FAMILIES = frozenset({socket.AF_UNIX, socket.AF_INET, socket.AF_INET6})
# Downwards only: what the monitor hands over. A packet socket from a worker would be one that it was never given.
_ADDRESS_FAMILIES_DOWN = _ADDRESS_FAMILIES | {socket.AF_PACKET}
_STREAMS = frozenset({socket.SOCK_STREAM, socket.SOCK_SEQPACKET})


_H = TypeVar("_H", File, socket.socket)


class OutgoingHandles:
    """The handles of one message that is being encoded. `number_of` gives an object's number on this channel, and counts a sending;
    `unsent` takes the count back."""

    def __init__(self, number_of: Callable[[Any, Contract], int], unsent: Callable[[int], None] | None = None) -> None:
        self.descriptors: list[int] = []
        self._originals: list[Any] = []
        self._numbers: list[int] = []
        self._number_of = number_of
        self._unsent = unsent

    def close(self) -> None:
        """The message will not go out."""
        close_all(self.descriptors)
        self.descriptors.clear()
        if self._unsent is not None:
            for number in self._numbers:
                self._unsent(number)
        self._numbers.clear()

    def move(self) -> None:
        """It was a result: what was duplicated for it is closed here (API decision 5)."""
        for handle in self._originals:
            handle.close()

    def add_descriptor(self, handle: Any, kind: HandleKind) -> Any:
        if kind in (HandleKind.SOCKET, HandleKind.DATAGRAM):
            is_stream = handle.type in _STREAMS
            if is_stream is (kind is HandleKind.DATAGRAM):
                raise Fault(
                    "a datagram socket where a stream is declared, or the other way round (Annotated[socket.socket, bunri.Datagram])"
                )
        elif kind is HandleKind.MAPPED:
            refuse_place(handle.fileno())  # the memory of a packet socket can be mapped; the socket is closed there
        else:
            refuse_directory(handle.fileno())
        self.descriptors.append(_own_copy(handle.fileno()))
        self._originals.append(handle)
        index = len(self.descriptors) - 1
        if kind is HandleKind.MAPPED:
            return (index, handle.length, int(handle.access is Access.WRITE))
        return index

    def add_service(self, service: Any, interface: type) -> int:
        number = self._number_of(service, contract_of(interface))
        self._numbers.append(number)
        return number


def _own_copy(fd: int) -> int:
    """A descriptor of the same file that shares no offset, where that can be."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        flags = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_APPEND)
        try:
            return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC | os.O_NOCTTY)
        except (
            OSError
        ):  # deleted, a memfd that is sealed, or no /proc here: then the description is shared, as documented
            pass
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)


class IncomingHandles:
    """The handles of one message that is being decoded. `service_of` gives the object of a number."""

    def __init__(
        self, descriptors: list[int], service_of: Callable[[int, Contract], Any], *, trusted: bool = False
    ) -> None:
        self._left: list[int | None] = list(descriptors)
        self._claimed: list[File | socket.socket] = []
        self._service_of = service_of
        self._trusted = trusted
        self._services = 0

    def descriptor(self, told: Any, kind: HandleKind) -> Any:
        index: int = told[0] if kind is HandleKind.MAPPED else told
        number = self._left[index] if index < len(self._left) else None
        if number is None:
            raise ProtocolError(f"handle {index}, which did not come, or stands twice")
        if kind is HandleKind.MAPPED:
            return self._map(index, number, told[1], Access.WRITE if told[2] else Access.READ)
        # The worker trusts the monitor, and its filter knows neither statfs nor readlink: there fstat is enough.
        found = fds.kind_of_mode(os.fstat(number).st_mode) or "anonymous" if self._trusted else fds.kind_of(number)
        if kind is HandleKind.FILE:
            self._check_file(number, found)
            self._left[index] = None
            return self._keep(File(number))
        if found != "socket":
            raise ProtocolError(f"a {found} where a socket is declared")
        self._left[index] = None
        families = _ADDRESS_FAMILIES_DOWN if self._trusted else _ADDRESS_FAMILIES
        return self._keep(_socket_of(number, families, datagram=kind is HandleKind.DATAGRAM))

    def service(self, number: int, interface: type) -> Any:
        self._services += 1
        if self._services > HANDLES:
            raise ProtocolError(f"more than {HANDLES} objects in one message")
        return self._service_of(number, contract_of(interface))

    def finish(self) -> None:
        left = len(self._left) - self._left.count(None)
        if left:
            self.close_unclaimed()
            raise ProtocolError(f"{left} descriptors that no value of the message names")

    def close_unclaimed(self) -> None:
        close_all([number for number in self._left if number is not None])
        self._left.clear()
        for handle in self._claimed:  # the message is refused: nobody will have what was taken out of it
            handle.close()
        self._claimed.clear()

    def _keep(self, handle: _H) -> _H:
        self._claimed.append(handle)
        return handle

    def _check_file(self, number: int, found: str) -> None:
        allowed = _FILES | {"anonymous"} if self._trusted else _FILES  # the worker's fstat sees no more of an eventfd
        if found not in allowed or (not self._trusted and fds.access_of(number) == "path"):
            raise ProtocolError(f"a {found} descriptor where a File is declared")
        if not self._trusted and fds.filesystem_magic(number) in _PSEUDO:
            raise ProtocolError("a file of a pseudo file system (proc, sysfs, cgroup, fuse) from a worker")

    def _map(self, index: int, number: int, length: int, access: Access) -> Mapped:
        if not self._trusted:
            raise ProtocolError("a mapping from a worker")
        mapping = shared(number, length, writable=access is Access.WRITE)
        self._left[index] = None
        os.close(number)
        return Mapped.from_mapping(mapping, access)


def _socket_of(number: int, families: frozenset[socket.AddressFamily], *, datagram: bool) -> socket.socket:
    """A socket whose family and type were read from the kernel, each by a call the filter lets through."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=number)  # named, so that Python asks nothing
    try:
        family = probe.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
        kind = probe.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        protocol = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    except OSError:
        probe.close()
        raise ProtocolError("a socket that does not say what it is") from None
    probe.detach()
    if family not in families or (kind in _STREAMS) is datagram:
        os.close(number)
        raise ProtocolError(f"a socket of family {family} and type {kind}, which is not what is declared")
    return socket.socket(family, kind, protocol, fileno=number)
