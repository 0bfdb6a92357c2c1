"""Runs in: nowhere; values only. The rules of a worker's filter whose calls stand still until its broker answers.

The worker's own root, network namespace, Landlock and filter grant nothing of what is brokered. These calls never go on
by themselves: the broker reads their arguments once, acts itself, and its answer is theirs.
"""

from __future__ import annotations

from typing import Final

from bunri.plan._calls import AF_UNIX, AT_EMPTY_PATH, AT_FDCWD
from bunri.plan.means import Means
from bunri.policy import NetKind
from bunri.seccomp import Arg, Rule, allow, notify

AF_INET, AF_INET6, SOL_IPV6, IPV6_V6ONLY = 2, 10, 41, 26
SOCK_STREAM, _SOCK_KIND = 1, 0xF
_WAITING: Final = ("epoll_create1", "epoll_create", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2")
_LOCKS: Final = (5, 6, 7, 36, 37, 38)

OPENING: Final = ("openat", "open", "creat", "openat2")
LOOKING: Final = (
    "newfstatat", "stat", "lstat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
)  # fmt: skip
CHANGING: Final = ("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2")


def paths(means: Means) -> list[Rule]:
    """Every call that names a path, and may."""
    if not means.brokered_files:
        return []
    by_descriptor = Arg(3).int32 == AT_EMPTY_PATH
    if not means.hides_tree:  # an absolute path beside the flag would be the host's
        by_descriptor &= Arg(0).int32 != AT_FDCWD
    rules = [
        allow("newfstatat", when=by_descriptor, reason="fstat of what it was given"),
        notify(*OPENING, reason="brokered: opened by its broker"),
        notify(*LOOKING, reason="brokered: looked at by its broker"),
        allow("getcwd", "fadvise64", "readahead", reason="of what it was given"),
    ]
    if means.writes_paths:
        rules += [
            notify(*CHANGING, reason="brokered: changed by its broker"),
            allow("fallocate", "copy_file_range", "sendfile", "flock", reason="files that it may write"),
            allow("fcntl", when=Arg(1).int32.one_of(*_LOCKS), reason="locks on files that it may write"),
        ]
    return rules


def connections(means: Means) -> list[Rule]:
    """Sockets are made by the broker, in its own network; the worker does I/O on them, and no more."""
    if not means.brokered_network:
        return []
    kinds = {grant.kind for grant in means.connects}
    families = [AF_UNIX] if NetKind.UNIX in kinds else []
    if kinds - {NetKind.UNIX}:
        families += [AF_INET, AF_INET6]
    streams = Arg(0).int32.one_of(*families) & (Arg(1).masked(_SOCK_KIND) == SOCK_STREAM)
    rules = [
        notify("socket", when=streams, reason="brokered: a socket of its broker's network"),
        allow(*_WAITING, reason="clients wait for several sockets with it"),
        notify("connect", reason="brokered: connected by its broker, to what is granted"),
    ]
    if NetKind.LISTEN in kinds:
        only_v6 = (Arg(1).int32 == SOL_IPV6) & (Arg(2).int32 == IPV6_V6ONLY)
        rules += [
            notify("bind", "listen", reason="brokered: bound by its broker, to what is granted"),
            allow("setsockopt", when=only_v6, reason="a listening socket for IPv6 alone"),
        ]
    return rules
