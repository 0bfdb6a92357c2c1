"""Runs in: the attacker's worker, and as a script in a plain process. What an attacker in a decoder would try.

Each action is tried for real and undone where it leaves something. An OSError is a refusal; what an action returns
is what the attacker got. The standard library only: the same lines run with bunri around them and without.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_PTRACE_SEIZE = 0x4206
_NR_IO_URING_SETUP = 425  # the same number on all architectures


@dataclass(frozen=True)
class Target:
    """What the actions aim at: the monitor's process, a port it listens on, a file name in a folder it can write."""

    monitor: int
    port: int
    scratch: str


def _checked(value: int) -> int:
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return value


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return f"{len(file.read(1 << 20))} bytes"


def _write(to: Target) -> str:
    with open(to.scratch, "w") as file:
        file.write("was here")
    os.unlink(to.scratch)
    return "written"


def _connect(to: Target) -> str:
    with socket.create_connection(("127.0.0.1", to.port), timeout=2):
        return "connected"


def _fork(_: Target) -> str:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "a process"


def _execute(_: Target) -> str:
    os.execv("/bin/true", ["true"])


def _kill(to: Target) -> str:
    os.kill(to.monitor, 0)
    return "may signal it"


def _trace(to: Target) -> str:
    _checked(_libc.ptrace(_PTRACE_SEIZE, to.monitor, None, None))
    return "traces it"  # ends with this process


def _mount(_: Target) -> str:
    # In a mount namespace of its own, so that the plain process beside changes nothing on the host.
    _checked(_libc.unshare(_NEWNS if os.geteuid() == 0 else _NEWNS | _NEWUSER))
    _checked(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    return "mounted"


def _user_namespace(_: Target) -> str:
    _checked(_libc.unshare(_NEWUSER))
    return "all capabilities in it"


def _become_root(_: Target) -> str:
    os.setuid(0)
    return "uid 0"


def _much_memory(_: Target) -> str:
    mmap.mmap(-1, 1 << 30).close()
    return "1 GiB"


def _writable_code(_: Target) -> str:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    return "room for machine code"


def _io_uring(_: Target) -> str:
    os.close(_checked(_libc.syscall(_NR_IO_URING_SETUP, 4, ctypes.create_string_buffer(120))))
    return "a ring"


def _memfd(_: Target) -> str:
    os.close(os.memfd_create("x"))
    return "a file in memory"


def _raw_socket(_: Target) -> str:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    return "a socket"


ATTACKS: dict[str, Callable[[Target], str]] = {
    "read /etc/passwd": lambda _: _read("/etc/passwd"),
    "read /etc/shadow": lambda _: _read("/etc/shadow"),
    "list /": lambda _: f"{len(os.listdir('/'))} names",
    "write a file": _write,
    "read the monitor's environment": lambda to: _read(f"/proc/{to.monitor}/environ"),
    "connect to a port of this host": _connect,
    "open a netlink socket": _raw_socket,
    "fork": _fork,
    "execute /bin/true": _execute,
    "signal the monitor": _kill,
    "trace the monitor (ptrace)": _trace,
    "mount": _mount,
    "make a user namespace": _user_namespace,
    "setuid(0)": _become_root,
    "map 1 GiB of memory": _much_memory,
    "map writable code (RWX)": _writable_code,
    "io_uring_setup": _io_uring,
    "memfd_create": _memfd,
}


def attempt(name: str, target: Target) -> tuple[str, str]:
    """("got", what) or ("refused", the errno's name)."""
    try:
        return "got", ATTACKS[name](target)
    except OSError as fault:
        return "refused", errno.errorcode.get(fault.errno or 0, str(fault))


if __name__ == "__main__":
    _action, _monitor, _port, _scratch = sys.argv[1:]
    print(*attempt(_action, Target(int(_monitor), int(_port), _scratch)), sep="\t")
