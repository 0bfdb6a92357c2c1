"""Runs in: nowhere; values only. Hosts that are not here: to plan for them, to explain them, to test.

Each is what `detect()` would find there. Where it was not measured on such a host, it is from its documentation.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from bunri.plan.host import Host, UserNamespaces

_ALL: Final = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
_EVERY_CAPABILITY: Final = tuple(range(41))
_ORDINARY: Final = 1000

ROOT: Final = Host(
    kernel=(6, 18),
    arch="x86_64",
    uid=0,
    capabilities=_EVERY_CAPABILITY,
    user_namespaces=UserNamespaces.FULL,
    namespaces=_ALL,
    pivot_root=True,
    chroot=True,
    landlock_abi=7,
    seccomp=True,
    seccomp_notify=True,
    seccomp_addfd=True,
    seccomp_log=True,
    mdwe=True,
    close_range=True,
    clone3=True,
    pidfd=True,
    io_uring=True,
    keyring=True,
    openat2=True,
    mount_setattr=True,
    reads_not_dumpable=True,
)
"""Linux 6.18, bare, as root."""

ORDINARY: Final = replace(ROOT, uid=_ORDINARY, gid=_ORDINARY, groups=(_ORDINARY,), capabilities=(), chroot=False)
"""The same as an ordinary user."""

LINUX_6_12: Final = replace(ROOT, kernel=(6, 12), landlock_abi=6)
"""The first with Landlock's scopes, as root."""

LINUX_6_1: Final = replace(ROOT, kernel=(6, 1), landlock_abi=2, mdwe=False)
"""Debian 12: Landlock without TCP and scopes, no MDWE, as root."""

LINUX_5_10: Final = replace(
    ROOT,
    kernel=(5, 10),
    landlock_abi=0,
    mdwe=False,
    mount_setattr=False,
    seccomp_addfd=False,
    remarks={"landlock": "ENOSYS"},
)
"""The oldest that we support: no Landlock, no mount_setattr, as root."""

ARM64: Final = replace(ROOT, arch="aarch64")
"""Linux 6.18 on arm64, as root."""

# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE
# SETFCAP
_DOCKER: Final = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
_WITHOUT_NAMESPACES: Final = {f"namespace {name}": "EPERM" for name in _ALL} | {"user_namespaces": "EPERM"}

DOCKER_ROOT: Final = replace(
    LINUX_6_12,
    capabilities=_DOCKER,
    user_namespaces=UserNamespaces.REFUSED,
    namespaces=(),
    pivot_root=False,
    clone3=False,
    io_uring=False,
    keyring=False,
    mount_setattr=False,
    reads_not_dumpable=False,
    remarks={**_WITHOUT_NAMESPACES, "clone3": "ENOSYS", "io_uring": "EPERM", "keyring": "EPERM", "pivot_root": "EPERM"},
)
"""Docker's default profile, as its root, on 6.12: no namespaces, fourteen capabilities."""

DOCKER_ORDINARY: Final = replace(
    DOCKER_ROOT, uid=_ORDINARY, gid=_ORDINARY, groups=(_ORDINARY,), capabilities=(), chroot=False
)
"""The same container, as an ordinary user."""

PODMAN_ROOT: Final = replace(
    ROOT, capabilities=_DOCKER, hostname=False, reads_not_dumpable=False, remarks={"hostname": "EPERM"}
)
"""Podman's default profile, as its root: fourteen capabilities, and user namespaces with all of them."""

ROOTLESS: Final = replace(PODMAN_ROOT, mapped_uids=((0, 1),))
"""A rootless container that knows one uid: its root can become nobody else."""

UBUNTU_24_04: Final = replace(
    ORDINARY,
    kernel=(6, 8),
    landlock_abi=4,
    user_namespaces=UserNamespaces.WITHOUT_CAPABILITIES,
    namespaces=(),
    pivot_root=False,
    mount_setattr=False,
    reads_not_dumpable=False,
    remarks={"user_namespaces": "EPERM", **{f"namespace {name}": "EPERM" for name in _ALL}},
)
"""An ordinary user whose user namespaces have no capabilities, by AppArmor."""

HOSTS: Final[dict[str, Host]] = {
    "root": ROOT,
    "ordinary user": ORDINARY,
    "Linux 6.12": LINUX_6_12,
    "Linux 6.1": LINUX_6_1,
    "Linux 5.10": LINUX_5_10,
    "arm64": ARM64,
    "Docker, root": DOCKER_ROOT,
    "Docker, ordinary user": DOCKER_ORDINARY,
    "Podman, root": PODMAN_ROOT,
    "rootless, one uid": ROOTLESS,
    "Ubuntu 24.04": UBUNTU_24_04,
}
"""All of them by name."""
