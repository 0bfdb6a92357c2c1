"""Runs in: every process. What a descriptor is, and closing many (close_range(2))."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import stat
from collections.abc import Iterable

from bunri.kernel._call import failure, function, syscall

LAST = 0xFFFFFFFF

PROC_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
CGROUP_MAGIC, CGROUP2_MAGIC = 0x27E0EB, 0x63677270
FUSE_MAGIC = 0x65735546
TMPFS_MAGIC = 0x01021994
NSFS_MAGIC = 0x6E736673
PIDFS_MAGIC = 0x50494446

_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)

_BY_TYPE = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "block device",
    stat.S_IFLNK: "link",
}
_BY_MAGIC = {NSFS_MAGIC: "namespace", PIDFS_MAGIC: "pidfd"}
_ANONYMOUS = "anon_inode:"
_ACCESS = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}


def kind_of(fd: int) -> str:
    """file, directory, socket, pipe, device, block device, link, namespace, pidfd, or the kernel's name of an anonymous
    one: eventfd, eventpoll, timerfd, signalfd, seccomp notify, io_uring, ... ("anonymous" where there is no /proc to
    ask)."""
    info = os.fstat(fd)
    kind = _BY_TYPE.get(stat.S_IFMT(info.st_mode))
    if kind == "file":
        return _BY_MAGIC.get(filesystem_magic(fd), kind)
    if kind is not None:
        return kind
    try:
        return kind_of_link(os.readlink(f"/proc/self/fd/{fd}")) or "anonymous"
    except FileNotFoundError:
        return "anonymous"


def kind_of_mode(mode: int) -> str | None:
    """The kind that a file mode tells; None for an anonymous inode."""
    return _BY_TYPE.get(stat.S_IFMT(mode))


def kind_of_link(link: str) -> str | None:
    """The kind that the text of a /proc/PID/fd link tells; None for a path."""
    if link.startswith(_ANONYMOUS):
        return link[len(_ANONYMOUS) :].strip("[]")
    for prefix, kind in (("socket:", "socket"), ("pipe:", "pipe"), ("/memfd:", "file")):
        if link.startswith(prefix):
            return kind
    return None


def flags_of(fd: int) -> int:
    """fcntl(F_GETFL)."""
    return fcntl.fcntl(fd, fcntl.F_GETFL)


def access_of_flags(flags: int) -> str:
    """r, w, rw, or path for an O_PATH descriptor."""
    return "path" if flags & os.O_PATH else _ACCESS.get(flags & os.O_ACCMODE, "none")


def access_of(fd: int) -> str:
    """The access mode of a descriptor, as `access_of_flags` says it."""
    return access_of_flags(flags_of(fd))


def filesystem_magic(fd: int) -> int:
    """fstatfs(2): which kind of file system it lies on."""
    buffer = (ctypes.c_long * 32)()
    if _fstatfs(fd, buffer) != 0:
        raise failure("fstatfs")
    return buffer[0] & 0xFFFFFFFF


def open_numbers() -> tuple[int, ...]:
    """The open descriptors of this process. Needs /proc."""
    numbers = sorted(map(int, os.listdir("/proc/self/fd")))
    return tuple(number for number in numbers if _is_open(number))  # the listing had a descriptor of its own


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def duplicate_above(fd: int, least: int) -> int:
    """A copy with a number of at least `least`, closed on exec."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)


def refuse_without_room(count: int, some: int) -> None:
    """OSError (EMFILE) where so many more descriptors are not to be had. `some`: one that is open.

    Where it is not known how many are open, and where these may be too many, it is tried."""
    if 0 < _how_many() <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - count:
        return
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.dup(some))
    finally:
        for number in taken:
            os.close(number)


def _how_many() -> int:
    """How many descriptors this process has; 0 where nobody says so (before Linux 6.2, or without /proc)."""
    try:
        return os.stat("/proc/self/fd").st_size
    except OSError:
        return 0


def close_range(first: int, last: int = LAST) -> None:
    """close_range(2), both ends included (Linux 5.9)."""
    syscall("close_range", first, last, 0)


def close_all_but(keep: Iterable[int]) -> None:
    """Close everything else. Where close_range is hidden, by the list in /proc; OSError where there is neither."""
    kept = sorted(set(keep))
    try:
        first = 0
        for number in kept:
            if first < number:
                close_range(first, number - 1)
            first = number + 1
        close_range(first)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        for number in set(open_numbers()) - set(kept):
            os.close(number)
