"""Runs in: the resolver and its zygote, only without -n. Asks the name service for names of addresses.

It has the network, and what the C library reads to use it. It sees addresses, no packet. What a name server answers is
as hostile as a packet: the answer is cut to what a host name may be made of.
"""

from __future__ import annotations

import re
import socket

import bunri
from bunri import fs, net

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,255}")
FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf")


class Resolver(bunri.Compartment):
    """Looks addresses up."""

    policy = bunri.Policy(memory="128M", cpu=None, files=bunri.AT_START, network=[net.dangerous_host()])

    @classmethod
    def warm_up(cls) -> None:
        # Whatever the C library loads at the first question, it loads now.
        socket.getnameinfo(("127.0.0.1", 0), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)

    def host(self, address: bytes) -> str:
        """The name of an address of 4 or 16 bytes; empty where there is none."""
        if len(address) not in (4, 16):
            return ""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        try:
            name = socket.gethostbyaddr(socket.inet_ntop(family, address))[0]
        except OSError:
            return ""
        return name if NAME.fullmatch(name) else ""


def policy(there: list[str]) -> bunri.Policy:
    """With those of FILES that this host has, and the C library's modules."""
    return Resolver.policy.with_(files=[fs.system(), *(fs.read(path) for path in there)])
