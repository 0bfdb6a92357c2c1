"""Runs in: nowhere; values only. Named groups of system calls: pledge's words, and systemd's sets.

    group("stdio")              a word of pledge(2)
    group("@system-service")    a set of systemd.exec(5), SystemCallFilter=
    allow("@stdio", ...)        in a rule both are written with "@"

pledge's words are bound to what the words *do*; a list of Linux calls can only come near. Ours hold to two rules:
`stdio` names nothing by path, makes no descriptor that reaches outside and sends none; and no word holds an
attack-shaped call. What needs its arguments looked at (fcntl, ioctl, prctl, mmap, clone, kill) must be narrowed by a
rule before the group: the first rule whose condition holds decides.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp._groups_systemd import SETS
from bunri.seccomp._names import arches, nearest, syscalls_of

_WORDS: Final[dict[str, str]] = {
    # Computing, memory, time, and use of descriptors that are already open. sendmsg and recvmsg can carry descriptors:
    # they are in sendfd and recvfd.
    "stdio": """
        read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek close close_range dup dup2 dup3
        fcntl fstat fsync fdatasync ftruncate getdents getdents64 sendfile copy_file_range fadvise64
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
        eventfd eventfd2 pipe pipe2 socketpair sendto recvfrom shutdown getsockname getpeername getsockopt
        brk mmap munmap mremap mprotect madvise mincore msync
        futex futex_waitv restart_syscall set_robust_list get_robust_list rseq membarrier set_tid_address arch_prctl
        rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack pause alarm
        getitimer setitimer timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4
        clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times
        getpid getppid gettid getuid geteuid getgid getegid getgroups getresuid getresgid getpgid getpgrp getsid
        getrusage getrlimit sched_yield sched_getaffinity getcpu umask uname sysinfo getrandom exit exit_group
    """,
    # Opening is checked by arguments (O_WRONLY ...) only for openat; openat2's flags are behind a pointer, so it is
    # in no word.
    "rpath": """
        open openat access faccessat faccessat2 stat lstat fstat newfstatat statx statfs fstatfs readlink readlinkat
        getcwd chdir fchdir getdents getdents64
    """,
    "wpath": "open openat access faccessat faccessat2 stat lstat fstat newfstatat statx truncate ftruncate fallocate",
    "cpath": """
        open openat creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat
    """,
    "dpath": "mknod mknodat",
    "fattr": """
        chmod fchmod fchmodat fchmodat2 utime utimes futimesat utimensat
        setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
    """,
    "chown": "chown lchown fchown fchownat",
    "flock": "flock fcntl",
    "tty": "ioctl",
    # pledge tells inet and unix apart by the domain; narrow socket() by Arg(0).int32 before the group.
    "inet": """
        socket connect bind listen accept accept4 sendto recvfrom getsockname getpeername getsockopt setsockopt shutdown
    """,
    "unix": """
        socket socketpair connect bind listen accept accept4 sendto recvfrom getsockname getpeername getsockopt
        setsockopt shutdown
    """,
    "sendfd": "sendmsg sendmmsg",
    "recvfd": "recvmsg recvmmsg",
    # clone with namespace flags and clone3 must have been decided before: `clone_rules`.
    "proc": """
        fork vfork clone clone3 wait4 waitid kill tkill tgkill pidfd_open pidfd_send_signal setpgid setsid getpriority
        setpriority rt_sigqueueinfo rt_tgsigqueueinfo
    """,
    "thread": """
        clone clone3 futex futex_waitv set_robust_list get_robust_list rseq rt_sigprocmask madvise mprotect mmap
        munmap exit gettid tgkill sched_yield sched_getaffinity membarrier
    """,
    "exec": "execve execveat",
    "prot_exec": "mmap mprotect",
    "id": """
        setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid setrlimit prlimit64 getpriority
        setpriority
    """,
    "settime": "settimeofday adjtimex clock_settime clock_adjtime",
}


def groups() -> tuple[str, ...]:
    """The names of all groups."""
    return (*_WORDS, *SETS, "@known")


@cache
def group(name: str) -> tuple[str, ...]:
    """The calls of a group, in alphabetical order, on any architecture. UsageError with the nearest name if there is
    none.

    Words of pledge may also be written with "@", as rules do.
    """
    if name == "@known":
        return tuple(sorted({call for arch in arches() for call in syscalls_of(arch)}))
    text = SETS.get(name) or _WORDS.get(name.removeprefix("@"))
    if text is None:
        raise UsageError(f"no group of system calls is named {name!r}{nearest(name, frozenset(groups()))}")
    calls: set[str] = set()
    for word in text.split():
        calls.update(group(word) if word.startswith("@") else (word,))
    return tuple(sorted(calls))
