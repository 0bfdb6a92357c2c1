"""Runs in: nowhere; values only. The rules of a worker's filter, section by section, each with its reason.

A section is what one kind of work needs. The first rule whose condition holds decides, so exceptions stand before what
they are exceptions from. Numbers are those of linux/*.h, the same on x86-64 and arm64.
"""

from __future__ import annotations

import errno

from bunri.plan.means import Means
from bunri.plan.needs import Shape
from bunri.policy import NetKind
from bunri.seccomp import Action, Arg, Condition, Rule, allow, deny, kill

PROT_EXEC, MAP_HUGETLB = 4, 0x40000
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
O_WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
O_CREAT, O_TMPFILE = 0o100, 0o20000000  # the bit of O_TMPFILE that is only its own
S_ISUID, S_ISGID = 0o4000, 0o2000
O_ASYNC = 0o20000
O_NOTIFICATION_PIPE = 0o200  # O_EXCL for pipe2: a watch queue
AF_UNIX, SOL_SOCKET, IPPROTO_TCP = 1, 1, 6
MSG_OOB, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_FASTOPEN, MSG_CMSG_CLOEXEC = 1, 0x40, 0x4000, 0x20000000, 0x40000000
_ORDERED_KIND, _ORDERED = 0xB, 1  # of a socket's kind: what SOCK_STREAM (1) and SOCK_SEQPACKET (5) have in common
WORD = 0xFFFFFFFF

_FUTEX_PLAIN = (0, 1, 3, 4, 5, 9, 10)  # WAIT WAKE REQUEUE CMP_REQUEUE WAKE_OP WAIT_BITSET WAKE_BITSET
_FUTEX_FLAGS = 128 | 256  # PRIVATE, CLOCK_REALTIME
# NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED FREE DONTFORK DOFORK HUGEPAGE NOHUGEPAGE DONTDUMP DODUMP WIPEONFORK
# KEEPONFORK COLD PAGEOUT POPULATE_READ POPULATE_WRITE. Not MERGEABLE (tells other pages' contents), REMOVE, HWPOISON.
_ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
_PRCTL_OWN_NAMES = (15, 16, 0x53564D41)  # SET_NAME GET_NAME SET_VMA
# GET_PDEATHSIG GET_DUMPABLE GET_KEEPCAPS GET_SECCOMP CAPBSET_READ GET_SECUREBITS GET_TIMERSLACK GET_NO_NEW_PRIVS
# GET_TID_ADDRESS (asked at a clone) GET_THP_DISABLE GET_MDWE
_PRCTL_READ = (2, 3, 7, 21, 23, 27, 30, 39, 40, 42, 66)
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_IS_SET = 47, 1
_FCNTL = (0, 1, 2, 3, 1030, 1032, 1034)  # DUPFD GETFD SETFD GETFL DUPFD_CLOEXEC GETPIPE_SZ GET_SEALS
_F_SETFL = 4
_FCNTL_LOCKS = (5, 6, 7, 36, 37, 38)
_FCNTL_TELLS = (8, 10, 15, 1024, 1026)  # SETOWN SETSIG SETOWN_EX SETLEASE NOTIFY: signals, and opens that wait
FIONBIO, FIONREAD, FIOCLEX, FIONCLEX = 0x5421, 0x541B, 0x5451, 0x5450
TCGETS, TCGETS2, TIOCGWINSZ, TIOCSTI, TIOCLINUX, TIOCSETD = 0x5401, 0x802C542A, 0x5413, 0x5412, 0x541C, 0x5423
FS_IOC_SETFLAGS, FS_IOC_SETVERSION, FS_IOC_FSSETXATTR = 0x40086602, 0x40087602, 0x401C5820
_SIOC, FIOSETOWN, SIOCSPGRP = 0x8900, 0x8901, 0x8902
_CLOCKS = tuple(range(12))  # the fixed ones; others are clocks of processes and of descriptors
_SOCKET_SET = (2, 7, 8, 9, 20, 21, 66, 67)  # REUSEADDR SNDBUF RCVBUF KEEPALIVE RCVTIMEO SNDTIMEO, and the _NEW ones
_SOCKET_GET = (3, 4, 7, 8, 9, 20, 21, 30, 38, 39, 66, 67)  # TYPE ERROR ... ACCEPTCONN PROTOCOL DOMAIN; not PEERPIDFD
_TCP = (1, 3, 4, 5, 6, 12, 18)  # NODELAY CORK KEEPIDLE KEEPINTVL KEEPCNT QUICKACK USER_TIMEOUT
_TCP_INFO = 11


def compute() -> list[Rule]:
    """The whole of Policy.compute()."""
    return [
        allow("read", "write", "rt_sigreturn", "exit", "exit_group", reason="the channel, and an end"),
        allow("brk", reason="refused, -ENOMEM would be taken for an address; the limit refuses it as it should be"),
    ]


def base(means: Means) -> list[Rule]:
    """What every Python worker needs: its channel, memory, locks, clocks, an end."""
    return [
        allow("read", "write", "readv", "writev", "close", "close_range", reason="use of descriptors it was given"),
        allow("lseek", "pread64", "pwrite64", "preadv", "pwritev", "fstat", reason="the same, at a position"),
        allow("dup", "dup2", "dup3", reason="copies of descriptors it has"),
        *_memory(means),
        *_own_process(means),
        *_time_and_waiting(),
        *_descriptor_flags(means),
    ]


def _memory(means: Means) -> list[Rule]:
    no_code = Arg(2).masked(PROT_EXEC) == 0
    change = ("mmap", "mprotect", "pkey_mprotect")
    mapping = (
        allow(*change, reason="memory, and code of the files that may be executed")
        if means.maps_code
        else allow(*change, when=no_code, reason="memory, but no code: nothing executable is granted")
    )
    huge = Arg(3).masked(MAP_HUGETLB) != 0
    return [
        deny("mmap", when=huge, reason="a pool that is the host's, and no limit's"),
        mapping,
        allow("brk", "munmap", "mremap", "msync", reason="memory"),
        allow("madvise", when=Arg(2).int32.one_of(*_ADVICE), reason="advice on its own pages that tells nothing back"),
        allow(
            "futex",
            when=Arg(1).masked(WORD & ~_FUTEX_FLAGS).one_of(*_FUTEX_PLAIN),
            reason="locks; the priority-inheriting kinds have been a way into the kernel",
        ),
        allow("set_robust_list", "rseq", "membarrier", "set_tid_address", reason="set up by the C library"),
    ]


def _own_process(means: Means) -> list[Rule]:
    own = (0, 1) if means.own_pids else (0,)
    rules = [
        allow("exit", "exit_group", "restart_syscall", reason="an end, and what the kernel resumes by itself"),
        allow("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", reason="its own signal handlers"),
        allow("rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait", "pause", reason="waiting for signals"),
        allow(
            *("getpid", "gettid", "getppid", "getpgrp", "getuid", "geteuid", "getgid", "getegid"),
            *("getresuid", "getresgid", "getgroups"),
            reason="who it is",
        ),
        allow("getcwd", reason="where it is: a worker in /, which it cannot leave without files"),
        allow("uname", "sysinfo", "getrandom", "getcpu", "umask", "getrusage", "times", reason="facts about itself"),
        allow("getpgid", "getsid", when=Arg(0).int32.one_of(*own), reason="its own group"),
        allow("prlimit64", when=Arg(0).int32.one_of(*own), reason="its own limits, and never another's (THREATS 4)"),
        allow("getrlimit", "setrlimit", reason="its own limits; hard ones only fall"),
        allow("sched_getaffinity", when=Arg(0).int32.one_of(*own), reason="how many processors it may use"),
        allow("sched_yield", reason="lets others run"),
        allow(
            "prctl",
            when=Arg(0).int32.one_of(*_PRCTL_OWN_NAMES, *_PRCTL_READ),
            reason="names of its threads and memory, and reading; no PDEATHSIG, DUMPABLE, PTRACER (THREATS 22)",
        ),
        allow(
            "prctl",
            when=(Arg(0).int32 == _PR_CAP_AMBIENT) & (Arg(1).int32 == _PR_CAP_AMBIENT_IS_SET),
            reason="reading the ambient set",
        ),
    ]
    return rules + _signals(means)


def _signals(means: Means) -> list[Rule]:
    """Signals to itself. In a pid namespace of its own it is process 1, and nobody outside has a number there."""
    if means.own_pids and (means.policy.processes or means.needs.shape is Shape.PROGRAM):
        return [allow("kill", "tkill", "tgkill", reason="every process it can name is its own")]
    if means.own_pids:
        return [
            allow("kill", when=Arg(0).int32.one_of(0, 1), reason="itself: it is process 1 of its namespace"),
            allow("tgkill", when=Arg(0).int32 == 1, reason="its own threads: abort() and raise()"),
        ]
    return []


def _time_and_waiting() -> list[Rule]:
    return [
        allow(
            *("clock_gettime", "clock_getres", "clock_nanosleep"),
            when=Arg(0).int32.one_of(*_CLOCKS),
            reason="clocks, but not those of other processes",
        ),
        allow("gettimeofday", "time", "nanosleep", "alarm", "getitimer", "setitimer", reason="time"),
        allow("poll", "ppoll", "select", "pselect6", reason="waiting for its descriptors"),
    ]


def _descriptor_flags(means: Means) -> list[Rule]:
    not_a_terminal = Action.errno(errno.ENOTTY)
    rules = [
        allow("fcntl", when=Arg(1).int32.one_of(*_FCNTL), reason="flags and copies of its own descriptors"),
        allow(
            "fcntl",
            when=(Arg(1).int32 == _F_SETFL) & (Arg(2).masked(O_ASYNC) == 0),
            reason="non-blocking; O_ASYNC would send signals",
        ),
        allow("ioctl", when=Arg(1).int32.one_of(FIONBIO, FIONREAD, FIOCLEX, FIONCLEX), reason="flags, bytes waiting"),
    ]
    if means.needs.shape is not Shape.PROGRAM:
        terminal = Arg(1).int32.one_of(TCGETS, TCGETS2, TIOCGWINSZ)
        reason = "open() asks whether it is a terminal; it never is"
        rules.append(deny("ioctl", with_=not_a_terminal, when=terminal, reason=reason))
    return rules


def metadata(means: Means) -> list[Rule]:
    """The C library's fstat is newfstatat with an empty path, and no filter sees that the path is empty."""
    if means.kernel_files or means.own_names:
        return [
            allow("newfstatat", "statx", "stat", "lstat", reason="metadata of granted files"),
            allow("access", "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd", reason="looking up paths"),
            allow("statfs", "fstatfs", reason="free space of granted places"),
        ]
    if means.hides_tree:
        empty = allow("newfstatat", when=Arg(3).int32 == AT_EMPTY_PATH, reason="fstat; its root holds nothing to find")
        return [empty]
    if means.needs.files or means.needs.receives_descriptors or means.brokered_files:
        by_descriptor = (Arg(3).int32 == AT_EMPTY_PATH) & (Arg(0).int32 != AT_FDCWD)
        return [allow("newfstatat", when=by_descriptor, reason="fstat of handed files")]
    return []


def attributes(means: Means) -> list[Rule]:
    """Extended attributes cannot be read. EPERM would end what copies files or lists them; this is the answer of a file system
    that has none, with which they go on (getxattr(2), listxattr(2))."""
    if not means.policy.files:
        return []
    calls = ("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr")
    return [deny(*calls, with_=Action.errno(errno.EOPNOTSUPP), reason="no attributes, as on file systems without them")]


def set_ids(means: Means) -> list[Rule]:
    """No file that it leaves behind lets others act as its user: the bits that do so are refused wherever a mode is
    given, as by systemd's RestrictSUIDSGID=. Its own mounts heed them no more (nosuid), but the host's do."""
    if not (means.kernel_files or means.own_names):
        return []
    reason = "set-user-ID and set-group-ID files, which others could execute"

    def gives(mode: int, flags: int | None = None) -> Condition:
        given = Arg(mode).masked(S_ISUID | S_ISGID) != 0
        return given if flags is None else given & (Arg(flags).masked(O_CREAT | O_TMPFILE) != 0)

    return [
        deny("openat2", with_=Action.errno(errno.ENOSYS), reason="its mode is behind a pointer; openat does"),
        deny("chmod", "fchmod", "creat", "mknod", when=gives(1), reason=reason),
        deny("fchmodat", "fchmodat2", "mknodat", when=gives(2), reason=reason),
        deny("open", when=gives(2, flags=1), reason=reason),
        deny("openat", when=gives(3, flags=2), reason=reason),
    ]


def pairs(means: Means) -> list[Rule]:
    """A pair of datagram sockets is a way to every other: each of its sends may name an address (THREATS 13). Streams and
    sequenced packets know their peer only."""
    asked = means.needs.shape is Shape.PROGRAM or means.lets_through("socketpair")
    if not asked or means.host_network or means.grants_sockets:
        return []
    other = (Arg(0).int32 != AF_UNIX) | (Arg(1).masked(_ORDERED_KIND) != _ORDERED)
    reason = "pairs that could send elsewhere, and families that are none of a machine's own"
    return [deny("socketpair", when=other, reason=reason)]


def connecting_sends(means: Means) -> list[Rule]:
    """TCP's fast open: a send with an address that connects. connect(2) is what a broker answers and Landlock knows; neither
    hears of this (tcp(7), sendto(2)). An address beside it means nothing on sockets that are connected."""
    if not (means.brokered_network or means.needs.shape is Shape.PROGRAM) or means.host_network:
        return []
    reason = "a send that connects, past the broker"
    return [
        deny("sendto", "sendmmsg", when=Arg(3).masked(MSG_FASTOPEN) != 0, reason=reason),
        deny("sendmsg", when=Arg(2).masked(MSG_FASTOPEN) != 0, reason=reason),
    ]


def files(means: Means) -> list[Rule]:
    """Opening, where something is granted; the root and Landlock say what."""
    if not (means.kernel_files or means.own_names):
        return []
    rules = [
        *_opening(means),
        allow("getdents64", "getdents", "chdir", reason="granted directories"),
        allow("fadvise64", "readahead", reason="reading ahead"),
    ]
    return rules + (_writing(means) if any(grant.writable for grant in means.kernel_files) else [])


def _opening(means: Means) -> list[Rule]:
    if any(grant.writable or grant.kind.value == "system" for grant in means.kernel_files):
        return [allow("openat", "open", "creat", reason="granted files; what may be written says the root")]
    return [
        allow("openat", when=Arg(2).masked(O_WRITING) == 0, reason="granted files, for reading"),
        allow("open", when=Arg(1).masked(O_WRITING) == 0, reason="granted files, for reading"),
    ]


def _writing(means: Means) -> list[Rule]:
    rules = [
        allow("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", reason="fs.write or fs.scratch"),
        allow("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", reason="fs.write"),
        allow("truncate", "fallocate", "copy_file_range", "sendfile", "sync_file_range", reason="fs.write"),
        allow("flock", reason="locks on files that it may write"),
        allow("fcntl", when=Arg(1).int32.one_of(*_FCNTL_LOCKS), reason="locks on files that it may write"),
    ]
    if means.hides_tree:  # Landlock does not see these: without a root of its own they would reach every path
        rules.append(allow("chmod", "fchmodat", "utime", "utimes", reason="its own files in its own root"))
        if means.needs.files:  # a handed file is not of its root: what it may be read for, it may not be changed for
            by_path = (Arg(1) != 0) & (Arg(3).masked(AT_EMPTY_PATH) == 0)
            rules.append(allow("utimensat", when=by_path, reason="its own files in its own root, by their names"))
        else:
            rules.append(allow("fchmod", "utimensat", reason="its own files in its own root"))
    return rules


def handed_files(means: Means) -> list[Rule]:
    if not (means.needs.writable_files or means.needs.files or means.writes_paths):
        return []
    return [allow("ftruncate", "fsync", "fdatasync", reason="handed files; without the right to write they refuse")]


def asynchronous(means: Means) -> list[Rule]:
    """An event loop: epoll, its timer and the bytes that wake it."""
    if not means.needs.asynchronous:
        return []
    return [
        allow("epoll_create1", "epoll_create", "epoll_ctl", reason="async def: the loop"),
        allow("epoll_wait", "epoll_pwait", "epoll_pwait2", reason="async def: the loop"),
        allow("eventfd2", "timerfd_create", "timerfd_settime", "timerfd_gettime", reason="async def: waking the loop"),
        *_plain_bytes("async def: the loop wakes itself through a socket pair"),
    ]


def _only(arg: int, flags: int) -> Condition:
    return Arg(arg).masked(WORD & ~flags) == 0


def _plain_bytes(reason: str) -> list[Rule]:
    """send and recv without an address and without a flag that means anything (THREATS 2)."""
    plain = MSG_DONTWAIT | MSG_NOSIGNAL
    return [
        allow("sendto", when=(Arg(4) == 0) & _only(3, plain), reason=reason),
        allow("recvfrom", when=_only(3, plain), reason=reason),
    ]


def handles(means: Means) -> list[Rule]:
    """Messages that carry descriptors."""
    plain = MSG_DONTWAIT | MSG_NOSIGNAL
    rules: list[Rule] = []
    if means.needs.receives_descriptors:
        rules.append(allow("recvmsg", when=_only(2, plain | MSG_CMSG_CLOEXEC), reason="handles may come with messages"))
    if means.needs.sends_descriptors:
        rules.append(allow("sendmsg", when=_only(2, plain), reason="handles may go with messages"))
    return rules


def sockets(means: Means) -> list[Rule]:
    """Handed sockets do I/O and nothing else: no connect, bind, listen, and options off a list (THREATS 2)."""
    needs = means.needs
    if not (needs.stream_sockets or needs.datagram_sockets or needs.listening_sockets or means.brokered_network):
        return []
    rules = [
        *_plain_bytes("handed sockets do I/O"),
        allow("shutdown", "getsockname", "getpeername", reason="handed sockets"),
        allow(
            "setsockopt",
            when=((Arg(1).int32 == SOL_SOCKET) & Arg(2).int32.one_of(*_SOCKET_SET))
            | ((Arg(1).int32 == IPPROTO_TCP) & Arg(2).int32.one_of(*_TCP)),
            reason="time-outs, buffers and TCP's timing; no SO_LINGER, which holds a close (THREATS 18)",
        ),
        allow(
            "getsockopt",
            when=((Arg(1).int32 == SOL_SOCKET) & Arg(2).int32.one_of(*_SOCKET_GET))
            | ((Arg(1).int32 == IPPROTO_TCP) & Arg(2).int32.one_of(*_TCP, _TCP_INFO)),
            reason="kind, error, buffers; no SO_PEERPIDFD",
        ),
    ]
    if needs.listening_sockets or any(grant.kind is NetKind.LISTEN for grant in means.connects):
        rules.append(allow("accept4", "accept", reason="it was handed a listening socket"))
    return rules


def host_network(means: Means) -> list[Rule]:
    if not means.host_network:
        return []
    return [
        allow("socket", "connect", "bind", "listen", "accept", "accept4", reason="net.dangerous_host()"),
        allow("sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", reason="net.dangerous_host()"),
        allow("getsockopt", "setsockopt", "getsockname", "getpeername", "shutdown", reason="net.dangerous_host()"),
    ]


def pipes(means: Means) -> list[Rule]:
    if not (means.policy.threads or means.policy.processes or means.needs.asynchronous):
        return []
    plain = Arg(1).masked(O_NOTIFICATION_PIPE) == 0
    return [
        allow("pipe2", when=plain, reason="between its own threads and processes; no watch queues"),
        allow("pipe", reason="the same"),
    ]


def children(means: Means) -> list[Rule]:
    """Beside clone itself: waiting, and executing where programs are granted."""
    rules: list[Rule] = []
    if means.policy.processes:
        rules.append(allow("wait4", "waitid", "setpgid", "setsid", reason="processes are granted"))
    if means.maps_code and (means.policy.processes or means.needs.shape is Shape.PROGRAM):
        rules.append(allow("execve", reason="programs are granted; no_new_privs and noexec bound them"))
        rules.append(allow("arch_prctl", reason="a program's loader sets up its thread pointer"))
    return rules


def program(means: Means) -> list[Rule]:
    """What ordinary programs use, where their own network is empty and their root has only what was granted."""
    if means.needs.shape is not Shape.PROGRAM:
        return []
    rules = [
        kill("ioctl", when=Arg(1).int32.one_of(TIOCSTI, TIOCLINUX), reason="they type on the user's terminal"),
        deny("ioctl", when=Arg(1).int32 == TIOCSETD, reason="line disciplines: kernel code that nothing else loads"),
        deny("ioctl", when=Arg(1).int32.one_of(FIOSETOWN, SIOCSPGRP), reason="signals to others"),
        allow("ioctl", reason="terminals and files of a program"),
        deny(
            *("memfd_create", "shmget", "shmat", "shmctl", "setpriority", "ioprio_set", "mlock", "mlockall", "mlock2"),
            reason="memory that no limit counts, and priorities",
        ),
        deny("clone", "fork", "vfork", reason="the groups below have them; what is granted stands before"),
        deny("fcntl", when=Arg(1).int32 == 1031, reason="F_SETPIPE_SZ: memory that no limit counts"),
        deny("fcntl", when=Arg(1).int32.one_of(*_FCNTL_TELLS), reason="signals to others, and others' opens that wait"),
        deny("pipe2", when=Arg(1).masked(O_NOTIFICATION_PIPE) != 0, reason="watch queues"),
        allow("@stdio", "@rpath", "@wpath", "@cpath", "@flock", "@thread", reason="ordinary programs"),
        allow("sendmsg", "recvmsg", reason="ordinary programs, on the pairs they make themselves"),
    ]
    if means.writes_paths:
        rules.append(allow("@fattr", reason="files that it may write"))
    else:  # there is nothing but its streams, which it was given to read and write
        attributes = Arg(1).int32.one_of(FS_IOC_SETFLAGS, FS_IOC_SETVERSION, FS_IOC_FSSETXATTR)
        rules.insert(0, deny("ioctl", when=attributes, reason="attributes of files that are not its own"))
    if means.connects and not means.host_network:
        of_interfaces = Arg(1).masked(WORD & ~0xFF) == _SIOC
        rules.insert(
            0, deny("ioctl", when=of_interfaces, reason="interfaces of its broker's network, which is the host's")
        )
    if not means.connects:
        for call, flags in (("sendto", 3), ("recvfrom", 3), ("sendmsg", 2), ("recvmsg", 2)):
            urgent = Arg(flags).masked(MSG_OOB) != 0
            rules.insert(
                0, deny(call, when=urgent, reason="urgent bytes on Unix sockets, a way into the kernel before")
            )
    return rules
