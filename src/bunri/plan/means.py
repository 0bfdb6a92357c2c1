"""Runs in: nowhere; values only. What of a host can be used for one policy, decided before the steps are ordered."""

from __future__ import annotations

from functools import cached_property

import msgspec

from bunri.plan.host import Host, UserNamespaces
from bunri.plan.needs import Account, Needs, Shape
from bunri.plan.value import UserNamespace
from bunri.policy import FileGrant, FileKind, NetGrant, NetKind, Settled, UserKind, Via
from bunri.policy.words import JIT, Capability, Profile

# ipc, uts and cgroup cost nothing measurable; time is a flag of clone3.
_PER_WORKER = ("mnt", "pid", "ipc", "uts", "cgroup", "time")
_SELF = ("mnt", "net", "ipc", "uts", "cgroup")
_SCOPES_SINCE = 6  # Landlock ABI
_OWN_ACCOUNTS_SINCE = (5, 14)  # RLIMIT_NPROC is counted per user namespace


class Means(msgspec.Struct, frozen=True, dict=True):
    """The host, the policy and the needs, and what follows from the three."""

    policy: Settled
    host: Host
    needs: Needs
    account: Account | None
    mapped: bool  # a root-started role without root: in a user namespace that does not know uid 0

    @property
    def confines(self) -> bool:
        return self.policy.profile is not Profile.DANGEROUS_UNCONFINED

    @property
    def is_self(self) -> bool:
        return self.needs.shape is Shape.SELF

    def has(self, capability: Capability) -> bool:
        """Whether the process that carries the template's steps out has it, over the namespace it lives in."""
        if self.host.is_root:
            return self.mapped or capability in self.host.capabilities
        return self.owns_user_namespace and not self.is_self

    @property
    def owns_user_namespace(self) -> bool:
        """An ordinary user whose zygotes live in a user namespace, with all capabilities over it."""
        return not self.host.is_root and self.host.user_namespaces is UserNamespaces.FULL

    def can_make(self, namespace: str) -> bool:
        if not self.confines or namespace not in self.host.namespaces or not self.has(Capability.SYS_ADMIN):
            return False
        if self.is_self:
            return namespace in _SELF
        return namespace != "time" or self.host.clone3

    @cached_property
    def own_root(self) -> bool:
        """An empty root of its own, by mount namespace and pivot_root."""
        return self.can_make("mnt") and self.host.pivot_root

    @cached_property
    def chroot(self) -> str | None:
        """The directory to chroot to where there is no mount namespace: the grant at "/", or an empty one ("")."""
        if self.own_root or not self.host.chroot or not self.has(Capability.SYS_CHROOT) or not self.confines:
            return None
        if not self.kernel_files:
            return ""
        only = self.kernel_files[0]
        return only.path if len(self.kernel_files) == 1 and only.at == "/" and only.path != "/" else None

    @property
    def hides_tree(self) -> bool:
        """Whether paths lead into a root that has only what was granted."""
        return self.own_root or self.chroot is not None

    @property
    def own_pids(self) -> bool:
        return self.can_make("pid")

    @property
    def landlock(self) -> int:
        return self.host.landlock_abi if self.confines else 0

    @property
    def scopes(self) -> bool:
        return self.landlock >= _SCOPES_SINCE

    @property
    def memory_group(self) -> int | None:
        """The bound on the memory of its own control group, in bytes, where it gets one."""
        mine = self.confines and self.host.memory_groups and not self.is_self
        return self.policy.memory if mine else None

    @property
    def pins(self) -> bool:
        """Whether the template may pin what its workers write to: as root, for an ordinary user's monitor cannot see what that is."""
        return self.host.io_uring and self.host.is_root and self.needs.shape is Shape.WORKER

    @property
    def host_network(self) -> bool:
        return any(grant.kind is NetKind.DANGEROUS_HOST for grant in self.policy.network)

    # brokers -----------------------------------------------------------------------------------------------------

    @property
    def brokered_files(self) -> bool:
        """Whether every path that it names goes to a broker: no filter sees which grant a path belongs to."""
        return self.confines and any(grant.via is Via.BROKER for grant in self.policy.files)

    @property
    def connects(self) -> tuple[NetGrant, ...]:
        """The grants of network that a broker carries out."""
        return tuple(grant for grant in self.policy.network if grant.kind is not NetKind.DANGEROUS_HOST)

    @property
    def brokered_network(self) -> bool:
        return self.confines and bool(self.connects)

    @property
    def brokered(self) -> bool:
        """Whether calls of it stand still until its broker has answered them."""
        return self.brokered_files or self.brokered_network

    @property
    def listens(self) -> bool:
        """Whether its last filter has a listener: its broker's, or development mode's."""
        return self.brokered or self.tells_denials

    @property
    def tells_denials(self) -> bool:
        """Development mode: what its filter refuses goes to its broker, which refuses it and tells. Where no broker can
        read its memory it goes without; and where its processes could not be told from the monitor's own."""
        if self.is_self or self.policy.profile is not Profile.NORMAL:
            return False
        if self.several and not self.own_pids:
            return False
        return self.needs.notify_denials and self.host.seccomp_notify and self.host.reads_not_dumpable

    @property
    def several(self) -> bool:
        """Whether it may be several processes, or another program: its broker asks for the memory of each."""
        return self.needs.shape is Shape.PROGRAM or self.policy.processes > 0

    @property
    def named_hosts(self) -> tuple[str, ...]:
        """Granted hosts that are names. The C library finds them in a file of ours."""
        return tuple(dict.fromkeys(g.host for g in self.connects if g.kind is NetKind.CONNECT and is_name(g.host)))

    @property
    def own_names(self) -> bool:
        """Whether that file stands in its root. Where a broker opens everything, it has the file too."""
        return bool(self.named_hosts) and self.own_root and not self.brokered_files and self.brokered_network

    @property
    def kernel_files(self) -> tuple[FileGrant, ...]:
        """The grants of files that its own root, Landlock and its own calls carry out."""
        return () if self.brokered_files else self.policy.files

    @property
    def shares_net(self) -> bool:
        """One empty network namespace for all workers of a template. Siblings then share abstract sockets, so the
        filter must refuse socket() and the Landlock scope must stand (THREATS 9)."""
        return self.can_make("net") and self.scopes and not self.grants_sockets and self.needs.shape is Shape.WORKER

    @property
    def grants_sockets(self) -> bool:
        """Whether `syscalls=` might let socket() through."""
        return self.lets_through("socket")

    def lets_through(self, call: str) -> bool:
        """Whether `syscalls=` might."""
        return any(call in calls_let_through(entry) for entry in self.policy.syscalls)

    @cached_property
    def template_namespaces(self) -> tuple[str, ...]:
        if self.is_self:
            return tuple(n for n in _SELF if self.can_make(n) and (n != "net" or not self.host_network))
        made = [n for n in ("mnt", "uts") if self.can_make(n) and (n != "mnt" or self.own_root)]
        if self.shares_net and not self.host_network:
            made.append("net")
        return tuple(made)

    @cached_property
    def worker_namespaces(self) -> tuple[str, ...]:
        if self.is_self:
            return ()
        made = [n for n in _PER_WORKER if self.can_make(n) and (n != "mnt" or self.own_root)]
        if self.can_make("net") and not self.shares_net and not self.host_network:
            made.append("net")
        return tuple(made)

    @cached_property
    def user_namespace(self) -> UserNamespace | None:
        """Of the worker alone. Unmapped it can become nobody, but neither can it make files."""
        if self.host.is_root or self.is_self or not self.confines:
            return None
        if self.host.user_namespaces is UserNamespaces.REFUSED:
            return None
        return "mapped" if any(grant.writable for grant in self.kernel_files) else "unmapped"

    @property
    def writes_paths(self) -> bool:
        return any(grant.writable for grant in self.policy.files)

    @property
    def maps_code(self) -> bool:
        return any(grant.executable for grant in self.kernel_files)

    @property
    def writes_code(self) -> bool:
        """Whether it may make memory executable that it has written: no MDWE."""
        return JIT in self.policy.syscalls

    @property
    def scratches(self) -> bool:
        return any(grant.kind is FileKind.SCRATCH for grant in self.policy.files)

    @property
    def own_path_rules(self) -> bool:
        """Whether Landlock's path rules are each worker's own step. Under them nothing can be mounted any more, and the
        template could not open /proc/PID/uid_map: so it is so for a scratch, for a mapped user namespace, and where the
        label is to be changed in /proc."""
        return (self.scratches and self.own_root) or self.user_namespace == "mapped" or self.label is not None

    # identity ----------------------------------------------------------------------------------------------------

    @property
    def changes_ids(self) -> bool:
        """Whether the worker gets another uid than the one that starts it."""
        user = self.policy.user
        if user.kind is UserKind.SAME or not self.host.is_root:
            return False
        return self.has(Capability.SETUID) and self.has(Capability.SETGID)

    @property
    def ids(self) -> Account | None:
        """The worker's numbers, where they are known already."""
        user = self.policy.user
        if user.kind is UserKind.IDS:
            return Account(user.uid, user.gid, user.groups)
        if user.kind is UserKind.SAME or not self.host.is_root:
            return Account(self.host.uid, self.host.gid, self.host.groups)
        return self.account

    @property
    def label(self) -> str | None:
        """The label to change to, in full; None where none is asked for, or the host has no such module."""
        wanted, module = self.policy.selinux or self.policy.apparmor, self.host.label_module
        if not self.confines or wanted is None or module != ("selinux" if self.policy.selinux else "apparmor"):
            return None
        own = self.host.label.split(":")
        if module == "apparmor" or ":" in wanted or len(own) < 3:
            return wanted
        return ":".join((*own[:2], wanted, *own[3:]))  # user:role:DOMAIN:range, of which only the domain is another

    @property
    def keeps(self) -> tuple[int, ...]:
        """The capabilities it has in the end."""
        return tuple(int(capability) for capability in self.policy.capabilities)

    @property
    def looked_at_early(self) -> bool:
        """Nobody outside can look once the worker is not dumpable: it stops before."""
        return not self.host.reads_not_dumpable and not self.is_self

    @property
    def counts_own_processes(self) -> bool:
        """Whether RLIMIT_NPROC counts this worker's processes only."""
        if self.changes_ids:
            return self.policy.user.kind is UserKind.DYNAMIC
        return self.user_namespace is not None and self.host.kernel >= _OWN_ACCOUNTS_SINCE


def is_name(host: str) -> bool:
    """Whether a granted host is a name, and no address."""
    return ":" not in host and not all(part.isdigit() for part in host.split("."))


def calls_let_through(entry: object) -> frozenset[str]:
    """The calls that one entry of `syscalls=` adds."""
    from bunri import seccomp

    if isinstance(entry, seccomp.Rule):
        return frozenset() if entry.refuses else entry.calls
    name = str(entry).removeprefix("dangerous_")
    return frozenset(seccomp.group(name) if name.startswith("@") else (name,))
