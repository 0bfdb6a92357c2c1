"""Runs in: the process that asks; pure. What a `Host` can do, in words: what works, what not, and what to change.

The host was tried thing by thing (`bunri.confine.detection`); here it is only read. What a refusal usually comes from is
told by the errno that the kernel answered with.
"""

from __future__ import annotations

from dataclasses import dataclass

from bunri.errors import Promise
from bunri.plan import Host, Needs, UserNamespaces
from bunri.plan import layers as _layers
from bunri.plan import sufficiency as _sufficiency
from bunri.plan.host import FEWEST_DESCRIPTORS
from bunri.plan.means import Means
from bunri.plan.report import State
from bunri.policy import Policy

_USERNS = (
    "allow user namespaces: kernel.unprivileged_userns_clone=1 (Debian before 11), user.max_user_namespaces above 0, "
    "in Docker --security-opt seccomp=... with a profile that lets unshare and clone make them"
)
_APPARMOR = (
    "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 23.10 and newer), or an AppArmor profile with userns for it"
)
_LANDLOCK = "a kernel with CONFIG_SECURITY_LANDLOCK and landlock in the lsm= list (Debian 12, Ubuntu 22.04 have both)"
_KERNEL = "a newer kernel"
_CONTAINER = "the container's seccomp profile: it refuses the call"


@dataclass(frozen=True)
class Finding:
    """One thing that was tried. `remedy` is empty where it works."""

    name: str
    works: bool
    detail: str
    gives: str
    remedy: str = ""


@dataclass(frozen=True)
class Kept:
    """Whether the default policy's promise is kept here, and by which layers."""

    promise: Promise
    kept: bool
    layers: tuple[str, ...]
    remedy: str = ""


def findings(host: Host) -> list[Finding]:
    """Everything that was tried, in the order of how much hangs on it."""
    found = [_user_namespaces(host), *_namespaces(host), _landlock(host)]
    for name, gives, remedy in _SIMPLE:
        works = bool(getattr(host, name))
        found.append(_finding(host, name, works, gives, remedy))
    if not can_start(host):
        gives = f"workers: a zygote needs {FEWEST_DESCRIPTORS}"
        most = f"at most {host.limits['NOFILE']}"
        found.append(Finding("descriptors", False, most, gives, "a higher RLIMIT_NOFILE, as with ulimit -n 4096"))
    return found


def can_start(host: Host) -> bool:
    """Whether a program may have the descriptors that a first start takes."""
    return not 0 <= host.limits.get("NOFILE", -1) < FEWEST_DESCRIPTORS


def promises(host: Host) -> list[Kept]:
    """What Policy() promises, and whether this host keeps it."""
    means = Means(Policy().settled(), host, Needs(), None, host.is_root)
    listed = _layers.layers(means)
    lacking = {lack.promise: lack.remedy for lack in _sufficiency.lacks(means, listed)}
    found: list[Kept] = []
    for promise in Promise:
        if promise is Promise.LABEL:
            continue  # nothing is promised unless a label is named
        names = tuple(x.name for x in listed if x.promise is promise and x.state is not State.MISSING)
        found.append(Kept(promise, promise not in lacking, names, lacking.get(promise, "")))
    return found


def _finding(host: Host, name: str, works: bool, gives: str, remedy: str) -> Finding:
    shown = name.replace("_", " ")
    word = host.remarks.get(name, "refused")
    if works:
        return Finding(shown, True, "works", gives)
    return Finding(shown, False, word, gives, _CONTAINER if word == "EPERM" and remedy == _KERNEL else remedy)


def _user_namespaces(host: Host) -> Finding:
    gives = "confinement for programs that were not started as root; zygotes without root's rights for those that were"
    match host.user_namespaces:
        case UserNamespaces.FULL:
            return Finding("user namespaces", True, "full", gives)
        case UserNamespaces.WITHOUT_CAPABILITIES:
            return Finding("user namespaces", False, "made, but without capabilities", gives, _APPARMOR)
        case _:
            return Finding("user namespaces", False, host.remarks.get("user_namespaces", "refused"), gives, _USERNS)


_NAMESPACES = {
    "mnt": "an empty root with only what is granted",
    "pid": "other processes have no number to be named by",
    "net": "an empty network",
    "ipc": "no shared memory segments of others",
    "uts": "the host's name stays unknown",
    "cgroup": "the host's control groups stay unknown",
    "time": "the host's uptime stays unknown",
}


def _namespaces(host: Host) -> list[Finding]:
    remedy = "start it as root with CAP_SYS_ADMIN, or " + _USERNS
    return [
        Finding(f"{name} namespace", True, "works", gives)
        if name in host.namespaces
        else Finding(f"{name} namespace", False, host.remarks.get(f"namespace {name}", "refused"), gives, remedy)
        for name, gives in _NAMESPACES.items()
    ]


_SINCE: tuple[tuple[int, str], ...] = (
    (2, "renaming across folders"),
    (3, "truncate(2)"),
    (4, "TCP ports"),
    (5, "device ioctls"),
    (6, "signals and abstract sockets"),
)


def _landlock(host: Host) -> Finding:
    gives = "files by path, TCP by port, signals: a second time, and for programs that may make no namespace"
    if not host.landlock_abi:
        return Finding("Landlock", False, host.remarks.get("landlock", "absent"), gives, _LANDLOCK)
    unseen = [text for abi, text in _SINCE if host.landlock_abi < abi]
    detail = f"ABI {host.landlock_abi}" + (f": does not see {', '.join(unseen)}" if unseen else "")
    return Finding("Landlock", True, detail, gives)


_SIMPLE: tuple[tuple[str, str, str], ...] = (
    ("seccomp", "the filter of system calls; nothing starts without it", "a kernel with CONFIG_SECCOMP_FILTER"),
    ("seccomp_notify", "development mode: each refusal with its arguments", "Linux 5.0, and no tracer's filter around"),
    ("seccomp_log", "refusals in the kernel's log", _KERNEL),
    ("pivot_root", "the old root is gone, and not only hidden", "what makes mnt namespaces work"),
    ("chroot", "for root without namespaces: a root of its own", "CAP_SYS_CHROOT"),
    ("mdwe", "no memory is both written and executed", "Linux 6.3"),
    ("close_range", "no descriptor is left open by mistake", "Linux 5.9"),
    ("clone3", "workers with pidfd and time namespace in one call", _KERNEL),
    ("pidfd", "a worker is ended by a handle, never by a number that may be another's", "Linux 5.3"),
    ("io_uring", "a fork copies at once what workers will write to: repeated starts cost less", "sysctl kernel.io_uring_disabled=0"),
    ("keyring", "keys of its own", _KERNEL),
    ("openat2", "paths opened beneath a folder only", "Linux 5.6"),
    ("memory_groups", "one bound for all memory that a worker causes", "Delegate=yes in its unit, or systemd-run --scope -p Delegate=yes"),
    ("mount_setattr", "whole trees read-only at once", "Linux 5.12"),
    ("reads_not_dumpable", "the monitor can look at a worker to its end", "CAP_SYS_PTRACE, or user namespaces"),
)  # fmt: skip


def summary(host: Host) -> str:
    """One line: kernel, architecture, user."""
    who = "root" if host.is_root else f"uid {host.uid}"
    return f"Linux {host.kernel[0]}.{host.kernel[1]} on {host.arch}, as {who}, {len(host.capabilities)} capabilities"
