"""Compartments that belong to an attacker: they run whatever code they are sent, under the policy that everybody has."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Callable

import bunri
from bunri.seccomp._names import syscalls_of

libc = ctypes.CDLL(None, use_errno=True)

NUMBERS = syscalls_of(os.uname().machine)  # a copy of what the kernel's headers say; the attacker has them too
CODE: dict[str, object] = {
    "ctypes": ctypes, "errno": errno, "fcntl": fcntl, "libc": libc, "mmap": mmap, "os": os, "random": random,
    "signal": signal, "socket": socket, "struct": struct, "time": time,
}  # fmt: skip


def run(code: str, **more: object) -> str:
    """Run attacker's code; what it puts into `result`, or the name of the errno it was refused with."""
    space: dict[str, object] = {**CODE, **more}

    def call(name: str | int, *args: object) -> str:
        ctypes.set_errno(0)
        value = libc.syscall(NUMBERS[name] if isinstance(name, str) else name, *args)
        return "ok" if value >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")

    space |= {"call": call, "NUMBERS": NUMBERS}
    try:
        exec(code, space)
    except OSError as fault:
        return errno.errorcode.get(fault.errno or 0, "?")
    return str(space.get("result"))


class Owned(bunri.Compartment):
    """The default policy."""

    def run_code(self, code: str) -> str:
        return run(code)


class OwnedWithArena(Owned):
    """Has memory that it shares with the monitor."""

    def large(self, data: bytes) -> int:
        return len(data)


def owned_code() -> Callable[[], int]:
    """A function of the attacker's own machine code: getpid by the 32-bit table, through int 0x80."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    _pages.append(page)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))


_pages: list[mmap.mmap] = []
CODE["owned_code"] = owned_code


class OwnedWithCode(Owned):
    """Has machine code of its own, from before there was a filter: what a fault in a library would give."""

    enter: Callable[[], int]

    @classmethod
    def warm_up(cls) -> None:
        cls.enter = staticmethod(owned_code())

    def run_code(self, code: str) -> str:
        return run(code, enter=type(self).enter)


class Hoarder(bunri.Compartment):
    """Keeps things from call to call."""

    reuse = bunri.Reuse.DANGEROUS_ACROSS_PRINCIPALS

    def run_code(self, code: str) -> str:
        return run(code)


class OwnedWithSocket(bunri.Compartment):
    """Was handed a connected socket."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer

    def run_code(self, code: str) -> str:
        return run(code, peer=self._peer)


class OwnedWithFile(bunri.Compartment):
    """Was handed a file."""

    def __init__(self, file: bunri.File) -> None:
        self._file = file

    def run_code(self, code: str) -> str:
        return run(code, file=self._file)


class Guarded(bunri.Service):
    @bunri.limit(calls=3)
    def guess(self, word: str) -> bool: ...

    def free(self, word: str) -> bool: ...


class OwnedWithService(bunri.Compartment):
    """Was handed a service."""

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded

    def guess(self, times: int) -> int:
        for _ in range(times):
            self._guarded.guess("x")
        return times

    def free(self, times: int) -> int:
        for _ in range(times):
            self._guarded.free("x")
        return times

    def run_code(self, code: str) -> str:
        return run(code)


class Zygote(bunri.Compartment):
    """Tells what its zygote was when it warmed up."""

    seen: str = ""

    @classmethod
    def warm_up(cls) -> None:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        readable = os.access("/etc/shadow", os.R_OK)
        cls.seen = f"{lines['Uid'].split()[0]} {readable}"

    def tell(self) -> str:
        return type(self).seen


class OwnedWithPaths(bunri.Compartment):
    """Was granted paths, whichever way."""

    policy = bunri.Policy(files=bunri.AT_START)

    def run_code(self, code: str) -> str:
        return run(code)
