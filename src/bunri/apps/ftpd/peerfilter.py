"""Runs in: the monitor. A filter on a socket, by which the kernel lets in the packets of one address and no others.

Whoever is handed the socket accepts connections from there only: what comes from elsewhere is dropped before it is a
connection, and before it fills the queue of those that are. The filter cannot be taken off again (SO_LOCK_FILTER,
socket(7)), and every accepted connection has it too. Its language is that of bpf(4); a packet begins with the header of IP.
"""

from __future__ import annotations

import ctypes
import ipaddress
import logging
import socket
import struct
from functools import cache
from typing import Final

log = logging.getLogger("bunri.ftpd")
_ATTACH_FILTER, _LOCK_FILTER, _BIND_TO_INDEX = 26, 44, 62
_NETWORK: Final = 0x100000000 - 0x100000  # SKF_NET_OFF: offsets are counted from the header of IP
_SOURCE: Final = {4: 12, 6: 8}  # where it has the sender's address
_LOAD, _LOAD_BYTE, _AND, _IF_EQUAL, _RETURN = 0x20, 0x30, 0x54, 0x15, 0x06
_ALL, _NOTHING = 0xFFFFFFFF, 0


@cache
def is_possible() -> bool:
    """Whether this process may put filters on TCP sockets. For newer kernels that takes CAP_NET_ADMIN."""
    with socket.socket() as sock:
        try:
            PeerFilter(("127.0.0.1", 0)).put_on(sock)
        except OSError as fault:
            log.info("the monitor accepts data connections, which is slower: no filter on a socket: %s", fault.strerror)
            return False
    return True


class PeerFilter:
    """Lets in one peer."""

    def __init__(self, name: tuple[str, int] | tuple[str, int, int, int]) -> None:
        """`name`: as the kernel names him (getpeername(2)). An address that counts on one link only is let in from that one."""
        program = b"".join(struct.pack("=HBBI", *each) for each in _program(name[0]))
        self._program = ctypes.create_string_buffer(program, len(program))
        self._head = struct.pack("@HP", len(program) // 8, ctypes.addressof(self._program))
        self._link = name[3] if len(name) == 4 else 0

    def put_on(self, sock: socket.socket) -> None:
        """For as long as the socket, or what it accepted, is open."""
        sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, self._head)
        sock.setsockopt(socket.SOL_SOCKET, _LOCK_FILTER, 1)
        if self._link and not sock.getsockopt(socket.SOL_SOCKET, _BIND_TO_INDEX):  # else its own address did so
            sock.setsockopt(socket.SOL_SOCKET, _BIND_TO_INDEX, self._link)


def _program(peer: str) -> list[tuple[int, int, int, int]]:
    """Whether the version is this one, and each word of the sender's address; a jump over the rest where one differs."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address  # of a socket for both: the packets are those of IPv4
    words = struct.unpack(f">{len(address.packed) // 4}I", address.packed)
    at, version = _NETWORK + _SOURCE[address.version], address.version << 4
    compared = [(_LOAD_BYTE, 0, 0, _NETWORK), (_AND, 0, 0, 0xF0), (_IF_EQUAL, 0, 2 * len(words) + 1, version)]
    for number, word in enumerate(words):
        left = 2 * (len(words) - number - 1)
        compared += [(_LOAD, 0, 0, at + 4 * number), (_IF_EQUAL, 0, left + 1, word)]
    return [*compared, (_RETURN, 0, 0, _ALL), (_RETURN, 0, 0, _NOTHING)]
