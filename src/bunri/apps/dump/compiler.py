"""Runs in: a worker of its own for one filter expression, and its zygote. No network, and of files the tables of names.

libpcap reads the user's words with C code; what comes out are instructions, which the monitor checks (bpf.py). The
worker ends with the answer.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar

import bunri
from bunri.apps.dump.messages import BadExpression, Instruction

LIBRARY = "libpcap.so.0.8"
MISSING = (
    f"filter expressions are compiled by libpcap, and {LIBRARY} is not here. Install it (apt-get install libpcap0.8)"
)
NAMES = ("/etc/services", "/etc/protocols", "/etc/networks", "/etc/ethers", "/etc/hosts", "/etc/nsswitch.conf")


class _Instruction(ctypes.Structure):
    _fields_: ClassVar = [
        ("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32),
    ]  # fmt: skip


class _Program(ctypes.Structure):
    _fields_: ClassVar = [("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction))]


_library: list[ctypes.CDLL] = []


def _load() -> ctypes.CDLL:
    if not _library:
        pcap = ctypes.CDLL(LIBRARY)
        pcap.pcap_open_dead.restype = ctypes.c_void_p
        pcap.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
        pcap.pcap_compile.argtypes = [
            ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32,
        ]  # fmt: skip
        pcap.pcap_geterr.restype = ctypes.c_char_p
        pcap.pcap_geterr.argtypes = [ctypes.c_void_p]
        _library.append(pcap)
    return _library[0]


class Compiler(bunri.Compartment):
    """One expression."""

    policy = bunri.Policy(memory="512M", cpu="60s", files=bunri.AT_START)  # some thousand words take as much

    @classmethod
    def warm_up(cls) -> None:
        # Loaded before the worker is confined, since nothing can be opened afterwards. A host without it is told later.
        try:
            _load()
        except OSError:
            return

    @bunri.raises(BadExpression)
    def compile(self, expression: bytes, link: int, snap: int, optimize: int, netmask: int) -> list[Instruction]:
        """The program for packets of a link type (DLT) that keeps `snap` bytes of each match."""
        try:
            pcap = _load()
        except OSError:
            raise BadExpression(MISSING) from None
        handle = pcap.pcap_open_dead(link, snap)
        if not handle:
            raise BadExpression("libpcap could not be started")
        program = _Program()
        if pcap.pcap_compile(handle, ctypes.byref(program), expression, optimize, netmask) != 0:
            raise BadExpression((pcap.pcap_geterr(handle) or b"").decode("ascii", "replace"))
        taken = [program.instructions[index] for index in range(program.length)]
        return [(int(each.code), int(each.jt), int(each.jf), int(each.k)) for each in taken]
