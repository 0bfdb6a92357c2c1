"""Runs in: every process. Unix sockets: descriptors beside bytes (unix(7)), and who the peer is."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

MOST = 253  # SCM_MAX_FD: descriptors in one message
_INT = array.array("i").itemsize
# As numbers: `|` of two of socket's flags makes an object of a class, for every message.
CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_NO_SIGNAL = int(socket.MSG_NOSIGNAL)
_CLOSED_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)


class Received(NamedTuple):
    """One message. `flags` has MSG_TRUNC where the data was longer, MSG_CTRUNC where descriptors were lost."""

    data: bytes
    fds: tuple[int, ...]
    flags: int


class Credentials(NamedTuple):
    """Who made the other end (at connect or socketpair time, as the kernel noted it)."""

    pid: int
    uid: int
    gid: int


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = (), flags: int = _NO_SIGNAL) -> int:
    """sendmsg(2) with descriptors. The sender keeps its own copies."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg([data], control, flags)


def receive(sock: socket.socket, size: int, most: int = 0, flags: int = 0) -> Received:
    """recvmsg(2); descriptors arrive close-on-exec. What is more than `most` the kernel closes, and sets MSG_CTRUNC.

    The kernel fills the last padded slot, so one more than `most` may arrive: the caller compares.
    """
    space = socket.CMSG_LEN(most * _INT) if most else 0
    data, control, seen, _ = sock.recvmsg(size, space, flags | _CLOSED_ON_EXEC)
    fds: list[int] = []
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(struct.unpack_from(f"{len(payload) // _INT}i", payload))
    return Received(data, tuple(fds), seen)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)


def peer(sock: socket.socket) -> Credentials:
    """SO_PEERCRED."""
    size = struct.calcsize("3i")
    return Credentials(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))
