"""Runs in: a zygote, and workers. Compartments that try what `explain` was asked about, and say what came of it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket

import bunri

_libc = ctypes.CDLL(None, use_errno=True)
_FLAGS = {"read": os.O_RDONLY, "write": os.O_WRONLY, "create": os.O_WRONLY | os.O_CREAT | os.O_EXCL}


def try_path(path: str, access: str) -> str:
    """ "" or the errno's name. What was made is removed again."""
    try:
        os.close(os.open(path, _FLAGS[access] | os.O_NONBLOCK, 0o600))
        if access == "create":
            os.unlink(path)
    except OSError as fault:
        return errno.errorcode[fault.errno or 0]
    return ""


def try_call(number: int, args: list[int]) -> str:
    ctypes.set_errno(0)
    wide = [ctypes.c_long(arg) for arg in args]
    if _libc.syscall(ctypes.c_long(number), *wide) == -1:
        return errno.errorcode[ctypes.get_errno()]
    return ""


class Plain(bunri.Compartment):
    """Nothing granted but time and memory."""

    def paths(self, items: list[tuple[str, str]]) -> list[str]:
        return [try_path(path, access) for path, access in items]

    def call(self, number: int, args: list[int]) -> str:
        return try_call(number, args)

    def connects(self, family: int, address: str, port: int) -> str:
        try:
            with socket.socket(family) as sock:
                sock.settimeout(2)
                sock.connect((address, port))
        except OSError as fault:
            return errno.errorcode[fault.errno or 0]
        return ""


class Granted(bunri.Compartment):
    """What it is granted is known at the start."""

    policy = bunri.Policy(files=bunri.AT_START)

    def paths(self, items: list[tuple[str, str]]) -> list[str]:
        return [try_path(path, access) for path, access in items]

    def call(self, number: int, args: list[int]) -> str:
        return try_call(number, args)


class Shell(bunri.Compartment):
    """May execute what the system has."""

    policy = bunri.Policy(files=[bunri.fs.system()], processes=2, may_miss=[bunri.Promise.MEMORY])

    def paths(self, items: list[tuple[str, str]]) -> list[str]:
        return [try_path(path, access) for path, access in items]

    def executes(self, path: str) -> str:
        pid = os.fork()
        if pid == 0:
            try:
                os.execve(path, [path], {})
            except OSError as fault:
                os._exit(100 + (fault.errno or 0))
            os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return "" if code < 99 else errno.errorcode[code - 100]


class Net(bunri.Compartment):
    policy = bunri.Policy(network=[bunri.net.dangerous_host()])

    def connects(self, family: int, address: str, port: int) -> str:
        try:
            with socket.socket(family) as sock:
                sock.settimeout(2)
                sock.connect((address, port))
        except OSError as fault:
            return errno.errorcode[fault.errno or 0]
        return ""
