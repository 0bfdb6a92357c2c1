"""Runs in: a broker's process, as the subject. Sockets for a worker that may make none.

socket() is answered with a fresh socket of the broker's own network, of which the broker keeps a copy until it has been
connected or listens. The number that a later connect() names is a hint which copy is meant and no more: the broker acts
on its own copy and on an address that it read once. A worker that put something else under that number has a socket
less; what it is connected to was granted all the same. Copies share one description: O_NONBLOCK and the options that
the worker set hold for both.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import Final

import msgspec

from bunri.broker import reaching
from bunri.broker.beneath import refused
from bunri.broker.confining import Held
from bunri.broker.messages import Charge

MOST: Final = 64  # kept at one time
CONNECT_WITHIN: Final = 30.0  # seconds
_KIND, _FLAGS = 0xF, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_LONGEST_ADDRESS: Final = 128

Address = tuple[str, int] | str


class Waiting(msgspec.Struct):
    """A blocking connect() that has not ended: its call stands still meanwhile."""

    id: int
    number: int
    made: socket.socket
    address: tuple[str, int]
    until: float


def parse_address(data: bytes) -> Address:
    """A struct sockaddr: (host, port), or the path of a Unix socket. EAFNOSUPPORT, EINVAL for anything else."""
    if len(data) < 2:
        raise refused(errno.EINVAL)
    family = int.from_bytes(data[:2], "little" if struct.pack("=H", 1)[0] else "big")
    if family == socket.AF_INET and len(data) >= 16:
        return socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4], "big")
    if family == socket.AF_INET6 and len(data) >= 28:
        if any(data[24:28]):
            raise refused(errno.EINVAL)  # a scope names an interface
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big")
    if family == socket.AF_UNIX:
        path = data[2:].partition(b"\0")[0]
        if not path.startswith(b"/"):  # abstract, unnamed, relative
            raise refused(errno.EACCES)
        return os.fsdecode(path)
    raise refused(errno.EAFNOSUPPORT)


def spelled(address: Address) -> str:
    """An address as people write it."""
    if isinstance(address, str):
        return address.encode("utf-8", "backslashreplace").decode()
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Sockets:
    """The sockets that one worker was given and has not yet used, by their number there; by inode, where it may be
    several processes with numbers of their own."""

    def __init__(self, charge: Charge, held: Held) -> None:
        self._charge = charge
        self._unix = dict(zip(charge.sockets, held.sockets, strict=True))
        self._made: dict[int, socket.socket] = {}
        self._bound: set[int] = set()
        self._families = [socket.AF_INET, socket.AF_INET6] if charge.connects or charge.listens else []
        self._families += [socket.AF_UNIX] if charge.sockets else []

    def make(self, family: int, kind: int, protocol: int) -> socket.socket:
        """A fresh stream socket."""
        if family not in self._families or kind & _KIND != socket.SOCK_STREAM or kind & ~(_KIND | _FLAGS):
            raise refused(errno.EACCES)
        if protocol not in (0, socket.IPPROTO_TCP) or (protocol and family == socket.AF_UNIX):
            raise refused(errno.EPROTONOSUPPORT)
        return socket.socket(family, kind & ~socket.SOCK_CLOEXEC, protocol)

    def keep(self, number: int, made: socket.socket) -> None:
        """It was handed over under this number."""
        self.forget(number)
        self._made[number] = made
        if len(self._made) > MOST:
            self.forget(next(iter(self._made)))

    def forget(self, number: int) -> None:
        """Let our copy go: the socket is the worker's alone."""
        before = self._made.pop(number, None)
        self._bound.discard(number)
        if before is not None:
            before.close()

    def connect(self, id_: int, number: int, data: bytes) -> Waiting | int:
        """0 or a negative errno for the worker, or the call has to wait. EACCES: that address is not granted."""
        made = self._meant(number)
        address = parse_address(data)
        blocking = os.get_blocking(made.fileno())
        if not isinstance(address, str) and not reaching.is_granted(*address, self._charge.connects):
            raise refused(errno.EACCES)
        if isinstance(address, str) and address not in self._unix:
            raise refused(errno.EACCES)
        _refuse_other_family(made, address)
        os.set_blocking(made.fileno(), False)
        code = self._begin(made, address)
        if blocking and code == errno.EINPROGRESS and not isinstance(address, str):
            del self._made[number]
            return Waiting(id_, number, made, address, time.monotonic() + CONNECT_WITHIN)
        os.set_blocking(made.fileno(), blocking)
        if code in (0, errno.EINPROGRESS):
            self.forget(number)
        return -code

    def _begin(self, made: socket.socket, address: Address) -> int:
        """0 or an errno; EINPROGRESS where the other side has yet to answer. Nothing waits here."""
        if not isinstance(address, str):
            return made.connect_ex(address)
        try:
            reaching.connect_unix(made, *self._unix[address])
        except OSError as fault:
            return fault.errno or errno.EIO
        return 0

    def end_of(self, waiting: Waiting) -> int:
        """What became of a connection: 0 or a negative errno. Where there is none, another may be tried with it."""
        made = waiting.made
        code = made.connect_ex(waiting.address)  # makes no second one, but says how it went, and lets the socket go on
        os.set_blocking(made.fileno(), True)
        if code:
            self.keep(waiting.number, made)
        else:
            made.close()
        return -code

    def give_up(self, waiting: Waiting) -> int:
        """It took too long, or nobody waits for it any more."""
        waiting.made.close()
        return -errno.ETIMEDOUT

    def bind(self, number: int, data: bytes) -> int:
        """Only to a granted port."""
        made = self._meant(number)
        address = parse_address(data)
        if isinstance(address, str) or address[1] not in self._charge.listens:
            raise refused(errno.EACCES)
        _refuse_other_family(made, address)
        made.bind(address)
        self._bound.add(number)
        return 0

    def listen(self, number: int, backlog: int) -> int:
        """Only when it is bound: the kernel would choose a port for any other."""
        made = self._meant(number)
        if number not in self._bound:
            raise refused(errno.EACCES)
        made.listen(max(0, min(backlog, 4096)))
        self.forget(number)
        return 0

    def _meant(self, number: int) -> socket.socket:
        made = self._made.get(number)
        if made is None:
            raise refused(errno.EPERM)
        return made


def _refuse_other_family(made: socket.socket, address: Address) -> None:
    """EAFNOSUPPORT where the socket knows no such addresses. What Python says of that is no errno, and would end us."""
    if made.family != (socket.AF_UNIX if isinstance(address, str) else reaching.family_of(address[0])):
        raise refused(errno.EAFNOSUPPORT)


def longest(length: int) -> int:
    """How many bytes of an address are read."""
    if not 2 <= length <= _LONGEST_ADDRESS:
        raise refused(errno.EINVAL)
    return length
