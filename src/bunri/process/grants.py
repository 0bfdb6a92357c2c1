"""Runs in: the monitor; pure. The grant that would let a refused call go on, as code to paste into a policy.

Only for calls that the kernel told (THREATS 26); None where no grant of a policy would help, or which one it is cannot
be known from the registers.
"""

from __future__ import annotations

import os
import posixpath
import socket
import stat
from collections.abc import Callable, Mapping
from typing import Final

from bunri.broker.messages import Denied
from bunri.errors import UsageError
from bunri.policy import fs
from bunri.process.arguments import int32
from bunri.seccomp import ATTACK_SHAPED

_CLONE_THREAD: Final = 0x10000
_CLONE_OTHER: Final = 0x7E020000 | 0x8000 | 0x800000  # namespaces, PARENT, UNTRACED: nothing grants them
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_SELECTORS: Final = {"ioctl": 1, "fcntl": 1, "prctl": 0, "madvise": 2}  # the argument that says what is meant
_OPTIONS: Final = ("setsockopt", "getsockopt")
_OPEN_FLAGS: Final = {"open": 1, "openat": 2}
_MODES: Final = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "mknod": 1, "mknodat": 2}
_LOOKS: Final = frozenset(
    {"access", "chdir", "faccessat", "faccessat2", "lstat", "newfstatat", "openat2", "readlink", "readlinkat", "stat",
     "statfs", "statx"}
)  # fmt: skip
_CHANGES: Final = frozenset(
    {"chmod", "creat", "fchmodat", "fchmodat2", "link", "linkat", "mkdir", "mkdirat", "rename", "renameat", "renameat2",
     "rmdir", "symlink", "symlinkat", "truncate", "unlink", "unlinkat", "utime", "utimensat", "utimes"}
)  # fmt: skip


def grant_for(name: str | None, told: Denied, *, brokered: bool) -> str | None:
    """As an argument of Policy(...). `brokered`: its files are."""
    texts = dict(told.texts)
    if name is None or told.layer == "file permissions":
        return None
    if name in _MODES and told.args[_MODES[name]] & (stat.S_ISUID | stat.S_ISGID):
        return None  # nothing grants that
    if name in _OPEN_FLAGS or name in _LOOKS or name in _CHANGES:
        return _file(name, told, texts, brokered=brokered)
    if name in _SPECIAL:
        return _SPECIAL[name](told, texts)
    if told.layer == "broker":
        return None
    return _call(name, told)


def _file(name: str, told: Denied, texts: Mapping[int, str], *, brokered: bool) -> str | None:
    if not texts or not all(text.startswith("/") and text.isprintable() for text in texts.values()):
        return None  # below a folder that only the process knows, or a name that is no text
    paths = [_in_order(text) for text in texts.values()]
    path, folders = paths[0], dict.fromkeys(map(posixpath.dirname, paths))
    way = ", via=Via.BROKER" if brokered else ""
    flags = told.args[_OPEN_FLAGS[name]] if name in _OPEN_FLAGS else 0
    changes = name in _CHANGES or bool(flags & os.O_CREAT)
    if "/" in (folders if changes else (path,)):
        return None  # it would grant everything
    kind, granted = ("write", list(folders)) if changes else ("write" if flags & _WRITES else "read", [path])
    if not all(_is_grantable(kind, each) for each in granted):
        return None
    return f"files=[{', '.join(f'fs.{kind}({each!r}{way})' for each in granted)}]"


def _is_grantable(kind: str, path: str) -> bool:
    """Whether a policy takes it: /proc it does not."""
    try:
        getattr(fs, kind)(path)
    except UsageError:
        return False
    return True


def _in_order(path: str) -> str:
    """posixpath.normpath leaves two slashes at the front: here they are one, as for the kernel."""
    return "/" + posixpath.normpath(path).lstrip("/")


def _call(name: str, told: Denied) -> str:
    if name in ATTACK_SHAPED:
        return f"syscalls=[{'dangerous_' + name!r}]"
    if name in _SELECTORS:
        index = _SELECTORS[name]
        value = told.args[index] & 0xFFFFFFFF
        return _rule(name, f"Arg({index}).int32 == {value:#x}")
    if name in _OPTIONS:
        level, option = int32(told.args[1]), int32(told.args[2])
        return _rule(name, f"(Arg(1).int32 == {level}) & (Arg(2).int32 == {option})")
    return f"syscalls=[{name!r}]"


def _rule(name: str, when: str) -> str:
    return f'syscalls=[seccomp.allow({name!r}, when={when}, reason="...")]'


def _execute(told: Denied, texts: Mapping[int, str]) -> str | None:
    text = texts.get(0, "")
    path = _in_order(text)
    if not text.startswith("/") or not text.isprintable() or path == "/" or not _is_grantable("execute", path):
        return None
    return f"files=[fs.execute({path!r})], processes=1"


def _children(told: Denied, _: Mapping[int, str]) -> str | None:
    flags = told.args[0]
    if flags & _CLONE_OTHER:
        return None
    return "threads=1" if flags & _CLONE_THREAD else "processes=1"


def _socket(told: Denied, _: Mapping[int, str]) -> str | None:
    family, kind = int32(told.args[0]), told.args[1] & 0xF
    if kind != socket.SOCK_STREAM:
        return None
    if family in (socket.AF_INET, socket.AF_INET6):
        return "network=[net.connect(host, port)]"
    return "network=[net.unix(path)]" if family == socket.AF_UNIX else None


def _address(texts: Mapping[int, str]) -> str | tuple[str, int] | None:
    text = texts.get(1, "")
    if text.startswith("/") and text.isprintable():
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or port == "0":
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def _connect(_: Denied, texts: Mapping[int, str]) -> str | None:
    address = _address(texts)
    if isinstance(address, str):
        return f"network=[net.unix({address!r})]"
    return f"network=[net.connect({address[0]!r}, {address[1]})]" if address else None


def _bind(_: Denied, texts: Mapping[int, str]) -> str | None:
    address = _address(texts)
    return f"network=[net.listen({address[1]})]" if isinstance(address, tuple) else None


def _nothing(_: Denied, __: Mapping[int, str]) -> None:
    """What else would be needed is not in the registers: which file's code is mapped, to whom a datagram goes."""


_SPECIAL: Final[Mapping[str, Callable[[Denied, Mapping[int, str]], str | None]]] = {
    "execve": _execute,
    "clone": _children,
    "fork": lambda told, texts: "processes=1",
    "vfork": lambda told, texts: "processes=1",
    "socket": _socket,
    "connect": _connect,
    "bind": _bind,
    **dict.fromkeys(("clone3", "execveat", "listen", "mmap", "mprotect", "pkey_mprotect", "sendto"), _nothing),
}
