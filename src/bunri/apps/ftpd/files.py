# pyright: basic, reportMissingTypeStubs=false, reportMissingModuleSource=false, reportIncompatibleMethodOverride=false
"""Runs in: the session worker, after confinement. The file system as a session shows it.

The kernel decides what can be reached: the root, the user, the filter. What stands here besides is what the
configuration asks for: hidden names, modes of new files, numbers instead of names of owners.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any

import bunri
from bunri.apps.ftpd.messages import Owners, Rights, Uploads
from bunri.apps.ftpd.patterns import matches
from bunri.apps.ftpd.upstream import AbstractedFS, FilesystemError

NEW = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
HOW = {"wb": NEW | os.O_TRUNC, "ab": NEW | os.O_APPEND, "r+b": os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK}
UNIQUE = 50  # names that STOU tries
CONTROL = re.compile(rb"[\0-\x1f\x7f]|\xc2[\x80-\x9f]")  # C0, DEL, and C1 in UTF-8


def has_control(name: str) -> bool:
    """Whether a name could end a line, or tell a terminal something."""
    return CONTROL.search(name.encode("utf-8", "surrogateescape")) is not None


def shown(line: bytes) -> bytes:
    """A line of a listing, which ends where its writer ended it: names that the machine's users made say nothing else."""
    return CONTROL.sub(b"?", line.removesuffix(b"\r\n")) + b"\r\n"


class NotStoredError(Exception):
    """A file could not be opened for an upload, and why."""


class Files(AbstractedFS):
    """The worker's own root."""

    def __init__(self, rights: Rights, handler: Any, uploads: Uploads | None, owners: Owners | None) -> None:
        super().__init__("/", handler)
        self._rights = rights
        self._uploads = uploads
        self._owners = owners
        self._users, self._groups = dict[int, str](), dict[int, str]()
        self.cwd = rights.start

    def validpath(self, path: str) -> bool:
        """There is nothing outside of the root."""
        return True

    def open(self, filename: str, mode: str) -> OpenFile:
        if mode == "rb":
            return self._open(filename, mode)
        try:
            return self._open(filename, mode)
        except (OSError, FilesystemError) as fault:
            raise NotStoredError(getattr(fault, "strerror", None) or str(fault)) from None

    def _open(self, filename: str, mode: str) -> OpenFile:
        """Regular files only: a device or a pipe would hang the session. New ones with the configured mode."""
        r = self._rights
        if mode == "rb":
            number = os.open(filename, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        elif mode == "wb" and not r.overwrites:
            number = self._new(filename)
        elif r.overwrites and self._uploads is not None and mode in ("wb", "ab"):
            number = self._new_or_old(filename, mode)
        elif r.overwrites:
            number = os.open(filename, HOW[mode], r.file_mode)
        else:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        try:
            info = os.fstat(number)
            if not stat.S_ISREG(info.st_mode):
                raise FilesystemError("Not a regular file")
            if mode == "rb" and r.world_readable_only and not info.st_mode & stat.S_IROTH:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            os.set_blocking(number, True)
            return OpenFile(number, mode, filename)
        except BaseException:
            os.close(number)
            raise

    def _new(self, filename: str) -> int:
        """A file that was not there, of whoever is to own it."""
        if self._uploads is None:
            return os.open(filename, NEW | os.O_EXCL, self._rights.file_mode)
        try:
            file = bunri.call(self._uploads.create, filename).result()
        except bunri.UsageError:  # no message carries it
            raise FilesystemError("The name is no UTF-8") from None
        with file:
            return os.dup(file.fileno())

    def _new_or_old(self, filename: str, mode: str) -> int:
        """What is there stays whose it is."""
        try:
            return self._new(filename)
        except FileExistsError:
            return os.open(filename, HOW[mode] & ~os.O_CREAT)

    def mkstemp(self, suffix: str = "", prefix: str = "", dir: str | None = None, mode: str = "wb") -> OpenFile:
        """For STOU: new as every other upload is, not for its owner alone as tempfile's are."""
        for _ in range(UNIQUE):
            name = os.path.join(dir or "", f"{prefix}{os.urandom(4).hex()}{suffix}")
            try:
                number = self._new(name)
            except FileExistsError:
                continue
            os.set_blocking(number, True)
            return OpenFile(number, mode, name)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def listdir(self, path: str) -> list[str]:
        return self._seen(os.listdir(path))

    def _seen(self, names: list[str]) -> list[str]:
        """Those that hide_file leaves. It hides from listings, and nothing from who asks for it by name."""
        return [name for name in names if not self.hides(name)]

    def hides(self, name: str) -> bool:
        return matches(self._rights.hide, name)

    def listed(self, path: str, flags: str) -> list[str]:
        """The names that LIST and NLST show."""
        names = self.listdir(path)
        return [".", "..", *names] if "a" in flags else [name for name in names if not name.startswith(".")]

    def below(self, path: str, flags: str) -> Iterable[tuple[str, list[str]]]:
        """The folder and, with -R where that is allowed, those beneath it, without following links."""
        names = sorted(self.listed(path, flags))
        yield path, names
        if "R" in flags and self._rights.recursive:
            for name in names:
                inner = os.path.join(path, name)
                if name not in (".", "..") and not os.path.islink(inner) and os.path.isdir(inner):
                    try:
                        yield from self.below(inner, flags)
                    except OSError:
                        continue  # it may not be read: ls(1) goes on, too

    def format_list(self, basedir: str, listing: list[str], ignore_err: bool = True) -> Iterator[bytes]:
        return map(shown, super().format_list(basedir, self._seen(listing), ignore_err))

    def format_mlsx(
        self, basedir: str, listing: list[str], perms: str, facts: list[str], ignore_err: bool = True
    ) -> Iterator[bytes]:
        return map(shown, super().format_mlsx(basedir, listing, perms, facts, ignore_err))

    def get_user_by_uid(self, uid: int) -> str:
        if self._owners is None:
            return "ftp" if self._rights.hide_ids else str(uid)
        if uid not in self._users:
            self._users[uid] = bunri.call(self._owners.user, uid).result()
        return self._users[uid]

    def get_group_by_gid(self, gid: int) -> str:
        if self._owners is None:
            return "ftp" if self._rights.hide_ids else str(gid)
        if gid not in self._groups:
            self._groups[gid] = bunri.call(self._owners.group, gid).result()
        return self._groups[gid]


class OpenFile(io.FileIO):
    """An open file that knows its name; the engine asks for it when the transfer has ended."""

    def __init__(self, number: int, mode: str, name: str) -> None:
        super().__init__(number, mode if mode != "ab" else "wb")  # O_APPEND is the descriptor's
        self.name: str = name

    def write(self, chunk: bytes | memoryview) -> int:  # type: ignore[override]
        """All of it: a raw file may take less, and the next try says why."""
        left = memoryview(chunk)
        while left:
            left = left[super().write(left) :]
        return len(chunk)
