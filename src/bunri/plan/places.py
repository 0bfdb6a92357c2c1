"""Runs in: nowhere; values only. From grants of files to mounts, and to Landlock's rights (landlock(7)).

Landlock's rights are those of paths in the root that the worker has by then. Which right came with which ABI matters
twice: an unknown one is refused by the kernel, and a missing one is a hole that the report names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bunri.plan.means import Means
from bunri.plan.needs import PythonPaths
from bunri.plan.steps import Landlock, Mount
from bunri.policy import FileGrant, FileKind

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in (7, 8, 12, 13, 14, 15))
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT, SCOPE_SIGNAL = 1, 2

_FS_SINCE: Final = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
_NET_SINCE, _SCOPES_SINCE = 4, 6

_READ: Final = READ_FILE | READ_DIR
_CHANGE: Final = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
_RIGHTS: Final = {
    FileKind.READ: _READ,
    FileKind.WRITE: _READ | _CHANGE,
    FileKind.SCRATCH: _READ | _CHANGE,
    FileKind.EXECUTE: _READ | EXECUTE,
}

# fs.system(): beside /usr. Nothing here is anybody's secret.
SYSTEM_FILES: Final = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates",
    "/etc/alternatives",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/fonts",
)
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_MERGED: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_BYTES_PER_INODE = 4096


def mounts(means: Means, python: PythonPaths) -> tuple[Mount, ...]:
    """What stands in the new root; a scratch only as the empty directory on which each worker mounts its own."""
    found: dict[str, Mount] = {}
    for mount in _names_files(means):
        found[mount.at] = mount
    for grant in means.kernel_files:
        for mount in _mounts_of(grant, means, python):
            before = found.setdefault(mount.at, mount)
            if before.optional and not mount.optional:
                found[mount.at] = mount  # what was named stands before what a bundle brings along
    return tuple(mount for mount in found.values() if not _within_another(mount, found.values()))


def _names_files(means: Means) -> Iterable[Mount]:
    """What the C library reads to find the granted hosts, and no others: no name server is asked from in there."""
    if means.own_names:
        hosts = hosts_file(means.needs.names)
        yield Mount("text", "/etc/hosts", hosts)
        yield Mount("text", "/etc/nsswitch.conf", NSSWITCH)


NSSWITCH: Final = "hosts: files\n"


def hosts_file(names: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """/etc/hosts with the addresses that the granted names had when they were looked up."""
    return "".join(f"{address} {name}\n" for name, addresses in names for address in addresses)


def own_mounts(means: Means) -> tuple[Mount, ...]:
    """A worker's scratches."""
    return tuple(
        Mount("tmpfs", g.at, writable=True, size=g.size, inodes=max(16, g.size // _BYTES_PER_INODE))
        for g in means.policy.files
        if g.kind is FileKind.SCRATCH
    )


def _mounts_of(grant: FileGrant, means: Means, python: PythonPaths) -> Iterable[Mount]:
    match grant.kind:
        case FileKind.SCRATCH:
            yield Mount("directory", grant.at)
        case FileKind.PYTHON:
            for path in python.grants():
                yield Mount("bind", path, path, executable=True, optional=True)
            yield from _links(means, ("/lib", "/lib64"))
        case FileKind.SYSTEM:
            yield Mount("bind", "/usr", "/usr", executable=True)
            yield from _links(means, _MERGED)
            for path in SYSTEM_FILES:
                yield Mount("bind", path, path, optional=True)
            for path in DEVICES:
                yield Mount("device", path, path, writable=True, optional=True)
        case FileKind.READ | FileKind.WRITE | FileKind.EXECUTE:
            yield Mount("bind", grant.at, grant.path, writable=grant.writable, executable=grant.executable)


def _links(means: Means, names: Iterable[str]) -> Iterable[Mount]:
    """/bin and its kind: links into /usr where they are, folders of their own elsewhere."""
    for name in names:
        if name in means.host.merged_usr:
            yield Mount("link", name, f"usr{name}")
        else:
            yield Mount("bind", name, name, executable=True, optional=True)


def _within_another(mount: Mount, others: Iterable[Mount]) -> bool:
    """Whether a bind of the same tree with the same rights already shows it in the same place."""
    return any(
        other is not mount
        and mount.kind == other.kind == "bind"
        and mount.at.startswith(other.at.rstrip("/") + "/")
        and mount.source == other.source.rstrip("/") + mount.at[len(other.at.rstrip("/")) :]
        and (mount.writable, mount.executable) == (other.writable, other.executable)
        for other in others
    )


# Landlock ----------------------------------------------------------------------------------------------------------


def handled_fs(abi: int) -> int:
    """All rights of files that this ABI knows."""
    mask = 0
    for since, rights in _FS_SINCE.items():
        mask |= rights if since <= abi else 0
    return mask


def landlock_rules(means: Means, python: PythonPaths) -> Landlock:
    """Files and TCP: what a template's workers share. No scope: siblings would be in one."""
    handled = handled_fs(means.landlock)
    paths: dict[str, int] = {}
    for path, rights in _paths(means, python):
        paths[path] = paths.get(path, 0) | rights & handled
    optional = {m.at for m in mounts(means, python) if m.optional}
    return Landlock(
        abi=means.landlock,
        handled_fs=handled,
        handled_net=_net(means),
        paths=tuple(sorted(paths.items())),
        optional=tuple(sorted(optional & paths.keys())),
        reason="files and TCP, a second time, by path and port",
    )


def landlock_scope(means: Means) -> Landlock:
    """Signals and abstract sockets: each worker in a domain of its own.

    Every domain refuses moves between folders unless it allows them itself (LANDLOCK_ACCESS_FS_REFER), also one that
    is not about files. This one leaves them to the domain that is.
    """
    abstract = 0 if means.host_network else SCOPE_ABSTRACT
    return Landlock(
        abi=means.landlock,
        handled_fs=REFER if means.writes_paths else 0,
        paths=(("/", REFER),) if means.writes_paths else (),
        scoped=SCOPE_SIGNAL | abstract,
        reason="no signals and no sockets to siblings",
    )


def _net(means: Means) -> int:
    return 0 if means.host_network or means.landlock < _NET_SINCE else BIND_TCP | CONNECT_TCP


def _paths(means: Means, python: PythonPaths) -> Iterable[tuple[str, int]]:
    for mount in _names_files(means):
        yield mount.at, READ_FILE
    if means.own_root and means.kernel_files:
        yield "/", READ_DIR  # its own root: nothing is in it but what is granted
    place = "at" if means.hides_tree else "path"
    for grant in means.kernel_files:
        if grant.kind in (FileKind.PYTHON, FileKind.SYSTEM):
            for mount in _mounts_of(grant, means, python):
                if mount.kind != "link":
                    yield mount.at, _bundle_rights(mount, grant)
        else:
            yield (getattr(grant, place) or grant.at), _RIGHTS[grant.kind]


def _bundle_rights(mount: Mount, grant: FileGrant) -> int:
    if mount.kind == "device":
        return READ_FILE | WRITE_FILE
    return _READ | (EXECUTE if mount.executable and grant.kind is FileKind.SYSTEM else 0)
