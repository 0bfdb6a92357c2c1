"""Runs in: every process. Landlock (landlock(7)): a process refuses itself access rights, for ever.

Which right came with which ABI stands here, for the headers of distributions stop years before the kernels they run on.
`restrict_self` binds the calling thread only, and its later children.
"""

from __future__ import annotations

import ctypes
import os

from bunri.kernel._call import syscall

FS_EXECUTE = 1 << 0
FS_WRITE_FILE = 1 << 1
FS_READ_FILE = 1 << 2
FS_READ_DIR = 1 << 3
FS_REMOVE_DIR = 1 << 4
FS_REMOVE_FILE = 1 << 5
FS_MAKE_CHAR = 1 << 6
FS_MAKE_DIR = 1 << 7
FS_MAKE_REG = 1 << 8
FS_MAKE_SOCK = 1 << 9
FS_MAKE_FIFO = 1 << 10
FS_MAKE_BLOCK = 1 << 11
FS_MAKE_SYM = 1 << 12
FS_REFER = 1 << 13
FS_TRUNCATE = 1 << 14
FS_IOCTL_DEV = 1 << 15

NET_BIND_TCP = 1 << 0
NET_CONNECT_TCP = 1 << 1

SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
SCOPE_SIGNAL = 1 << 1

RESTRICT_LOG_SAME_EXEC_OFF = 1 << 0
RESTRICT_LOG_NEW_EXEC_ON = 1 << 1
RESTRICT_LOG_SUBDOMAINS_OFF = 1 << 2
RESTRICT_TSYNC = 1 << 3

# A rule on something that is not a directory may carry only these: the kernel answers EINVAL to the others.
FILE_RIGHTS = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV

FS_SINCE: dict[int, int] = {1: (1 << 13) - 1, 2: FS_REFER, 3: FS_TRUNCATE, 5: FS_IOCTL_DEV}
NET_SINCE: dict[int, int] = {4: NET_BIND_TCP | NET_CONNECT_TCP}
SCOPES_SINCE: dict[int, int] = {6: SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL}
RESTRICT_SINCE: dict[int, int] = {
    7: RESTRICT_LOG_SAME_EXEC_OFF | RESTRICT_LOG_NEW_EXEC_ON | RESTRICT_LOG_SUBDOMAINS_OFF,
    8: RESTRICT_TSYNC,
}

_CREATE_VERSION = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2


class _RulesetAttr(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class _PortAttr(ctypes.Structure):
    _fields_ = [("access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def known(since: dict[int, int], abi: int) -> int:
    """The rights of one of the tables above that ABI `abi` has."""
    mask = 0
    for version, rights in since.items():
        if version <= abi:
            mask |= rights
    return mask


def abi() -> int:
    """The kernel's ABI. ENOSYS: not built in; EOPNOTSUPP: switched off at boot."""
    return syscall("landlock_create_ruleset", None, 0, _CREATE_VERSION)


def create_ruleset(*, fs: int = 0, net: int = 0, scoped: int = 0) -> int:
    """A ruleset's descriptor. E2BIG or EINVAL where the kernel's ABI does not know one of the rights."""
    attr = _RulesetAttr(fs, net, scoped)
    return syscall("landlock_create_ruleset", ctypes.byref(attr), ctypes.sizeof(attr), 0)


def allow_path(ruleset: int, fd: int, access: int) -> None:
    """Allow `access` on what `fd` stands for, and beneath it."""
    attr = _PathAttr(access, fd)
    syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, ctypes.byref(attr), 0)


def allow_port(ruleset: int, port: int, access: int) -> None:
    """Allow `access` (bind, connect) on a TCP port."""
    attr = _PortAttr(access, port)
    syscall("landlock_add_rule", ruleset, _RULE_NET_PORT, ctypes.byref(attr), 0)


def restrict_self(ruleset: int, flags: int = 0) -> None:
    """Enforce the ruleset on the calling thread. Needs no_new_privs or CAP_SYS_ADMIN."""
    syscall("landlock_restrict_self", ruleset, flags)


def open_for_rule(path: str) -> int:
    """A descriptor that names `path` and gives no access to it."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC)
