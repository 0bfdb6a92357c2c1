"""Runs in: a broker's process, as the subject. Opening beneath a directory that is held since the start (THREATS 11).

The threat: a name that leads elsewhere. "..", a symbolic link, a magic link of /proc, a mount, a hard link to a file of
somebody else's, a FIFO or a device whose opening does something; and a directory that others rename in meanwhile. So:

1. openat2(2) resolves beneath the held directory; what the kernel does in one step cannot be raced.
2. The name is opened with O_PATH first, which opens nothing: what it is decides fstat on that descriptor.
3. Then *that descriptor* is opened for the work, through /proc/self/fd: there is no second look-up of the name.
4. The kernel checks permissions of the process that does it, so that process is the subject, not root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from bunri.kernel import paths

STAYS: Final = paths.BENEATH | paths.NO_MAGICLINKS | paths.NO_XDEV
STRICT: Final = STAYS | paths.NO_SYMLINKS
_TRIES: Final = 8  # EAGAIN: somebody renames in the tree just now

_ALLOWED: Final = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    | os.O_NOCTTY | os.O_SYNC | os.O_DSYNC | os.O_NOATIME | 0o100000  # O_LARGEFILE
)  # fmt: skip
_KEPT: Final = os.O_ACCMODE | os.O_TRUNC | os.O_APPEND | os.O_SYNC | os.O_DSYNC
_ALWAYS: Final = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIN: Final = os.O_PATH | os.O_CLOEXEC
_CHANGES: Final = os.O_CREAT | os.O_TRUNC | os.O_APPEND

_own_descriptors = -1


class Refused(OSError):
    """What a check of ours refuses, and not the kernel."""


def refused(code: int) -> Refused:
    """The error for it."""
    return Refused(code, os.strerror(code))


def hold_own_descriptors() -> None:
    """Once, before /proc may be out of reach: the folder through which a pinned descriptor is opened again."""
    global _own_descriptors
    _own_descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class Tree:
    """A granted directory, or a granted file, held by an O_PATH descriptor.

    `writable`: may be changed. `links`: a symbolic link that stays beneath is followed, for reading; for writing none
    ever is.
    """

    def __init__(self, fd: int, *, writable: bool = False, links: bool = False) -> None:
        self.fd = fd
        self.writable = writable
        self.is_file = not stat.S_ISDIR(os.fstat(fd).st_mode)
        self._resolve = STAYS if links and not writable else STRICT

    def pin(self, name: bytes | str, flags: int = 0) -> int:
        """An O_PATH descriptor of `name` beneath: it names and opens nothing. `flags`: O_NOFOLLOW, or 0."""
        if self.is_file:
            if name not in (b"", ""):
                raise refused(errno.ENOTDIR)
            return os.dup(self.fd)
        return self._openat2(name or b".", _PIN | flags, 0, self._resolve)

    def open(self, name: bytes | str, flags: int, mode: int = 0o600) -> int:
        """A fresh descriptor of a regular file beneath, close-on-exec.

        EACCES: it is no regular file, or may not be changed; EPERM: it has another name or another owner, and was to
        be written; EXDEV, ELOOP: the name leads out.
        """
        if flags & ~_ALLOWED:
            raise refused(errno.EINVAL)
        changes = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & _CHANGES)
        if changes and not self.writable:
            raise refused(errno.EACCES)
        for _ in range(_TRIES):
            if flags & os.O_CREAT and not self.is_file:
                made = self._create(name, flags, mode)
                if made is not None:
                    return made
            try:
                return self._open_pinned(name, flags, changes)
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
        raise refused(errno.EAGAIN)

    def _create(self, name: bytes | str, flags: int, mode: int) -> int | None:
        """The new file; None where there is one already that may be opened."""
        wanted = flags & _KEPT | os.O_CREAT | os.O_EXCL | _ALWAYS
        try:
            return self._openat2(name, wanted, mode & 0o777, STRICT)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return None

    def _open_pinned(self, name: bytes | str, flags: int, changes: bool) -> int:
        pinned = self.pin(name, flags & os.O_NOFOLLOW)
        try:
            _refuse_other_kinds(os.fstat(pinned), changes)
            return open_again(pinned, flags & _KEPT | _ALWAYS)
        finally:
            os.close(pinned)

    def make_directory(self, name: bytes, mode: int) -> None:
        """mkdir beneath."""
        with self._parent(name) as (parent, last):
            os.mkdir(last, mode & 0o777, dir_fd=parent)

    def remove(self, name: bytes, *, directory: bool) -> None:
        """unlink, or rmdir, beneath."""
        with self._parent(name) as (parent, last):
            (os.rmdir if directory else os.unlink)(last, dir_fd=parent)

    def rename(self, name: bytes, other: Tree, new: bytes) -> None:
        """rename, from beneath this tree to beneath the other."""
        with self._parent(name) as (parent, last), other._parent(new) as (new_parent, new_last):
            os.rename(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)

    @contextmanager
    def _parent(self, name: bytes) -> Generator[tuple[int, bytes]]:
        """The folder in which `name` stands, by the same walk, and the last part of the name."""
        if not self.writable or self.is_file:
            raise refused(errno.EACCES)
        folder, _, last = name.rstrip(b"/").rpartition(b"/")
        if last in (b"", b".", b".."):
            raise refused(errno.EBUSY)
        parent = self._openat2(folder or b".", _PIN | os.O_DIRECTORY, 0, STRICT)
        try:
            yield parent, last
        finally:
            os.close(parent)

    def names(self, most: int) -> list[str]:
        """What is in the directory itself. EOVERFLOW where there is more; names that are no UTF-8 are left out."""
        top = open_again(self.fd, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found: list[str] = []
            with os.scandir(top) as entries:
                for entry in entries:
                    if len(found) >= most:
                        raise refused(errno.EOVERFLOW)
                    if _is_text(entry.name):
                        found.append(entry.name)
            return sorted(found)
        finally:
            os.close(top)

    def _openat2(self, name: bytes | str, flags: int, mode: int, resolve: int) -> int:
        for _ in range(_TRIES - 1):
            try:
                return paths.openat2(name, flags, dirfd=self.fd, mode=mode, resolve=resolve)
            except BlockingIOError:
                continue
        return paths.openat2(name, flags, dirfd=self.fd, mode=mode, resolve=resolve)


def _refuse_other_kinds(info: os.stat_result, changes: bool) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise refused(errno.EISDIR)
    if stat.S_ISLNK(info.st_mode):
        raise refused(errno.ELOOP)
    if not stat.S_ISREG(info.st_mode):
        raise refused(errno.EACCES)
    # A second name may be that of a file elsewhere, and another's file in our directory is a trap for us.
    if changes and (info.st_nlink != 1 or info.st_uid != os.geteuid()):
        raise refused(errno.EPERM)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def open_again(fd: int, flags: int) -> int:
    """A fresh descriptor of what this one stands for: no name is looked up."""
    return os.open(str(fd), flags | os.O_CLOEXEC, dir_fd=_own_descriptors)


def own_descriptors() -> int:
    """The descriptor that `hold_own_descriptors` opened."""
    return _own_descriptors
