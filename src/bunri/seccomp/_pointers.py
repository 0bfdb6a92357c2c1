"""Runs in: nowhere; values only. Which arguments of the common calls are pointers, and to what.

A filter that compares a pointer's value looks right and checks nothing. The rules refuse it, by this table.
It lists what people try to compare: paths, addresses, structures, buffers. Addresses that are only places
(mmap, mprotect, munmap, madvise) may be compared and are not here; nor are arguments that are pointers for some
commands only (fcntl, ioctl, prctl).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_PATH: Final = "a path"
_ADDRESS: Final = "a socket address"
_LENGTH: Final = "a length"
_BUFFER: Final = "a buffer"
_VECTOR: Final = "a vector of buffers"
_MESSAGE: Final = "a message header"
_TIME: Final = "a time"
_SIGNALS: Final = "a set of signals"
_ATTRIBUTE: Final = "the name of an attribute"
_RESULT: Final = "a place for the result"
_STRUCTURE: Final = "a structure"
_STRINGS: Final = "a list of strings"

_TABLE: Final[dict[str, dict[int, str]]] = {
    # Paths first.
    **{
        name: {0: _PATH}
        for name in (
            "open",
            "creat",
            "access",
            "chdir",
            "chmod",
            "chown",
            "lchown",
            "chroot",
            "mkdir",
            "rmdir",
            "unlink",
            "mknod",
            "truncate",
            "umount2",
            "swapon",
            "swapoff",
            "acct",
            "mq_unlink",
        )
    },
    **{
        name: {1: _PATH}
        for name in (
            "openat",
            "faccessat",
            "faccessat2",
            "fchmodat",
            "fchmodat2",
            "fchownat",
            "mkdirat",
            "mknodat",
            "unlinkat",
            "name_to_handle_at",
            "open_tree",
            "open_tree_attr",
            "fspick",
            "mount_setattr",
            "inotify_add_watch",
        )
    },
    **{name: {0: _PATH, 1: _PATH} for name in ("link", "rename", "symlink", "pivot_root")},
    **{name: {1: _PATH, 3: _PATH} for name in ("linkat", "renameat", "renameat2", "move_mount")},
    **{name: {0: _PATH, 1: _RESULT} for name in ("stat", "lstat", "readlink", "statfs")},
    **{name: {1: _PATH, 2: _RESULT} for name in ("newfstatat", "readlinkat")},
    **{name: {0: _PATH, 1: _TIME} for name in ("utime", "utimes")},
    **{name: {1: _PATH, 2: _TIME} for name in ("utimensat", "futimesat")},
    **{name: {0: _PATH, 1: _ATTRIBUTE, 2: _BUFFER} for name in ("setxattr", "lsetxattr", "getxattr", "lgetxattr")},
    **{name: {0: _PATH, 1: _BUFFER} for name in ("listxattr", "llistxattr")},
    **{name: {0: _PATH, 1: _ATTRIBUTE} for name in ("removexattr", "lremovexattr")},
    **{name: {1: _ATTRIBUTE, 2: _BUFFER} for name in ("fsetxattr", "fgetxattr")},
    **{name: {1: _PATH, 3: _ATTRIBUTE} for name in ("setxattrat", "getxattrat", "removexattrat")},
    **{name: {1: _PATH, 3: _STRUCTURE} for name in ("listxattrat", "file_getattr", "file_setattr")},
    **{name: {0: "a name"} for name in ("memfd_create", "fsopen", "mq_open")},
    "mount": {0: _PATH, 1: _PATH, 2: "a name", 4: "options"},
    "symlinkat": {0: _PATH, 2: _PATH},
    "openat2": {1: _PATH, 2: _STRUCTURE},
    "statx": {1: _PATH, 4: _RESULT},
    "fstat": {1: _RESULT},
    "fstatfs": {1: _RESULT},
    "fremovexattr": {1: _ATTRIBUTE},
    "flistxattr": {1: _BUFFER},
    "execve": {0: _PATH, 1: _STRINGS, 2: _STRINGS},
    "execveat": {1: _PATH, 2: _STRINGS, 3: _STRINGS},
    "getcwd": {0: _BUFFER},
    "getdents": {1: _BUFFER},
    "getdents64": {1: _BUFFER},
    # Sockets.
    **{name: {1: _ADDRESS} for name in ("connect", "bind")},
    **{name: {1: _ADDRESS, 2: _LENGTH} for name in ("accept", "accept4", "getsockname", "getpeername")},
    "sendto": {1: _BUFFER, 4: _ADDRESS},
    "recvfrom": {1: _BUFFER, 4: _ADDRESS, 5: _LENGTH},
    **{name: {1: _MESSAGE} for name in ("sendmsg", "recvmsg", "sendmmsg")},
    "recvmmsg": {1: _MESSAGE, 4: _TIME},
    "setsockopt": {3: _BUFFER},
    "getsockopt": {3: _BUFFER, 4: _LENGTH},
    "socketpair": {3: _RESULT},
    # Reading and writing.
    **{name: {1: _BUFFER} for name in ("read", "write", "pread64", "pwrite64")},
    **{name: {1: _VECTOR} for name in ("readv", "writev", "preadv", "pwritev", "preadv2", "pwritev2", "vmsplice")},
    **{name: {0: _RESULT} for name in ("pipe", "pipe2")},
    "copy_file_range": {1: "an offset", 3: "an offset"},
    "sendfile": {2: "an offset"},
    "splice": {1: "an offset", 3: "an offset"},
    "getrandom": {0: _BUFFER},
    "poll": {0: _STRUCTURE},
    "ppoll": {0: _STRUCTURE, 2: _TIME, 3: _SIGNALS},
    "select": {1: _STRUCTURE, 2: _STRUCTURE, 3: _STRUCTURE, 4: _TIME},
    "pselect6": {1: _STRUCTURE, 2: _STRUCTURE, 3: _STRUCTURE, 4: _TIME, 5: _SIGNALS},
    "epoll_ctl": {3: _STRUCTURE},
    **{name: {1: _RESULT} for name in ("epoll_wait", "epoll_pwait", "epoll_pwait2")},
    # Processes, signals, time, limits.
    "clone": {2: _RESULT},  # parent_tid; the stack and tls are places, and their positions differ per architecture
    "clone3": {0: "a structure that holds the flags"},
    "wait4": {1: _RESULT, 3: _RESULT},
    "waitid": {2: _RESULT, 4: _RESULT},
    "futex": {0: "the futex word"},
    "rt_sigaction": {1: _STRUCTURE, 2: _RESULT},
    "rt_sigprocmask": {1: _SIGNALS, 2: _SIGNALS},
    "rt_sigsuspend": {0: _SIGNALS},
    "rt_sigtimedwait": {0: _SIGNALS, 1: _RESULT, 2: _TIME},
    "rt_sigqueueinfo": {2: _STRUCTURE},
    "rt_tgsigqueueinfo": {3: _STRUCTURE},
    "sigaltstack": {0: _STRUCTURE, 1: _RESULT},
    "nanosleep": {0: _TIME, 1: _RESULT},
    **{name: {1: _TIME} for name in ("clock_gettime", "clock_settime", "clock_getres")},
    "clock_nanosleep": {2: _TIME, 3: _RESULT},
    **{
        name: {1: _STRUCTURE}
        for name in ("getrlimit", "setrlimit", "sched_setparam", "sched_getparam", "sched_setattr", "sched_getattr")
    },
    "prlimit64": {2: _STRUCTURE, 3: _RESULT},
    "sched_setscheduler": {2: _STRUCTURE},
    "sched_setaffinity": {2: _BUFFER},
    "sched_getaffinity": {2: _BUFFER},
    "setgroups": {1: "a list of groups"},
    "capset": {0: _STRUCTURE, 1: _STRUCTURE},
    "capget": {0: _STRUCTURE, 1: _STRUCTURE},
    "seccomp": {2: _STRUCTURE},
    "bpf": {1: _STRUCTURE},
    "perf_event_open": {0: _STRUCTURE},
    "uname": {0: _RESULT},
    "sethostname": {0: _BUFFER},
    "process_vm_readv": {1: _VECTOR, 3: _VECTOR},
    "process_vm_writev": {1: _VECTOR, 3: _VECTOR},
}

POINTERS: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(_TABLE)
"""Call -> argument index -> what it points to."""
