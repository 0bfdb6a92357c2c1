"""Runs in: the monitor, with the user's rights. The interfaces that can be listened to, in libpcap's order.

The order matters: `-i 1` is the first of them, and so is what is listened to without -i (pcap_findalldevs(3PCAP)).
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

import bunri

ANY = "any"
_SIOCGIFFLAGS, _SIOCGIFHWADDR, _SIOCETHTOOL = 0x8913, 0x8927, 0x8946
_ETHTOOL_GLINK = 10
_UP, _LOOPBACK, _RUNNING = 0x1, 0x8, 0x40  # netdevice(7)


@dataclass(frozen=True)
class Interface:
    """One of them, with what `-D` says of it."""

    name: str
    up: bool
    running: bool
    loopback: bool = False
    wireless: bool = False
    connected: bool | None = None  # None: that is no question here

    def __str__(self) -> str:
        about = " (Pseudo-device that captures on all interfaces)" if self.name == ANY else ""
        told = [
            word
            for word, is_so in (
                ("Up", self.up), ("Running", self.running), ("Loopback", self.loopback), ("Wireless", self.wireless),
            )
            if is_so
        ]  # fmt: skip
        told = told or ["none"]
        if self.connected is not None:
            words = ("Not associated", "Associated") if self.wireless else ("Disconnected", "Connected")
            told.append(words[self.connected])
        return f"{bunri.printable(self.name)}{about} [{', '.join(told)}]"

    @property
    def order(self) -> tuple[bool, ...]:
        """What is most worth listening to comes first."""
        unplugged = self.connected is False and not self.wireless
        return (not self.running, not self.up, unplugged, self.loopback, self.name == ANY)


def interfaces() -> list[Interface]:
    """All interfaces, and the one that stands for all."""
    found = [_interface(name) for _, name in socket.if_nameindex()]
    return sorted([*found, Interface(ANY, up=True, running=True)], key=lambda each: each.order)


def hardware(name: str) -> int:
    """What kind of interface it is (ARPHRD, if_arp.h). OSError where there is none."""
    return _number(name, _SIOCGIFHWADDR)


def _interface(name: str) -> Interface:
    try:
        flags = _number(name, _SIOCGIFFLAGS)
    except OSError:
        flags = 0  # it has just gone away
    loopback = bool(flags & _LOOPBACK)
    return Interface(
        name,
        up=bool(flags & _UP),
        running=bool(flags & _RUNNING),
        loopback=loopback,
        wireless=os.path.exists(f"/sys/class/net/{name}/wireless"),
        connected=None if loopback else _connected(name),
    )


def _ask(name: str, request: int, argument: bytes = b"") -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return fcntl.ioctl(sock.fileno(), request, struct.pack("16s24s", os.fsencode(name)[:15], argument))


def _number(name: str, request: int) -> int:
    return int(struct.unpack_from("=H", _ask(name, request), 16)[0])


def _connected(name: str) -> bool | None:
    """Whether a cable is in it, or a network found; None where the driver does not know of such."""
    asked = array.array("I", [_ETHTOOL_GLINK, 0])
    try:
        _ask(name, _SIOCETHTOOL, struct.pack("P", asked.buffer_info()[0]))
    except OSError:
        return None
    return bool(asked[1])
