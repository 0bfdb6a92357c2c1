"""Runs in: the template, and the worker for what is its own. A root with only the granted paths in it.

The threat: whatever stays reachable of the old tree, by "..", a descriptor, a symbolic link in a granted folder, or a
mount that came along. So the order is:

1. Everything that is granted is copied as a *detached* mount while the old paths still mean what the policy meant.
   Mounts handed in by the base are used as they are.
2. An empty tmpfs (or the mount that is to be the root itself) is laid over "/", and entered by descriptor. Absolute
   paths still lead into the old tree; relative ones lead into the new.
3. Mount points are made and opened component by component, never through a symbolic link: a granted folder may be
   hostile.
4. pivot_root(".", ".") puts the old root on top of the new one, umount2 detaches it with all that is below
   (pivot_root(2), NOTES).
5. The root becomes read-only, and the kernel's own table of mounts is compared with what was asked.

Attributes are set by mount_setattr(2) on whole trees at once; before 5.12 by remounting each mount, keeping flags
that are locked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bunri.confine._mounts import MADE, PINNED, allowed, attributes, depth, faults, owner
from bunri.confine.context import refused
from bunri.kernel import mount, procfs
from bunri.plan.steps import Mount

_ROOT_OPTIONS: dict[str, str | None] = {"mode": "0755", "size": "1m", "nr_inodes": "4096"}
# What a remount must repeat, or the kernel takes it for a wish to clear it and refuses where it is locked.
_REPEATED = {
    "ro": mount.RDONLY,
    "nosuid": mount.NOSUID,
    "nodev": mount.NODEV,
    "noexec": mount.NOEXEC,
    "noatime": mount.NOATIME,
    "nodiratime": mount.NODIRATIME,
    "relatime": mount.RELATIME,
}
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def enter_new_root(mounts: Sequence[Mount], handed: Mapping[str, int], ids: tuple[int, int]) -> None:
    """Make the root, enter it, and let go of the old one."""
    _refuse_parents_namespace()
    ordered = [m for m in sorted(mounts, key=depth) if not _left_out(m, handed)]
    before = os.umask(0o022)  # mount points must be passable for the worker's uid
    with ExitStack() as opened:
        opened.callback(os.umask, before)
        table = _own_directory(opened)
        trees = {m.at: _tree(m, handed, ids, opened) for m in ordered if m.kind not in MADE}
        whole = trees.get("/")
        root = _keep(opened, mount.new_filesystem("tmpfs", _ROOT_OPTIONS, PINNED)) if whole is None else whole
        restricted = [_restrict(trees[m.at], m) for m in ordered if m.at in trees]
        mount.attach(root, _keep(opened, os.open("/", _DIRECTORY)))
        os.fchdir(root)
        ours = os.fstat(root).st_dev if whole is None else None
        for each in ordered:
            if each.at != "/":
                _put(_Place(root, ours), each, trees.get(each.at))
        mount.pivot_root(".", ".")
        mount.umount(".", mount.MNT_DETACH)
        os.chdir("/")
        if not all(restricted):
            _remount_all(table, ordered)
        if whole is None:
            _make_root_read_only(root)
        _verify(root, table, ordered)


def mount_in_root(mounts: Sequence[Mount], handed: Mapping[str, int], ids: tuple[int, int]) -> None:
    """Lay further mounts into the root of this mount namespace; their mount points exist already."""
    _refuse_parents_namespace()
    with ExitStack() as opened:
        root = _keep(opened, os.open("/", _DIRECTORY))
        for each in sorted(mounts, key=depth):
            if _left_out(each, handed):
                continue
            tree = _tree(each, handed, ids, opened)
            if not _restrict(tree, each):
                raise refused(errno.ENOSYS, f"mount_setattr: needed for {each.at}")
            _put(_Place(root, None), each, tree)


def _left_out(each: Mount, handed: Mapping[str, int]) -> bool:
    return each.optional and each.at not in handed and not os.path.exists(each.source)


def _keep(opened: ExitStack, fd: int) -> int:
    opened.callback(os.close, fd)
    return fd


def _refuse_parents_namespace() -> None:
    """A plan without its Unshare step must not take the root of the whole system away."""
    try:
        own, other = (os.readlink(f"/proc/{pid}/ns/mnt") for pid in ("self", os.getppid()))
    except OSError:
        return  # no /proc, or a parent out of sight: then it is in another namespace at least of pids or users
    if own == other:
        raise refused(errno.EPERM, "this process is still in its parent's mount namespace")


def _own_directory(opened: ExitStack) -> int | None:
    """/proc/self of the old root: it stays readable after that root is gone. None where there is no /proc."""
    try:
        return _keep(opened, procfs.open_process("self"))
    except OSError:
        return None


def _tree(each: Mount, handed: Mapping[str, int], ids: tuple[int, int], opened: ExitStack) -> int:
    """A detached mount of what is to stand at `each.at`; a handed one stays the caller's to close."""
    if each.kind == "bind" and each.at in handed:
        return handed[each.at]
    return _keep(opened, _fresh_tree(each, ids))


def _fresh_tree(each: Mount, ids: tuple[int, int]) -> int:
    if each.kind == "bind":
        return mount.clone_tree(each.source)
    if each.kind == "device":
        return _device(each.source or each.at)
    if each.kind == "tmpfs":
        return mount.new_filesystem("tmpfs", _tmpfs_options(each, ids), attributes(each))
    if each.kind == "proc":
        return mount.new_filesystem("proc", {}, attributes(each))
    raise refused(errno.EINVAL, f"mounts of kind {each.kind!r} do not exist")


def _tmpfs_options(each: Mount, ids: tuple[int, int]) -> dict[str, str | None]:
    if each.size <= 0 or each.inodes <= 0:
        raise refused(errno.EINVAL, f"the tmpfs at {each.at} has no bound on its size or its number of files")
    uid, gid = ids
    bounds = {"size": str(each.size), "nr_inodes": str(each.inodes)}
    return {**bounds, "mode": "0700", "uid": str(uid), "gid": str(gid)}


def _device(path: str) -> int:
    tree = mount.clone_tree(path)
    if not stat.S_ISCHR(os.fstat(tree).st_mode):
        os.close(tree)
        raise refused(errno.ENODEV, f"{path} is no character device")
    return tree


def _restrict(tree: int, each: Mount) -> bool:
    """Set the attributes on a whole tree. False where the kernel has no mount_setattr: then it is done by
    remounting."""
    if each.kind in ("tmpfs", "proc"):
        return True  # made with them
    try:
        mount.set_attributes(tree, attributes(each), recursive=True)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return False
        raise
    return True


def _parts(at: str) -> list[str]:
    parts = [part for part in at.split("/") if part]
    if not at.startswith("/") or any(part in (".", "..") for part in parts):
        raise refused(errno.EINVAL, f"{at!r} is no absolute path without dots")
    return parts


class _Place(NamedTuple):
    """Where mounts are put: the top, and the device on which mount points may be made (None: nowhere).

    Made on the empty tmpfs only: a mount point made in a granted folder would be made in somebody's real folder.
    """

    root: int
    ours: int | None


def _put(place: _Place, each: Mount, tree: int | None) -> None:
    """Make the mount point (or the link, or the empty directory) and let the mount stand there."""
    *folders, name = _parts(each.at)
    with ExitStack() as opened:
        folder = place.root
        for part in folders:
            folder = _keep(opened, _folder(place, folder, part))
        if each.kind == "link":
            _may_make(place, folder, name)
            os.symlink(each.source, name, dir_fd=folder)
        elif each.kind == "text":
            _may_make(place, folder, name)
            _write_text(folder, name, each.source)
        elif tree is None:
            _keep(opened, _folder(place, folder, name))
        else:
            point = _folder if stat.S_ISDIR(os.fstat(tree).st_mode) else _file
            mount.attach(tree, _keep(opened, point(place, folder, name)))


def _write_text(folder: int, name: str, text: str) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o444, dir_fd=folder), "w") as file:
        file.write(text)


def _may_make(place: _Place, parent: int, name: str) -> None:
    if place.ours is None or os.fstat(parent).st_dev != place.ours:
        raise refused(errno.ENOENT, f"the place {name!r} does not exist where something is to be mounted on it")


def _folder(place: _Place, parent: int, name: str) -> int:
    """Open a directory that is no symbolic link; make it where it does not exist."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        _may_make(place, parent, name)
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)


def _file(place: _Place, parent: int, name: str) -> int:
    """Open a file that is no symbolic link, as a mount point; make an empty one where it does not exist."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        _may_make(place, parent, name)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444, dir_fd=parent))
        fd = os.open(name, flags, dir_fd=parent)
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise refused(errno.ELOOP, f"the mount point {name!r} is a symbolic link")
    return fd


def _make_root_read_only(root: int) -> None:
    try:
        mount.set_attributes(root, PINNED | mount.ATTR_RDONLY)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        mount.mount(None, "/", None, mount.REMOUNT | mount.BIND | PINNED | mount.RDONLY)


def _remount_all(table: int | None, mounts: Sequence[Mount]) -> None:
    """mount(2) with MS_REMOUNT on each mount of the new root, submounts too."""
    if table is None:
        raise refused(errno.ENOSYS, "neither mount_setattr nor /proc: submounts cannot be made read-only")
    for entry in procfs.mounts(table):
        plan = owner(entry.at, mounts)
        if plan is not None and plan.kind in ("bind", "device"):
            kept = sum(_REPEATED[option] for option in entry.options & _REPEATED.keys())
            mount.mount(None, entry.at, None, mount.REMOUNT | mount.BIND | attributes(plan) | kept)


def _verify(root: int, table: int | None, mounts: Sequence[Mount]) -> None:
    """Compare what stands now with what was asked; EXDEV where anything of the old tree is left."""
    here = _identity(os.fstat(root))
    if any(_identity(os.stat(path)) != here for path in ("/", "/..", ".", "..")):
        raise refused(errno.EXDEV, "the new root can be left by its top")
    if table is None:
        return
    for fault in faults(procfs.mounts(table), allowed(mounts)):
        raise refused(errno.EXDEV, fault)


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino
