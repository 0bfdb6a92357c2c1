"""Runs in: nowhere; values only. What a kernel and a user can do, as a value.

`bunri.confine.detection.detect()` makes one by trying each thing in a child; tests and `explain --host` write their own.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class UserNamespaces(Enum):
    """What unshare(CLONE_NEWUSER) gives the user who starts the program."""

    FULL = "full"  # made, mapped, and full capabilities inside
    WITHOUT_CAPABILITIES = "without capabilities"  # made, but the security module takes the capabilities (Ubuntu 24.04)
    REFUSED = "refused"


FEWEST_DESCRIPTORS = 72  # that a program may have: its zygotes keep some from number 64 on


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One host, as seen by one user. Every field was tried in a child, not looked up by version."""

    kernel: tuple[int, int]
    arch: str  # "x86_64" or "aarch64", as uname(2) says
    uid: int  # 0: the program was started as root
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[int, ...] = ()  # effective, in the program's own user namespace
    last_capability: int = 40
    user_namespaces: UserNamespaces = UserNamespaces.REFUSED
    namespaces: tuple[
        str, ...
    ] = ()  # can be made: mnt pid net ipc uts cgroup time (inside a user namespace, for an ordinary user)
    hostname: bool = True  # can be set in a uts namespace of its own: an engine's filter may refuse it everywhere
    pivot_root: bool = False
    chroot: bool = False
    landlock_abi: int = 0  # 0: none
    seccomp: bool = False
    seccomp_notify: bool = False
    seccomp_addfd: bool = False  # a descriptor can be the answer to a notified call, in one step (Linux 5.14)
    seccomp_log: bool = False
    mdwe: bool = False
    close_range: bool = False
    clone3: bool = False
    pidfd: bool = False
    io_uring: bool = False  # memory can be pinned by one, so that a fork copies it
    keyring: bool = False
    openat2: bool = False
    label_module: str = ""  # which security module labels processes: "selinux", "apparmor", or none
    label: str = ""  # our own, as the kernel spells it
    label_enforced: bool = False  # SELinux refuses and does not only log; of AppArmor each profile says
    mount_setattr: bool = False
    memory_groups: bool = False  # the program can make control groups (version 2) that bound memory
    reads_not_dumpable: bool = False  # the monitor can read /proc/PID/{ns,fd} of a worker with dumpable 0
    mapped_uids: tuple[tuple[int, int], ...] = ((0, 4294967295),)  # (first, count) that exist in our user namespace
    merged_usr: tuple[str, ...] = ("/bin", "/sbin", "/lib", "/lib64")  # these are links into /usr
    limits: dict[str, int] = {}  # hard limits that already bind us; -1 for none
    remarks: dict[str, str] = {}  # what was refused, with errno's name, for the user's eyes

    @property
    def is_root(self) -> bool:
        """Whether it can become other users: uid 0, where there are others. A rootless container may know root only:
        that root is an ordinary user."""
        return self.uid == 0 and any(first + count > 1 for first, count in self.mapped_uids)

    def to_json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self)).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Host:
        return msgspec.json.decode(text, type=cls)
