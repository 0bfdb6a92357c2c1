"""The compartments of the tests of development mode: they run whatever code they are sent."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
import sys
import threading
import time

import bunri
from bunri import Via, fs, net, seccomp
from bunri.seccomp import Arg, syscalls_of

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = syscalls_of(os.uname().machine)
CODE = {"ctypes": ctypes, "errno": errno, "fcntl": fcntl, "libc": libc, "mmap": mmap, "os": os, "signal": signal,
        "socket": socket, "sys": sys, "threading": threading, "time": time}  # fmt: skip


def call(name: str, *args: object) -> str:
    """A system call past Python: "ok", or the errno's name."""
    ctypes.set_errno(0)
    return "ok" if libc.syscall(NUMBERS[name], *args) >= 0 else errno.errorcode[ctypes.get_errno()]


def run(code: str) -> str:
    space: dict[str, object] = {**CODE, "call": call}
    exec(compile(code, "the code", "exec"), space)
    return str(space.get("result"))


class Refused(bunri.Compartment):
    """The default policy."""

    def run_code(self, code: str) -> str:
        return run(code)


class Plain(Refused):
    """The same, for workers without development mode: zygotes are kept by class and policy."""

    policy = bunri.Policy(open_files=40)


class Brokered(Refused):
    """Files of one folder and one port, by a broker."""

    policy = bunri.Policy(files=[fs.read("/usr/share/zoneinfo", via=Via.BROKER)], network=[net.connect("127.0.0.1", 9)])


class WithMemory(Refused):
    policy = bunri.Policy(syscalls=["memfd_create"])


class WithPipes(Refused):
    policy = bunri.Policy(syscalls=[seccomp.allow("fcntl", when=Arg(1).int32 == 0x407, reason="...")])


class WithThreads(Refused):
    policy = bunri.Policy(threads=1)


class WithProcesses(Refused):
    policy = bunri.Policy(processes=1, may_miss=[bunri.Promise.MEMORY])


class WithFile(Refused):
    policy = bunri.Policy(files=[fs.read("/etc/passwd")])


class WithPtrace(Refused):
    policy = bunri.Policy(syscalls=["dangerous_ptrace"])


class WithConnection(Refused):
    policy = bunri.Policy(network=[net.connect("127.0.0.1", 10)])
