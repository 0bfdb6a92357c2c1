"""Runs in: the process that asks; pure. "Can it ...?" in words, and what of the kernel the answer hangs on.

open PATH read|write|create|execute        as the worker's own open() or execve() of an absolute path
connect HOST:PORT                          a TCP connection
listen PORT                                a TCP socket that listens there
unix PATH                                  a connection to a Unix socket
CALL [NUMBER ...]                          a system call by name, with argument registers
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from bunri.errors import UsageError
from bunri.policy import _parse
from bunri.seccomp import is_known
from bunri.seccomp._names import check_name
from bunri.seccomp.program import six


class Access(Enum):
    """What is to be done with a path."""

    READ = "read"
    WRITE = "write"  # what is there
    CREATE = "create"  # what is not there yet
    EXECUTE = "execute"


@dataclass(frozen=True)
class OpenPath:
    path: str
    access: Access

    def __str__(self) -> str:
        return f"open {self.path} {self.access.value}"


@dataclass(frozen=True)
class Connect:
    host: str
    port: int

    def __str__(self) -> str:
        return f"connect {self.host}:{self.port}"


@dataclass(frozen=True)
class Listen:
    port: int

    def __str__(self) -> str:
        return f"listen {self.port}"


@dataclass(frozen=True)
class UnixSocket:
    path: str

    def __str__(self) -> str:
        return f"unix {self.path}"


@dataclass(frozen=True)
class SystemCall:
    name: str
    args: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *map(str, self.args)])


Question = OpenPath | Connect | Listen | UnixSocket | SystemCall

_FORMS = (
    '"open PATH read|write|create|execute", "connect HOST:PORT", "listen PORT", "unix PATH", "CALL [NUMBER ...]" '
    '(as "ptrace", "kill 1 9")'
)
_ADDRESS = re.compile(r"(?:\[([^\]]+)\]|([^:\s]+)):(\d+)")


def parse(text: str) -> Question:
    """A question from a line. UsageError with the forms there are, or the nearest name."""
    words = text.split()
    if not words:
        raise UsageError(f"an empty question. Ask {_FORMS}")
    reader = _READERS.get(words[0])
    # open, connect and listen are system calls as well: alone, they are asked about as such.
    if reader is not None and len(words) > 1:
        return reader(words[1:], text)
    return _call(words[0], words[1:])


def _open(words: list[str], text: str) -> Question:
    if len(words) == 1:
        words = [*words, "read"]
    *path, access = words
    try:
        wanted = Access(access)
    except ValueError:
        names = [each.value for each in Access]
        raise UsageError(
            f"{text!r}: {access!r} is nothing to do with a path. {_parse.nearest(access, names)}"
        ) from None
    return OpenPath(_absolute(" ".join(path), text), wanted)


def _absolute(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{text!r}: a worker stands in /. Write the whole path, as /etc/passwd")
    return posixpath.normpath("/" + path.lstrip("/"))


def _connect(words: list[str], text: str) -> Question:
    found = _ADDRESS.fullmatch(words[0]) if len(words) == 1 else None
    if found is None:
        raise UsageError(f"{text!r}: an address is HOST:PORT, as 10.0.0.1:22 or [::1]:22")
    return Connect(found[1] or found[2], _port(found[3], text))


def _listen(words: list[str], text: str) -> Question:
    return Listen(_port(" ".join(words), text))


def _port(word: str, text: str) -> int:
    if not word.isdecimal() or not 0 < int(word) < 65536:
        raise UsageError(f"{text!r}: {word!r} is no port. Write 1 to 65535")
    return int(word)


def _unix(words: list[str], text: str) -> Question:
    return UnixSocket(_absolute(" ".join(words), text))


def _call(name: str, words: list[str]) -> Question:
    name = name.removeprefix("dangerous_")
    if not is_known(name):
        try:
            check_name(name)
        except UsageError as fault:
            text = str(fault)
            raise UsageError(f"{text}{'' if text.endswith('?') else '.'} Ask {_FORMS}") from None
    try:
        args = tuple(int(word, 0) for word in words)
    except ValueError:
        raise UsageError(f"the arguments of {name} are numbers (0x... too), not {' '.join(words)!r}") from None
    six(args)
    return SystemCall(name, args)


_READERS: dict[str, Callable[[list[str], str], Question]] = {
    "open": _open,
    "connect": _connect,
    "listen": _listen,
    "unix": _unix,
}
