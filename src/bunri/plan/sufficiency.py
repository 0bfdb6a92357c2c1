"""Runs in: nowhere; values only. Whether the layers that hold suffice for each promise (DESIGN section 5).

Each check yields what it lacks: the promise, the layer that would cure it, a sentence, and what to change.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from bunri.errors import HostError, Promise
from bunri.plan.means import Means
from bunri.plan.report import Layer, State
from bunri.policy import FileKind, UserKind, Via

DYNAMIC_FIRST, DYNAMIC_LAST = 61184, 65519


class Lack(msgspec.Struct, frozen=True):
    """A promise that nothing here keeps."""

    promise: Promise
    layer: str
    text: str
    remedy: str
    remarks: tuple[str, ...] = ()  # where the host says what the kernel answered


def lacks(means: Means, found: Iterable[Layer]) -> list[Lack]:
    """The promises that no combination keeps here, in the order of Promise."""
    if not means.confines:
        return []
    holds = {layer.name for layer in found if layer.state is not State.MISSING}
    return [lack for check in _CHECKS for lack in check(means, holds)]


def _files_lack(means: Means, holds: set[str]) -> Iterable[Lack]:
    brokered = next((g for g in means.policy.files if g.via is Via.BROKER), None)
    if brokered is not None:
        yield from _broker_lack(Promise.FILES, repr(brokered), means)
        yield from _unbrokered_lack(repr(brokered), means)
    if means.own_root or means.chroot is not None:
        return
    moved = next((g for g in means.kernel_files if g.kind is FileKind.SCRATCH or (g.at != g.path and g.path)), None)
    remarks = ("namespace mnt", "user_namespaces", "pivot_root")
    if moved is not None:
        yield Lack(
            Promise.FILES,
            "mount namespace",
            f"{moved!r} needs a mount namespace, and this user cannot make one",
            _FILES_REMEDY,
            remarks,
        )
    elif any(g.path == "/" for g in means.kernel_files):
        yield Lack(
            Promise.FILES,
            "mount namespace",
            "a grant of / without a mount namespace reaches every Unix socket",
            _FILES_REMEDY,
            remarks,
        )
    elif not {"Landlock files", "filter on metadata"} <= holds:
        text = "neither a mount namespace, nor Landlock, nor a chroot that the grants fit in"
        yield Lack(Promise.FILES, "mount namespace", text, _FILES_REMEDY, (*remarks, "landlock"))


def _broker_lack(promise: Promise, grant: str, means: Means) -> Iterable[Lack]:
    """What a broker needs of the host: seen at the plan, so that nothing runs before."""
    if means.is_self:
        text = f"{grant} goes through a broker, and a program that confines itself has none"
        yield Lack(promise, "broker", text, "Do this work in a compartment, or open it before")
    elif means.several and not means.own_pids:
        text = (
            f"{grant} goes through a broker, which tells the worker's processes by their pid namespace: there is none"
        )
        yield Lack(promise, "broker", text, "Write processes=0", ("namespace pid", "user_namespaces"))
    elif not (means.host.seccomp_notify and means.host.seccomp_addfd):
        text = f"{grant} goes through a broker, and this kernel cannot answer a call with a descriptor"
        remedy = "Use Linux 5.14 or newer, and no tracer that has a listener already"
        yield Lack(promise, "broker", text, remedy, ("seccomp_notify", "seccomp_addfd"))
    elif not means.host.openat2:
        text = f"{grant} goes through a broker, which resolves names with openat2; that is refused here"
        yield Lack(promise, "broker", text, "Use Linux 5.6 or newer; in a container, allow openat2", ("openat2",))
    elif not means.host.reads_not_dumpable:
        text = f"{grant} goes through a broker, and this program has no right to a worker's memory"
        remedy = "Start as root with CAP_SYS_PTRACE, or where user namespaces are allowed"
        yield Lack(promise, "broker", text, remedy, ("reads_not_dumpable",))


def _unbrokered_lack(grant: str, means: Means) -> Iterable[Lack]:
    """Where a broker opens, it opens everything: what only the worker's own calls can use does not go with it."""
    other = next((g for g in means.policy.files if g.kind not in (FileKind.READ, FileKind.WRITE)), None)
    if other is not None:
        text = f"{other!r} and {grant}: where one path goes to a broker all do, and a broker has no {other.kind.value}"
        yield Lack(Promise.FILES, "broker", text, "Leave via= out, or drop the other grant")


def _network_lack(means: Means, holds: set[str]) -> Iterable[Lack]:
    if means.brokered_network:
        yield from _broker_lack(Promise.NETWORK, repr(means.connects[0]), means)
    if not means.host_network and not {"filter on sockets", "network namespace"} & holds:
        yield Lack(
            Promise.NETWORK,
            "filter on sockets",
            "neither a filter nor a network namespace",
            _SECCOMP_REMEDY,
            ("seccomp", "namespace net"),
        )


def _identity_lack(means: Means, holds: set[str]) -> Iterable[Lack]:
    user = means.policy.user
    missing = [c.name for c in means.policy.capabilities if c not in means.host.capabilities or not means.host.is_root]
    if missing:
        text = f"the policy grants {', '.join(missing)}, which the program itself does not have"
        yield Lack(Promise.IDENTITY, "capabilities", text, "Start the program with it, or drop it from capabilities=")
    if means.changes_ids:
        yield from _unmapped_lack(means)
    elif user.kind in (UserKind.NAMED, UserKind.IDS) and (means.ids is None or _wanted(means) != means.host.uid):
        yield Lack(
            Promise.IDENTITY,
            "uid",
            f"{user!r}: only root, with CAP_SETUID and CAP_SETGID, can become another user",
            _ROOT_REMEDY,
        )
    elif user.kind is UserKind.DYNAMIC and not (means.user_namespace and not means.host.is_root):
        yield Lack(
            Promise.IDENTITY,
            "uid" if means.host.is_root else "user namespace",
            "neither a uid of its own nor a user namespace of its own",
            _USER_REMEDY,
            ("user_namespaces",),
        )


def _wanted(means: Means) -> int | None:
    user = means.policy.user
    if user.kind is UserKind.IDS:
        return user.uid
    return means.account.uid if means.account is not None else None


def _unmapped_lack(means: Means) -> Iterable[Lack]:
    first, count = (DYNAMIC_FIRST, DYNAMIC_LAST - DYNAMIC_FIRST + 1)
    wanted = _wanted(means)
    ranges = means.host.mapped_uids
    if means.policy.user.kind is UserKind.DYNAMIC:
        # One block of 64 will do: whoever hands the uids out takes what is there.
        if not any(start < first + count and first < start + size for start, size in ranges):
            text = f"the dynamic uids {DYNAMIC_FIRST}-{DYNAMIC_LAST} do not exist in this user namespace"
            yield Lack(Promise.IDENTITY, "uid", text, "Map that range into the container, or name a user with user=")
    elif wanted is not None and not any(start <= wanted < start + size for start, size in ranges):
        yield Lack(
            Promise.IDENTITY, "uid", f"uid {wanted} does not exist in this user namespace", "Map it into the container"
        )


def _processes_lack(means: Means, holds: set[str]) -> Iterable[Lack]:
    # As root with a uid of its own the kernel keeps signals apart by uid as well, but DESIGN counts the two below only.
    if means.policy.processes and not means.own_pids:
        text = f"processes={means.policy.processes} needs a pid namespace: escaped children could not be found"
        yield Lack(Promise.PROCESSES, "pid namespace", text, "Write processes=0", ("namespace pid", "user_namespaces"))
    elif not {"pid namespace", "Landlock signals"} & holds or "filter on processes" not in holds:
        text = "neither a pid namespace nor Landlock's signal scope (Linux 6.12)"
        yield Lack(
            Promise.PROCESSES,
            "pid namespace",
            text,
            _OWN_PROCESSES_REMEDY if means.is_self else _PROCESSES_REMEDY,
            ("namespace pid", "user_namespaces", "landlock"),
        )


def _syscalls_lack(means: Means, holds: set[str]) -> Iterable[Lack]:
    if "filter" not in holds:
        yield Lack(Promise.SYSCALLS, "filter", "this kernel has no seccomp filters", _SECCOMP_REMEDY, ("seccomp",))


def _memory_lack(means: Means, holds: set[str]) -> Iterable[Lack]:
    if not {"memory cgroup", "address space"} & holds:
        text = f"processes={means.policy.processes}: without a memory cgroup nothing counts their memory together"
        yield Lack(
            Promise.MEMORY,
            "memory cgroup",
            text,
            "Write processes=0, or may_miss=[Promise.MEMORY]: then memory= bounds each",
        )


def _label_lack(means: Means, holds: set[str]) -> Iterable[Lack]:
    if "label" not in holds and (means.policy.selinux or means.policy.apparmor):
        module = "SELinux" if means.policy.selinux else "AppArmor"
        yield Lack(
            Promise.LABEL,
            "label",
            f"a label is asked for, and {module} is not active in this kernel",
            f"Boot with lsm=...,{module.lower()}, or write may_miss=[Promise.LABEL]",
        )


_FILES_REMEDY: Final = (
    "Start as root or where user namespaces are allowed, use a kernel with Landlock (5.13), "
    "or write may_miss=[Promise.FILES]"
)
_SECCOMP_REMEDY: Final = "Use a kernel with CONFIG_SECCOMP_FILTER"
_ROOT_REMEDY: Final = "Start the program as root, or write user=User.same()"
_USER_REMEDY: Final = (
    "Allow user namespaces, start as root with CAP_SETUID and CAP_SETGID, or write user=User.same() "
    "or may_miss=[Promise.IDENTITY]"
)
_OWN_PROCESSES_REMEDY: Final = "Use Linux 6.12 with Landlock, or write may_miss=[Promise.PROCESSES]"
_PROCESSES_REMEDY: Final = "Allow user namespaces, use Linux 6.12 with Landlock, or write may_miss=[Promise.PROCESSES]"

_CHECKS: Final[tuple[Callable[[Means, set[str]], Iterable[Lack]], ...]] = (
    _files_lack,
    _network_lack,
    _identity_lack,
    _processes_lack,
    _syscalls_lack,
    _memory_lack,
    _label_lack,
)


def host_error(lack: Lack, means: Means) -> HostError:
    """The error for it, with what the kernel answered where the host knows."""
    word = next((means.host.remarks[name] for name in lack.remarks if name in means.host.remarks), "")
    return HostError(
        lack.text,
        promise=lack.promise,
        layer=lack.layer,
        errno=getattr(errno, word, None) if word.startswith("E") else None,
        remedy=lack.remedy,
    )
