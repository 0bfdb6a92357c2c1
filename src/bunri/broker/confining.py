"""Runs in: a broker's process, forked from the base zygote: takes what it is charged with, and gives up all the rest.

First, with the monitor's rights, the granted directories are opened, without reading anything in them: a grant is the
monitor's word, so the subject need not be able to walk there. Then the process becomes the subject, without any
capability but the one that a low port takes; Landlock and a filter bound it to what it was charged with, so that whoever
takes it over by the names it reads has no more than the worker was granted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from functools import cache
from typing import Final

import msgspec

from bunri import seccomp
from bunri.broker import beneath
from bunri.broker.beneath import Tree
from bunri.broker.messages import Charge, TreeGrant
from bunri.confine import Context, carry_out
from bunri.errors import HostError
from bunri.kernel import capability, landlock, memfd
from bunri.plan import steps as s
from bunri.policy.words import Capability
from bunri.seccomp import Action, Arg, allow

_MEMORY: Final = 128 << 20  # bytes above the image
_DESCRIPTORS: Final = 256
_LOW_PORT: Final = 1024
_READ: Final = landlock.FS_READ_FILE | landlock.FS_READ_DIR
_WRITE: Final = (
    landlock.FS_WRITE_FILE | landlock.FS_REMOVE_DIR | landlock.FS_REMOVE_FILE | landlock.FS_MAKE_DIR
    | landlock.FS_MAKE_REG | landlock.FS_REFER | landlock.FS_TRUNCATE
)  # fmt: skip
_CHANGING: Final = _WRITE | landlock.FS_MAKE_CHAR | landlock.FS_MAKE_SOCK | landlock.FS_MAKE_FIFO | \
    landlock.FS_MAKE_BLOCK | landlock.FS_MAKE_SYM  # fmt: skip


class Held(msgspec.Struct):
    """What a broker holds. `trees` stand in the order of the charge; None where an optional one does not exist.

    `sockets`: of each granted Unix socket the directory that it lies in, and its name there."""

    trees: list[Tree | None] = msgspec.field(default_factory=list[Tree | None])
    sockets: list[tuple[int, str]] = msgspec.field(default_factory=list[tuple[int, str]])
    texts: dict[str, int] = msgspec.field(default_factory=dict[str, int])

    def numbers(self) -> tuple[int, ...]:
        trees = (tree.fd for tree in self.trees if tree is not None)
        return (*trees, *(fd for fd, _ in self.sockets), *self.texts.values())


def take_hold(charge: Charge) -> Held:
    """Open what is granted. OSError with the path where one is not there."""
    held = Held()
    for grant in charge.trees:
        held.trees.append(_hold(grant))
    for path in charge.sockets:
        folder, name = os.path.split(path)
        held.sockets.append((os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name))
    for path, text in charge.texts:
        held.texts[path] = memfd.text("bunri text", text.encode())
    return held


def _hold(grant: TreeGrant) -> Tree | None:
    try:
        fd = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        if grant.optional:
            return None
        raise
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    if kind not in (stat.S_IFDIR, stat.S_IFREG):
        os.close(fd)
        raise OSError(errno.EACCES, "neither a directory nor a regular file", grant.path)
    return Tree(fd, writable=grant.writable, links=grant.links)


def confine_broker(charge: Charge, held: Held, keep: Sequence[int]) -> None:
    """Become the subject and lock the door. StepFailed where that cannot be done: then nothing is served."""
    beneath.hold_own_descriptors()
    kept = (0, 1, 2, *keep, *held.numbers(), beneath.own_descriptors())
    context = Context(uid=charge.uid, gid=charge.gid, groups=charge.groups, keep=kept, parent=os.getppid())
    carry_out(tuple(_steps(charge, held)), context)


def refuse_weak_host(*, openat2: bool, filters: bool) -> None:
    """HostError where this host cannot bound a broker as it must be."""
    if not openat2:
        raise HostError(
            "a broker resolves names with openat2, and this host refuses that call",
            layer="broker",
            errno=errno.ENOSYS,
            remedy="Use Linux 5.6 or newer; in a container, allow openat2 in its filter",
        )
    if not filters:
        raise HostError(
            "this kernel has no seccomp filters", layer="broker", remedy="Use one with CONFIG_SECCOMP_FILTER"
        )


def _steps(charge: Charge, held: Held) -> list[s.AnyStep]:
    low = any(port < _LOW_PORT for port in charge.listens)
    effective = capability.get().effective
    bind = int(Capability.NET_BIND_SERVICE)
    keep = (bind,) if low and effective >> bind & 1 else ()
    steps: list[s.AnyStep] = [s.NewSession()]
    if effective >> Capability.SETPCAP & 1:
        steps += [s.DropBounding(keep=keep), s.Securebits()]
    if charge.changes_ids:
        steps.append(s.SetIds(groups_of_request=True))
    steps += [s.SetCapabilities(keep=keep), s.NoNewPrivs(), s.Limits(values=_LIMITS, above_image=_MEMORY)]
    steps.append(s.ParentDeath())
    if charge.landlock:
        steps.append(_landlock(charge, held))
    steps += [s.CloseDescriptors(), s.NotDumpable(), s.Filter(program=_program(charge.looks_up))]
    return steps


_LIMITS: Final = {"NOFILE": _DESCRIPTORS, "CORE": 1, "FSIZE": 0, "MEMLOCK": 0, "MSGQUEUE": 0}


def _landlock(charge: Charge, held: Held) -> s.Landlock:
    """The granted trees and ports; nothing is changed elsewhere. For looking up, names and libraries may be read."""
    known = landlock.known(landlock.FS_SINCE, charge.landlock)
    handled = known & (_CHANGING | (0 if charge.looks_up else _READ | landlock.FS_EXECUTE))
    paths: list[tuple[str, int]] = []
    for tree in held.trees:
        if tree is not None:
            paths.append((f"/proc/self/fd/{tree.fd}", known & handled & (_READ | (_WRITE if tree.writable else 0))))
    net = landlock.known(landlock.NET_SINCE, charge.landlock) if not charge.looks_up else 0
    ports: dict[int, int] = {}
    for address in charge.connects:
        ports[address.port] = ports.get(address.port, 0) | landlock.NET_CONNECT_TCP
    for port in charge.listens:
        ports[port] = ports.get(port, 0) | landlock.NET_BIND_TCP
    return s.Landlock(
        abi=charge.landlock,
        handled_fs=handled,
        handled_net=net,
        paths=tuple(paths),
        ports=tuple(sorted(ports.items())) if net else (),
    )


@cache
def _program(looks_up: bool) -> bytes:
    """The broker's own filter. It makes no process, executes nothing, and answers its notifications."""
    code = Arg(2).masked(4) == 0  # PROT_EXEC
    memory = allow("mmap", "mprotect", reason="memory, and the C library's look-up modules") if looks_up else allow(
        "mmap", "mprotect", when=code, reason="memory, but no code"
    )  # fmt: skip
    rules = [
        *seccomp.attack_rules(),
        *seccomp.clone_rules(seccomp.Children.NONE),
        memory,
        allow("brk", "munmap", "mremap", "madvise", "futex", "membarrier", reason="memory and locks"),
        allow("read", "write", "readv", "writev", "close", "dup", "fstat", "lseek", "fcntl", reason="descriptors"),
        allow("pread64", "pwrite64", reason="the memory of its worker"),
        allow("openat", "openat2", "newfstatat", "statx", "faccessat", "faccessat2", reason="what it is there for"),
        allow(
            "readlinkat", "getdents64", "unlinkat", "mkdirat", "renameat", "renameat2", reason="beneath what is granted"
        ),
        allow("readlink", "stat", "access", reason="the C library's look-ups"),
        allow("ioctl", reason="its notifications"),
        allow("poll", "ppoll", "select", "pselect6", reason="waiting"),
        allow("socket", "connect", "bind", "listen", "getsockopt", "setsockopt", reason="granted connections"),
        allow("getsockname", "getpeername", "shutdown", reason="granted connections"),
        allow("sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", reason="the monitor's socket, and name servers"),
        allow("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "setitimer", reason="its deadline"),
        allow("clock_gettime", "clock_nanosleep", "gettimeofday", "getrandom", "getrusage", reason="clocks"),
        allow("getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid", "uname", reason="who it is"),
        allow("exit", "exit_group", "restart_syscall", "rseq", "set_robust_list", reason="an end"),
    ]
    return seccomp.compile(rules, arch=os.uname().machine, default=Action.errno(errno.EPERM)).to_bytes()
