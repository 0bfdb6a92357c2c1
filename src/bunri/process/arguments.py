"""Runs in: the monitor; pure. The registers of a system call as people read them (syscalls(2)).

Only calls whose arguments are known are decoded: of the others nothing is said, for how many registers count is not
known.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

_AT_FDCWD: Final = -100
_OPENS: Final = ("open", "openat")


def decoded(name: str | None, args: Sequence[int], texts: Mapping[int, str]) -> tuple[str, ...] | None:
    """One text per argument; None for a call that is not in the table. `texts`: what pointers led to, escaped."""
    shape = _SHAPES.get(name or "")
    if shape is None:
        return None
    kinds = shape.split()
    if name in _OPENS and not args[kinds.index("open")] & (os.O_CREAT | os.O_TMPFILE):
        kinds.remove("mode")  # nothing was put there
    found: list[str] = []
    for index, kind in enumerate(kinds):
        value = args[index]
        found.append(repr(texts[index]) if index in texts else _READERS[kind](value))
    return tuple(found)


def int32(value: int) -> int:
    """A C int out of a register."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _names(table: Mapping[str, int], value: int) -> str:
    found: list[str] = []
    for name, bits in table.items():
        if bits and value & bits == bits:
            found.append(name)
            value &= ~bits
    if value or not found:
        found.append(hex(value) if value else "0")
    return "|".join(found)


def _fd(value: int) -> str:
    return "AT_FDCWD" if int32(value) == _AT_FDCWD else str(int32(value))


def _opening(value: int) -> str:
    how = {os.O_RDONLY: "O_RDONLY", os.O_WRONLY: "O_WRONLY", os.O_RDWR: "O_RDWR"}.get(value & os.O_ACCMODE, "O_ACCMODE")
    rest = value & 0xFFFFFFFF & ~os.O_ACCMODE & ~0o100000  # O_LARGEFILE
    return f"{how}|{_names(_OPEN, rest)}" if rest else how


def _family(value: int) -> str:
    try:
        return socket.AddressFamily(int32(value)).name
    except ValueError:
        return str(int32(value))


def _socket_kind(value: int) -> str:
    kind = int32(value)
    try:
        name = socket.SocketKind(kind & 0xF).name
    except ValueError:
        name = str(kind & 0xF)
    rest = kind & ~0xF
    return f"{name}|{_names(_SOCKET, rest)}" if rest else name


def _signal(value: int) -> str:
    try:
        return signal.Signals(int32(value)).name
    except ValueError:
        return str(int32(value))


def _clone(value: int) -> str:
    flags, ends = value & 0xFFFFFF00, value & 0xFF
    parts = ([_names(_CLONE, flags)] if flags else []) + ([_signal(ends)] if ends else [])
    return "|".join(parts) or "0"


_OPEN: Final = {
    "O_TMPFILE": os.O_TMPFILE, "O_CREAT": os.O_CREAT, "O_EXCL": os.O_EXCL, "O_NOCTTY": os.O_NOCTTY,
    "O_TRUNC": os.O_TRUNC, "O_APPEND": os.O_APPEND, "O_NONBLOCK": os.O_NONBLOCK, "O_SYNC": os.O_SYNC,
    "O_DSYNC": os.O_DSYNC, "O_DIRECTORY": os.O_DIRECTORY, "O_NOFOLLOW": os.O_NOFOLLOW, "O_CLOEXEC": os.O_CLOEXEC,
    "O_PATH": os.O_PATH, "O_NOATIME": os.O_NOATIME, "O_ASYNC": os.O_ASYNC,
}  # fmt: skip
_SOCKET: Final = {"SOCK_CLOEXEC": socket.SOCK_CLOEXEC, "SOCK_NONBLOCK": socket.SOCK_NONBLOCK}
_PROT: Final = {"PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4}
_MAP: Final = {
    "MAP_SHARED": 0x01, "MAP_PRIVATE": 0x02, "MAP_FIXED": 0x10, "MAP_ANONYMOUS": 0x20, "MAP_DENYWRITE": 0x800,
    "MAP_LOCKED": 0x2000, "MAP_NORESERVE": 0x4000, "MAP_POPULATE": 0x8000, "MAP_STACK": 0x20000, "MAP_HUGETLB": 0x40000,
}  # fmt: skip
_CLONE: Final = {
    "CLONE_VM": 0x100, "CLONE_FS": 0x200, "CLONE_FILES": 0x400, "CLONE_SIGHAND": 0x800, "CLONE_PIDFD": 0x1000,
    "CLONE_PTRACE": 0x2000, "CLONE_VFORK": 0x4000, "CLONE_PARENT": 0x8000, "CLONE_THREAD": 0x10000,
    "CLONE_NEWNS": 0x20000, "CLONE_SYSVSEM": 0x40000, "CLONE_SETTLS": 0x80000, "CLONE_PARENT_SETTID": 0x100000,
    "CLONE_CHILD_CLEARTID": 0x200000, "CLONE_UNTRACED": 0x800000, "CLONE_CHILD_SETTID": 0x1000000,
    "CLONE_NEWCGROUP": 0x2000000, "CLONE_NEWUTS": 0x4000000, "CLONE_NEWIPC": 0x8000000, "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000, "CLONE_NEWNET": 0x40000000, "CLONE_IO": 0x80000000,
}  # fmt: skip
_REMOVE: Final = {"AT_REMOVEDIR": 0x200}
_AT: Final = {
    "AT_SYMLINK_NOFOLLOW": 0x100,
    "AT_SYMLINK_FOLLOW": 0x400,
    "AT_NO_AUTOMOUNT": 0x800,
    "AT_EMPTY_PATH": 0x1000,
}

_READERS: Final[Mapping[str, Callable[[int], str]]] = {
    "at": lambda value: _names(_AT, value & 0xFFFFFFFF),
    "bits": lambda value: hex(value & 0xFFFFFFFF),
    "clone": _clone,
    "family": _family,
    "fd": _fd,
    "int": lambda value: str(int32(value)),
    "kind": _socket_kind,
    "map": lambda value: _names(_MAP, value),
    "mode": lambda value: f"0{value & 0o7777:o}",
    "open": _opening,
    "pointer": lambda value: hex(value) if value else "NULL",
    "prot": lambda value: _names(_PROT, value),
    "remove": lambda value: _names(_REMOVE, value & 0xFFFFFFFF),
    "signal": _signal,
    "size": str,
}

_SHAPES: Final[Mapping[str, str]] = {
    # Paths.
    **dict.fromkeys(("access", "chmod", "mkdir", "creat"), "pointer mode"),
    **dict.fromkeys(("rmdir", "unlink", "chdir", "chroot", "swapoff", "acct"), "pointer"),
    **dict.fromkeys(("link", "rename", "symlink", "pivot_root", "stat", "lstat", "statfs", "utime", "utimes"), "pointer pointer"),
    **dict.fromkeys(("chown", "lchown"), "pointer int int"),
    **dict.fromkeys(("execve",), "pointer pointer pointer"),
    **dict.fromkeys(("faccessat", "mkdirat", "fchmodat"), "fd pointer mode"),
    **dict.fromkeys(("faccessat2", "fchmodat2"), "fd pointer mode at"),
    "open": "pointer open mode",
    "openat": "fd pointer open mode",
    "openat2": "fd pointer pointer size",
    "truncate": "pointer size",
    "readlink": "pointer pointer size",
    "readlinkat": "fd pointer pointer size",
    "newfstatat": "fd pointer pointer at",
    "statx": "fd pointer at bits pointer",
    "unlinkat": "fd pointer remove",
    "renameat": "fd pointer fd pointer",
    "renameat2": "fd pointer fd pointer bits",
    "linkat": "fd pointer fd pointer at",
    "symlinkat": "pointer fd pointer",
    "fchownat": "fd pointer int int at",
    "utimensat": "fd pointer pointer at",
    "mknod": "pointer mode bits",
    "mknodat": "fd pointer mode bits",
    "execveat": "fd pointer pointer pointer at",
    "mount": "pointer pointer pointer bits pointer",
    "umount2": "pointer bits",
    "memfd_create": "pointer bits",
    "inotify_add_watch": "fd pointer bits",
    # Descriptors.
    **dict.fromkeys(("fchmod",), "fd mode"),
    **dict.fromkeys(("flock", "ftruncate"), "fd int"),
    **dict.fromkeys(("getdents64", "getdents"), "fd pointer size"),
    "fchown": "fd int int",
    "fcntl": "fd int bits",
    "ioctl": "fd bits pointer",
    "inotify_init1": "bits",
    "eventfd2": "int bits",
    "pipe2": "pointer bits",
    "pipe": "pointer",
    # Sockets.
    **dict.fromkeys(("socket",), "family kind int"),
    **dict.fromkeys(("connect", "bind"), "fd pointer size"),
    "socketpair": "family kind int pointer",
    "listen": "fd int",
    **dict.fromkeys(("sendmsg", "recvmsg"), "fd pointer bits"),
    "sendto": "fd pointer size bits pointer size",
    "recvfrom": "fd pointer size bits pointer pointer",
    **dict.fromkeys(("accept", "getsockname", "getpeername"), "fd pointer pointer"),
    "accept4": "fd pointer pointer bits",
    **dict.fromkeys(("setsockopt", "getsockopt"), "fd int int pointer size"),
    "shutdown": "fd int",
    # Memory.
    "mmap": "pointer size prot map fd size",
    **dict.fromkeys(("mprotect",), "pointer size prot"),
    "pkey_mprotect": "pointer size prot int",
    **dict.fromkeys(("mlock", "munlock"), "pointer size"),
    "mlockall": "bits",
    "madvise": "pointer size int",
    # Processes.
    **dict.fromkeys(("fork", "vfork", "setsid"), ""),
    "clone": "clone pointer pointer pointer pointer",
    "unshare": "clone",
    "setns": "fd bits",
    "kill": "int signal",
    "tkill": "int signal",
    "tgkill": "int int signal",
    "pidfd_open": "int bits",
    "pidfd_send_signal": "fd signal pointer bits",
    "pidfd_getfd": "fd int bits",
    "ptrace": "int int pointer pointer",
    "process_vm_readv": "int pointer size pointer size bits",
    "process_vm_writev": "int pointer size pointer size bits",
    "prctl": "int bits bits bits bits",
    "seccomp": "int bits pointer",
    "bpf": "int pointer size",
    "perf_event_open": "pointer int int fd bits",
    "personality": "bits",
    "keyctl": "int bits bits bits bits",
    "setuid": "int", "setgid": "int",
    "setreuid": "int int", "setregid": "int int",
    "setresuid": "int int int", "setresgid": "int int int",
    "setgroups": "size pointer",
    "setpgid": "int int",
    "setpriority": "int int int",
    "prlimit64": "int int pointer pointer",
    "sched_setaffinity": "int size pointer",
    "wait4": "int pointer bits pointer",
    "waitid": "int int pointer bits pointer",
    # The machine.
    "sethostname": "pointer size",
    "shmget": "int size bits",
    "msgget": "int bits",
    "semget": "int int bits",
    "reboot": "bits bits bits pointer",
}  # fmt: skip
