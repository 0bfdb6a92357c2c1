"""Runs in: nowhere; values only. Grants of files: what stands in a worker's root, and what may be done there.

    fs.read("/usr/share/zoneinfo")      readable, never executable
    fs.write("/srv/ftp/alice", at="/")  its root is that directory (what chroot did)
    fs.execute("/usr/bin/git")          readable and executable
    fs.scratch("/tmp", "16M")           an empty file system of its own, of this size, gone with the worker
    fs.python()                         this interpreter's library
    fs.system()                         /usr with its merged links, the loader's cache, certificates, locales, time
    zones

Paths are absolute. Without a mount namespace a grant stands where it stands outside, so `at=` is refused there.
"""

from __future__ import annotations

import os
from enum import Enum

import msgspec

from bunri.errors import UsageError
from bunri.policy import _parse
from bunri.policy.words import Via

# What is never handed in as it is: these file systems lead to other processes (THREATS 4 and 12).
_NEVER = ("/proc",)


class FileKind(Enum):
    """What kind of grant."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"
    SCRATCH = "scratch"
    PYTHON = "python"
    SYSTEM = "system"


class FileGrant(msgspec.Struct, frozen=True):
    """One grant. `path` outside and `at` inside; a scratch has no path, python and system have neither."""

    kind: FileKind
    path: str = ""
    at: str = ""
    size: int = 0
    via: Via = Via.KERNEL

    @property
    def writable(self) -> bool:
        return self.kind in (FileKind.WRITE, FileKind.SCRATCH)

    @property
    def executable(self) -> bool:
        """Whether code may be mapped from it."""
        return self.kind in (FileKind.EXECUTE, FileKind.PYTHON, FileKind.SYSTEM)

    def __repr__(self) -> str:
        parts: list[str] = []
        if self.kind is FileKind.SCRATCH:
            parts = [repr(self.at), repr(_parse.show_size(self.size))]
        elif self.path:
            parts = [repr(self.path)]
            if self.at != self.path:
                parts.append(f"at={self.at!r}")
        if self.via is not Via.KERNEL:
            parts.append(f"via={self.via!r}")
        return f"fs.{self.kind.value}({', '.join(parts)})"


def read(path: str | os.PathLike[str], at: str | os.PathLike[str] | None = None, *, via: Via = Via.KERNEL) -> FileGrant:
    """`path`, and what lies beneath it, can be read; it stands at `at` (by default where it stands outside). noexec."""
    return _bind(FileKind.READ, path, at, via)


def write(
    path: str | os.PathLike[str], at: str | os.PathLike[str] | None = None, *, via: Via = Via.KERNEL
) -> FileGrant:
    """`path`, and what lies beneath it, can be read, changed, made and removed. noexec, nosuid, nodev."""
    return _bind(FileKind.WRITE, path, at, via)


def execute(path: str | os.PathLike[str], at: str | os.PathLike[str] | None = None) -> FileGrant:
    """`path`, and what lies beneath it, can be read and executed, and code can be mapped from it."""
    return _bind(FileKind.EXECUTE, path, at, Via.KERNEL)


def scratch(at: str | os.PathLike[str], size: str | int) -> FileGrant:
    """An empty file system of `size` at `at`, the worker's own. noexec. Gone when the worker is."""
    place = _parse.path(at, "fs.scratch(at)")
    if place == "/":
        raise UsageError('fs.scratch("/") would hide every other grant. Name a directory, as fs.scratch("/tmp", "16M")')
    amount = _parse.size(size, "fs.scratch(size)")
    if amount < 4096:
        raise UsageError(f"fs.scratch(size): {amount} bytes is less than one page. Write at least 4096")
    return FileGrant(FileKind.SCRATCH, at=place, size=amount)


def python() -> FileGrant:
    """The library of the interpreter that runs the program: for imports after confinement."""
    return FileGrant(FileKind.PYTHON)


def system() -> FileGrant:
    """/usr with its merged links, the loader's cache, certificates, locales, time zones and a few harmless devices."""
    return FileGrant(FileKind.SYSTEM)


def _bind(kind: FileKind, path: object, at: object, via: Via) -> FileGrant:
    source = _parse.path(path, f"fs.{kind.value}(path)")
    for never in _NEVER:
        if _parse.covers(never, source):
            raise UsageError(f"fs.{kind.value}({source!r}): {never} leads into other processes. No grant hands it in")
    place = source if at is None else _parse.path(at, f"fs.{kind.value}(at)")
    return FileGrant(kind, source, place, via=via)
