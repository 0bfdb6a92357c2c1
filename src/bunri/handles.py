"""Runs in: every process. Handles: what crosses as a descriptor, and secrets.

An argument is lent: the receiver gets a copy of its own, the sender still closes what it has. A result is moved: it is closed on the sender's side
once it was sent.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import warnings
from _operator import _compare_digest  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

from bunri.errors import UsageError
from bunri.kernel.mapping import shared
from bunri.policy import Access
from bunri.wire.registry import HandleKind, register_handle

MODES: Final = {
    "r": os.O_RDONLY, "rb": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND, "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL, "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "r+": os.O_RDWR, "r+b": os.O_RDWR, "rb+": os.O_RDWR,
}  # fmt: skip
# hmac.compare_digest, without the OpenSSL that hmac brings into every worker.
_is_same = cast(Callable[[bytearray, bytearray], bool], _compare_digest)
_O_PATH: Final = 0o10000000


class File:
    """A descriptor that is not a socket: a file, a pipe, an eventfd. Owns it, and closes it.

    `File.open(path, mode)` opens one here, with this process's rights; `File(fd)` takes over a descriptor that is open.
    A directory is refused: its descriptor is a way out of every root (THREATS 1).
    """

    def __init__(self, fd: int) -> None:
        self._fd = -1
        _refuse_no_number("File", fd)
        refuse_directory(fd)
        self._fd = fd

    @classmethod
    def open(cls, path: str | os.PathLike[str], mode: str = "rb") -> Self:
        """Open `path`. Modes: r, w, a, x, r+ (with or without b). OSError as open(2) says."""
        flags = MODES.get(mode)
        if flags is None:
            raise UsageError(
                f"File.open({os.fspath(path)!r}, {mode!r}): no such mode. Write one of {', '.join(m for m in MODES if 'b' not in m)}"
            )
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
        try:
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def fileno(self) -> int:
        """The descriptor. ValueError when it is closed."""
        if self._fd < 0:
            raise ValueError("the File is closed")
        return self._fd

    def as_file(self) -> BinaryIO:
        """A buffered binary file on the descriptor, which it takes over: this File is closed by it."""
        fd, self._fd = self.fileno(), -1
        flags = os.O_ACCMODE & _status_flags(fd)
        mode = {os.O_RDONLY: "rb", os.O_WRONLY: "wb"}.get(flags)
        if mode is None:
            mode = "r+b" if stat.S_ISREG(os.fstat(fd).st_mode) else "wb"
        return cast(BinaryIO, os.fdopen(fd, mode))

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Close the descriptor; again is allowed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<File: closed>" if self._fd < 0 else f"<File: descriptor {self._fd}>"

    def __reduce__(self) -> Any:
        raise UsageError(
            "a File cannot be pickled: a descriptor is this process's own. Pass it as an argument of a worker's method"
        )

    def __del__(self) -> None:
        if self._fd >= 0:
            try:  # the warning may be an error, and the descriptor is to be closed all the same
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:
                self.close()


class Mapped:
    """A mapping without its descriptor: `length` bytes of `fd`, for a constructor argument only.

    bunri maps it in the worker and closes the descriptor there before any code of the worker runs. `Access.WRITE` maps it shared and writable.
    """

    def __init__(self, fd: int, length: int, access: Access = Access.READ) -> None:
        if fd != -1:  # the receiver's has none
            _refuse_no_number("Mapped", fd)
        if isinstance(length, bool) or not isinstance(cast(object, length), int) or length < 1:
            raise UsageError(f"Mapped(length={length!r}): at least one byte is mapped")
        if not isinstance(cast(object, access), Access):
            raise UsageError(f"Mapped(access={access!r}): write Access.READ or Access.WRITE")
        self._fd = fd
        self.length = length
        self.access = access
        self._map: mmap.mmap | None = None

    @classmethod
    def from_mapping(cls, mapping: mmap.mmap, access: Access) -> Mapped:
        """The receiver's: the mapping is made, the descriptor closed."""
        made = cls(-1, len(mapping), access)
        made._map = mapping
        return made

    def fileno(self) -> int:
        """The descriptor, where it was not yet mapped away."""
        if self._fd < 0:
            raise ValueError("a mapping has no descriptor any more")
        return self._fd

    @property
    def buffer(self) -> memoryview:
        """The bytes. In the sender they are mapped at the first use."""
        if self._map is None:
            self._map = shared(self._fd, self.length, writable=self.access is Access.WRITE)
        view = memoryview(self._map)
        return view if self.access is Access.WRITE else view.toreadonly()

    def __repr__(self) -> str:
        return f"<Mapped: {self.length} bytes, {self.access.value}>"

    def __reduce__(self) -> Any:
        raise UsageError("a Mapped cannot be pickled: it is this process's memory. Pass it to a worker's constructor")


class Secret:
    """Bytes that are not shown: `repr` is ***, comparison takes constant time, `wipe` overwrites them."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray | str) -> None:
        if not isinstance(cast(object, data), bytes | bytearray | str):  # of a number, bytearray makes so many zeros
            raise UsageError(f"Secret takes bytes or a str, not a {type(data).__qualname__}")
        self._data = bytearray(data.encode() if isinstance(data, str) else data)

    def reveal(self) -> bytearray:
        """The bytes themselves, not a copy: overwrite them when done."""
        return self._data

    def wipe(self) -> None:
        """Overwrite with zeros. Copies that Python or a library made elsewhere stay."""
        self._data[:] = bytes(len(self._data))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and _is_same(self._data, other._data)

    def __hash__(self) -> int:
        raise TypeError("a Secret has no hash: it would tell something of the bytes")

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> Any:
        raise UsageError("a Secret cannot be pickled. Pass it as an argument of a method that takes bunri.Secret")


def _refuse_no_number(what: str, fd: int) -> None:
    if isinstance(fd, bool) or not isinstance(cast(object, fd), int) or fd < 0:
        raise UsageError(f"{what}({fd!r}): the number of a descriptor is meant. To open a path write File.open(path)")


def refuse_directory(fd: int) -> None:
    """UsageError for a descriptor that is no File: one that names a place, or a socket."""
    refuse_place(fd)
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise UsageError("a File is not for sockets: hand a socket.socket over as it is")


def refuse_place(fd: int) -> None:
    """UsageError for a descriptor that names a place: of a directory, or opened with O_PATH (THREATS 1)."""
    if stat.S_ISDIR(os.fstat(fd).st_mode) or _status_flags(fd) & _O_PATH:
        raise UsageError(
            "the descriptor of a directory (or an O_PATH one) is a way out of every root: openat(fd, '../..') leaves it. "
            "Open the file here and hand that over, or grant the directory with fs.read(path)"
        )


def _status_flags(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL)


register_handle(File, HandleKind.FILE)
register_handle(Mapped, HandleKind.MAPPED)
register_handle(Secret, HandleKind.SECRET)
