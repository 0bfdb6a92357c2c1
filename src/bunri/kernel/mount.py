"""Runs in: every process. mount(2) and the calls of the newer mount interface (5.2 and later)."""

from __future__ import annotations

import ctypes
import os

from bunri.kernel._call import failure, function, syscall

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
REMOUNT, NOATIME, NODIRATIME = 32, 1024, 2048
BIND, REC, PRIVATE, SLAVE, RELATIME = 4096, 16384, 1 << 18, 1 << 19, 1 << 21

MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT, AT_EMPTY_PATH, AT_RECURSIVE = 0x100, 0x800, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_F_EMPTY_PATH, _MOVE_T_EMPTY_PATH = 0x4, 0x40

# mount attributes; the first four have the values of the mount(2) flags
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSYMFOLLOW = 1, 2, 4, 8, 0x200000

_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6

_mount = function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    ]


def _bytes(text: str | None) -> bytes | None:
    return os.fsencode(text) if text is not None else None


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    if _mount(_bytes(source), _bytes(target), _bytes(kind), flags, _bytes(data)) != 0:
        raise failure("mount", target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if _umount2(_bytes(target), flags) != 0:
        raise failure("umount2", target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2). EINVAL where the present root is the initial ramfs, or `new` is no mount point."""
    syscall("pivot_root", os.fsencode(new), os.fsencode(old), path=new)


def open_tree(path: str, *, flags: int, dirfd: int = AT_FDCWD) -> int:
    """open_tree(2); always close-on-exec."""
    return syscall("open_tree", dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC, path=path)


def clone_tree(path: str, *, dirfd: int = AT_FDCWD) -> int:
    """A detached copy of the mount at `path` with everything mounted beneath: it can be moved into place, or handed on.

    Its top cannot be left by "..". The descriptor itself is an O_PATH one.
    """
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | (AT_EMPTY_PATH if path == "" else 0)
    return open_tree(path, flags=flags, dirfd=dirfd)


def attach(tree: int, mount_point: int) -> None:
    """move_mount(2): the detached mount `tree` onto the file or directory that the descriptor `mount_point` names."""
    syscall("move_mount", tree, b"", mount_point, b"", _MOVE_F_EMPTY_PATH | _MOVE_T_EMPTY_PATH)


def set_attributes(fd: int, set_: int, *, clear: int = 0, recursive: bool = False, propagation: int = 0) -> None:
    """mount_setattr(2) on the mount that `fd` names (Linux 5.12)."""
    attr = _MountAttr(set_, clear, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", fd, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr))


def new_filesystem(kind: str, options: dict[str, str | None], attributes: int) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): a detached mount of a new file system. An option without a value is a
    flag."""
    context = syscall("fsopen", os.fsencode(kind), _FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            if value is None:
                syscall("fsconfig", context, _FSCONFIG_SET_FLAG, os.fsencode(key), None, 0)
            else:
                syscall("fsconfig", context, _FSCONFIG_SET_STRING, os.fsencode(key), os.fsencode(value), 0)
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall("fsmount", context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)
