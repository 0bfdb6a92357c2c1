"""Runs in: a broker's process, as the subject. Connections to what is granted, and sockets that listen there.

The address that was checked is the one that is connected: a name was looked up once, before, and here are numbers only.
A Unix socket is found by name in a directory that is held, looked at by descriptor, and connected to by that descriptor.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable

from bunri.broker.beneath import STRICT, refused
from bunri.broker.messages import Address
from bunri.kernel import paths


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def canonical(address: str) -> str:
    """One spelling for one address; an IPv4 address in IPv6's clothes is the IPv4 address."""
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def is_granted(host: str, port: int, granted: Iterable[Address]) -> bool:
    """Whether a connection to this address (a number, not a name) is granted."""
    try:
        wanted = canonical(host)
    except ValueError:
        return False
    return any(port == each.port and wanted in each.addresses for each in granted)


def connect(granted: Address, timeout: float) -> socket.socket:
    """A connection to the first of the granted addresses that answers."""
    fault: OSError = refused(errno.EHOSTUNREACH)
    for address in granted.addresses:
        made = socket.socket(family_of(address), socket.SOCK_STREAM)
        try:
            made.settimeout(timeout)
            made.connect((address, granted.port))
            made.settimeout(None)
            return made
        except OSError as error:
            made.close()
            fault = error
    raise fault


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A socket that listens on the granted port, at this address of ours."""
    made = socket.socket(family_of(host), socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family is socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(backlog)
    except BaseException:
        made.close()
        raise
    return made


def connect_unix(made: socket.socket, folder: int, name: str) -> None:
    """Connect to the socket `name` in the held folder; never through a link. ENOTSOCK for anything else there."""
    pinned = paths.openat2(name, os.O_PATH | os.O_NOFOLLOW, dirfd=folder, resolve=STRICT)
    try:
        if not stat.S_ISSOCK(os.fstat(pinned).st_mode):
            raise refused(errno.ENOTSOCK)
        made.connect(f"/proc/self/fd/{pinned}")
    finally:
        os.close(pinned)
