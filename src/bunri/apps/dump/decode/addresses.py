"""Runs in: the decoder, confined; pure. Addresses and ports as text, each written once.

The tables forget everything when they have grown large: a flood of addresses costs time, not memory.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from bunri.apps.dump.decode.vendors import VENDORS

_MOST = 1 << 16
_EVERYBODY = b"\xff" * 6

Resolve = Callable[[bytes], str]


class _Names(dict[bytes, str]):
    """Text by bytes; `_size` bytes exactly, else the packet was cut short."""

    _size = 0

    def __init__(self, short: type[Exception]) -> None:
        super().__init__()
        self._short = short

    def __missing__(self, key: bytes) -> str:
        if len(key) != self._size:
            raise self._short
        if len(self) >= _MOST:
            self.clear()
        name = self[key] = self._name(key)
        return name

    def _name(self, key: bytes) -> str:
        raise AssertionError  # each table has its own


class _Resolved(_Names):
    def __init__(self, resolve: Resolve | None, truncated: type[Exception], *, short: bool) -> None:
        super().__init__(truncated)
        self._resolve = resolve
        self._without_domain = short

    def _known(self, key: bytes) -> str:
        name = self._resolve(key) if self._resolve is not None else ""
        return name.partition(".")[0] if self._without_domain else name


class Ip4Names(_Resolved):
    """IPv4 addresses."""

    _size = 4

    def _name(self, key: bytes) -> str:
        return self._known(key) or ".".join(map(str, key))


class Ip6Names(_Resolved):
    """IPv6 addresses, as RFC 5952 writes them."""

    _size = 16

    def _name(self, key: bytes) -> str:
        return self._known(key) or socket.inet_ntop(socket.AF_INET6, key)


class Pairs(dict[bytes, tuple[bytes, bytes]]):
    """The addresses of an IP packet, which stand one behind the other in it, as a line begins with them."""

    def __init__(self, ends: Callable[[bytes], tuple[str, str]]) -> None:
        super().__init__()
        self._ends = ends

    def __missing__(self, key: bytes) -> tuple[bytes, bytes]:
        if len(self) >= _MOST:
            self.clear()
        source, target = self._ends(key)
        version = "IP" if len(key) == 8 else "IP6"
        pair = self[key] = f"{version} {source}".encode("ascii", "replace"), target.encode("ascii", "replace")
        return pair


class MacNames(_Names):
    """Ethernet addresses; without -n with the vendor, or as what they stand for."""

    _size = 6

    def __init__(self, truncated: type[Exception], *, vendors: bool) -> None:
        super().__init__(truncated)
        self._vendors = vendors

    def _name(self, key: bytes) -> str:
        text = key.hex(":")
        if self._vendors:
            if key == _EVERYBODY:
                return "Broadcast"
            text += f" (oui {VENDORS.get(int.from_bytes(key[:3]), 'Unknown')})"
        return text


class PortNames(dict[int, str]):
    """Ports; without -n by the names that /etc/services gives. Numbers are written anew each time: a table is slower."""

    def __missing__(self, port: int) -> str:
        return str(port)


def hardware(address: bytes) -> str:
    """An address of any other link."""
    return address.hex(":") or "<empty>"
