"""Runs in: nowhere; values only. Every layer of a plan, in force or missing, with the reason.

Which of them suffice for a promise is told in `sufficiency`; everything else is depth, and is listed all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bunri.errors import Promise
from bunri.plan import limits
from bunri.plan.host import UserNamespaces
from bunri.plan.means import Means
from bunri.plan.needs import Shape
from bunri.plan.report import Layer, State
from bunri.policy import UserKind
from bunri.policy.words import Capability, Profile

_Facts = tuple[State, str]
HOLDS: Final = State.IN_FORCE


def _yes(detail: str = "") -> _Facts:
    return HOLDS, detail


def _no(detail: str) -> _Facts:
    return State.MISSING, detail


def _weak(detail: str) -> _Facts:
    return State.WEAKER, detail


def _when(holds: bool, missing: str, detail: str = "") -> _Facts:
    return _yes(detail) if holds else _no(missing)


def layers(means: Means) -> tuple[Layer, ...]:
    """Every layer there is, as this plan has it. Seen by nobody yet."""
    found = [_layer(promise, name, judge(means)) for promise, name, judge in _LAYERS]
    if not means.confines:
        kept = ("uid", "session", "parent death", "descriptors", "environment")
        return tuple(layer if layer.name in kept else _dropped(layer) for layer in found)
    return tuple(found)


def _layer(promise: Promise | None, name: str, facts: _Facts) -> Layer:
    state, detail = facts
    return Layer(promise, name, state, None, detail)


def _dropped(layer: Layer) -> Layer:
    return Layer(layer.promise, layer.name, State.MISSING, None, "dangerous_unconfined: not asked for")


# Judgements --------------------------------------------------------------------------------------------------------


def _mount_namespace(means: Means) -> _Facts:
    if means.own_root:
        return _yes("an empty root with only what is granted; the old one is detached")
    return _no(_why_no_namespace(means, "mnt"))


def _chroot(means: Means) -> _Facts:
    if means.chroot is not None:
        return _yes("an empty directory" if means.chroot == "" else means.chroot)
    if means.own_root:
        return _no("not needed: the mount namespace has its own root")
    return _no("the grants are not one directory" if means.policy.files else "this user cannot chroot")


def _landlock_files(means: Means) -> _Facts:
    if not means.landlock:
        return _no("this kernel has no Landlock")
    since = {2: "renaming across folders is refused", 3: "truncate(2) is not seen", 5: "device ioctls are not seen"}
    blind = [text for abi, text in since.items() if means.landlock < abi]
    return _weak(f"ABI {means.landlock}: {'; '.join(blind)}") if blind else _yes(f"ABI {means.landlock}")


def _metadata(means: Means) -> _Facts:
    if not means.host.seccomp:
        return _no("this kernel has no seccomp filters")
    if means.hides_tree:
        return _yes("chmod, xattr, flock and the like as far as granted; in its own root")
    if means.kernel_files:
        return _weak("that a path exists, its size and its owner can be learnt of any path: Landlock does not see stat")
    if means.needs.files or means.needs.receives_descriptors:
        return _weak("the C library's fstat is newfstatat: that a path exists, its size and its owner can be learnt")
    return _yes("stat, chmod, xattr, flock")


def _broker_of_files(means: Means) -> _Facts:
    return _when(
        means.brokered_files, "no grant asks for it", "opens and looks, as the subject; nothing else has a path"
    )


def _broker_of_connections(means: Means) -> _Facts:
    found = ", ".join(map(repr, means.connects))
    return _when(means.brokered_network, "nothing of the network is granted", f"{found}; as the subject")


def _network_filter(means: Means) -> _Facts:
    if not means.host.seccomp:
        return _no("this kernel has no seccomp filters")
    if means.host_network:
        return _no("net.dangerous_host() gives it up")
    if means.needs.shape is Shape.PROGRAM or means.grants_sockets:
        return _yes("handed sockets do I/O only") if not means.grants_sockets else _no("syscalls= grants socket()")
    if means.brokered_network:
        return _yes("socket and connect are answered by the broker; sockets do I/O only")
    return _yes("no socket, connect, bind, listen, accept; handed sockets do I/O only")


def _network_namespace(means: Means) -> _Facts:
    if means.host_network:
        return _no("net.dangerous_host() gives it up")
    if "net" in means.worker_namespaces:
        return _yes("empty, its own")
    if "net" in means.template_namespaces:
        return _yes("empty" if means.is_self else "empty, shared with the workers of its template")
    return _no(_why_no_namespace(means, "net"))


def _landlock_tcp(means: Means) -> _Facts:
    if means.host_network:
        return _no("net.dangerous_host() gives it up")
    return _when(means.landlock >= 4, f"needs Landlock ABI 4; this kernel has {means.landlock}")


def _landlock_abstract(means: Means) -> _Facts:
    if means.host_network:
        return _no("net.dangerous_host() gives it up")
    return _when(means.scopes, f"needs Landlock ABI 6; this kernel has {means.landlock}")


def _uid(means: Means) -> _Facts:
    user = means.policy.user
    if user.kind is UserKind.SAME:
        return _weak(f"as asked: uid {means.host.uid}, the program's own, separates nothing")
    if means.changes_ids:
        if user.kind is UserKind.DYNAMIC:
            return _yes("a uid of its own")
        return _yes(f"{user.name or f'uid {user.uid}'}; other processes of that user are not kept apart by it")
    if means.host.is_root:
        return _no("without CAP_SETUID and CAP_SETGID it stays uid 0")
    return _no(f"started as an ordinary user, it stays uid {means.host.uid}; no uid separates it")


def _user_namespace(means: Means) -> _Facts:
    if means.user_namespace:
        how = "unmapped: it can become nobody" if means.user_namespace == "unmapped" else "knows its own uid only"
        if means.host.user_namespaces is UserNamespaces.WITHOUT_CAPABILITIES:
            return _weak(f"{how}; the security module allows no other namespace in it")
        return _yes(how)
    if means.host.is_root:
        return _when(means.mapped, "started as root: the uid separates", "its zygote's, which does not know uid 0")
    if means.is_self:
        return _no("a process that confines itself keeps the user namespace it is in")
    return _no(f"this user cannot make one ({means.host.remarks.get('user_namespaces', 'refused')})")


def _groups(means: Means) -> _Facts:
    if means.changes_ids:
        return _yes("exactly the user's")
    if not means.host.groups:
        return _yes("none")
    listed = ", ".join(map(str, means.host.groups))
    return _no(f"supplementary groups cannot be dropped here: {listed}")


def _capabilities(means: Means) -> _Facts:
    return _yes(", ".join(c.name for c in means.policy.capabilities) or "none")


def _bounding(means: Means) -> _Facts:
    if means.has(Capability.SETPCAP) or (means.user_namespace == "unmapped" and means.owns_user_namespace):
        return _yes()
    return _no("without CAP_SETPCAP it cannot be dropped; no_new_privs makes it meaningless")


def _securebits(means: Means) -> _Facts:
    return _when(means.has(Capability.SETPCAP), "without CAP_SETPCAP they cannot be set")


def _pid_namespace(means: Means) -> _Facts:
    if means.is_self:
        return _no("a living process cannot enter a new pid namespace")
    return _when(means.own_pids, _why_no_namespace(means, "pid"))


def _landlock_signals(means: Means) -> _Facts:
    return _when(means.scopes, f"needs Landlock ABI 6; this kernel has {means.landlock}")


def _process_filter(means: Means) -> _Facts:
    return _when(means.host.seccomp, "this kernel has no seccomp filters", "ptrace, kill, pidfd and their kind")


def _process_count(means: Means) -> _Facts:
    allowed = 1 + means.policy.threads + means.policy.processes
    if "NPROC" in limits.own(means):
        return _yes(f"{allowed}")
    return _weak("counted with others of the same uid, so not bounded")


def _syscalls(means: Means) -> _Facts:
    if not means.host.seccomp:
        return _no("this kernel has no seccomp filters")
    strict = means.policy.profile is Profile.STRICT
    return _yes("mode 1: read, write, sigreturn, exit" if strict else "an allow-list with argument checks")


def _memcg(means: Means) -> _Facts:
    if means.is_self:
        return _no("a process that confines itself stays in the group it is in")
    why = means.host.remarks.get("memory_groups", "this program has no control group to share out")
    return _when(means.memory_group is not None, why, "counted together with its children's; the kernel ends it")


def _address_space(means: Means) -> _Facts:
    if means.policy.processes:
        return _no("per process, and it may have several: without a memory cgroup they are not counted together")
    return _weak("per process: memfd_create, shared memory segments and large pipes are refused besides")


def _clocks(means: Means) -> _Facts:
    if means.is_self:
        return _no("nobody stands outside: RLIMIT_CPU alone")
    return _yes("the monitor's, and SIGKILL")


def _cpu_limit(means: Means) -> _Facts:
    seconds = limits.cpu_seconds(means)
    return _when(seconds is not None, "it serves many calls: a limit of its life is none of a call", f"{seconds} s")


def _label(means: Means) -> _Facts:
    wanted = means.policy.selinux or means.policy.apparmor
    if wanted is None:
        return _no("none asked for")
    if means.label is None:
        return _no(f"{'SELinux' if means.policy.selinux else 'AppArmor'} is not active in this kernel")
    if means.policy.selinux and not means.host.label_enforced:
        return _weak(f"{means.label}; SELinux is permissive here, and only logs")
    return _yes(means.label)


def _always(means: Means) -> _Facts:
    return _yes()


def _descriptors(means: Means) -> _Facts:
    """What stays open, and so by which way it talks to the monitor."""
    if means.needs.shape is not Shape.WORKER:
        return _yes()
    carries = means.needs.sends_descriptors or means.needs.receives_descriptors
    calls = "sendmsg and recvmsg for handles" if carries else "no other calls"
    return _yes(f"the channel is a Unix socket: read and write, {calls}; large bytes in shared memory")


def _keyring(means: Means) -> _Facts:
    return _when(means.host.keyring, f"joining one is refused ({means.host.remarks.get('keyring', 'refused')})")


def _mdwe(means: Means) -> _Facts:
    if means.writes_code:
        return _no("syscalls= has dangerous_jit")
    return _when(means.host.mdwe, "needs Linux 6.3; the filter refuses executable memory where no code is granted")


def _not_dumpable(means: Means) -> _Facts:
    if means.needs.shape is Shape.PROGRAM:
        return _weak("until the program is executed: the kernel resets it then")
    return _yes()


def _session(means: Means) -> _Facts:
    return _when(not means.is_self, "a process that confines itself keeps its session")


def _parent_death(means: Means) -> _Facts:
    return _when(not means.is_self, "a process that confines itself is nobody's worker")


def _environment(means: Means) -> _Facts:
    return _when(
        not means.is_self, "a process that confines itself keeps its environment", "an allow-list; umask 077; cwd /"
    )


def _namespace(name: str) -> Callable[[Means], _Facts]:
    def judge(means: Means) -> _Facts:
        made = name in means.worker_namespaces or name in means.template_namespaces
        return _when(made, _why_no_namespace(means, name))

    return judge


def _why_no_namespace(means: Means, name: str) -> str:
    remark = means.host.remarks.get(f"namespace {name}")
    if means.is_self and name in ("pid", "time"):
        return "a living process cannot enter one"
    if name not in means.host.namespaces:
        return f"this user cannot make one ({remark or means.host.remarks.get('user_namespaces', 'refused')})"
    if means.is_self:
        return "a process that confines itself would need CAP_SYS_ADMIN"
    if name == "mnt" and not means.host.pivot_root:
        return f"pivot_root is refused ({means.host.remarks.get('pivot_root', 'refused')})"
    return "needs CAP_SYS_ADMIN, or user namespaces with capabilities"


_LAYERS: Final[tuple[tuple[Promise | None, str, Callable[[Means], _Facts]], ...]] = (
    (Promise.FILES, "mount namespace", _mount_namespace),
    (Promise.FILES, "chroot", _chroot),
    (Promise.FILES, "Landlock files", _landlock_files),
    (Promise.FILES, "filter on metadata", _metadata),
    (Promise.FILES, "broker of files", _broker_of_files),
    (Promise.NETWORK, "broker of connections", _broker_of_connections),
    (Promise.NETWORK, "filter on sockets", _network_filter),
    (Promise.NETWORK, "network namespace", _network_namespace),
    (Promise.NETWORK, "Landlock TCP", _landlock_tcp),
    (Promise.NETWORK, "Landlock abstract sockets", _landlock_abstract),
    (Promise.IDENTITY, "uid", _uid),
    (Promise.IDENTITY, "user namespace", _user_namespace),
    (Promise.IDENTITY, "groups", _groups),
    (Promise.IDENTITY, "capabilities", _capabilities),
    (Promise.IDENTITY, "bounding set", _bounding),
    (Promise.IDENTITY, "securebits", _securebits),
    (Promise.PROCESSES, "pid namespace", _pid_namespace),
    (Promise.PROCESSES, "Landlock signals", _landlock_signals),
    (Promise.PROCESSES, "filter on processes", _process_filter),
    (Promise.PROCESSES, "process count", _process_count),
    (Promise.SYSCALLS, "filter", _syscalls),
    (Promise.MEMORY, "memory cgroup", _memcg),
    (Promise.MEMORY, "address space", _address_space),
    (Promise.TIME, "clocks", _clocks),
    (Promise.TIME, "cpu limit", _cpu_limit),
    (Promise.LABEL, "label", _label),
    (None, "no_new_privs", _always),
    (None, "MDWE", _mdwe),
    (None, "not dumpable", _not_dumpable),
    (None, "core limit", _always),
    (None, "descriptors", _descriptors),
    (None, "keyring", _keyring),
    (None, "session", _session),
    (None, "parent death", _parent_death),
    (None, "environment", _environment),
    (None, "oom score", _always),
    (None, "ipc namespace", _namespace("ipc")),
    (None, "uts namespace", _namespace("uts")),
    (None, "cgroup namespace", _namespace("cgroup")),
    (None, "time namespace", _namespace("time")),
)
