"""Runs in: the process that asks, with its user's rights. Where a path of a worker leads: through the root that a plan
gives it, into the files of this host.

The plan says what stands in the root; what lies beneath a grant, which symbolic links are there and whom the files
belong to is read here. For the plan of another host there is nothing to be read: then the grants alone answer.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from bunri.plan import Plan
from bunri.plan.steps import EMPTY_DIRECTORY, Chroot, Mount, MountInRoot, NewRoot

_MOST_LINKS = 40


class Where(Enum):
    """What a path leads to."""

    MISSING = "missing"  # nothing is there, in this root
    FOLDER = "folder"  # a folder of the root itself, made on the way to a grant: read-only, everybody's
    SCRATCH = "scratch"  # the worker's own file system
    BOUND = "bound"  # a file or folder of the host


@dataclass(frozen=True)
class Place:
    """Where a path ends. `path` is it without links, as the worker names it; `real` its name on the host."""

    where: Where
    path: str
    real: str = ""
    mount: Mount | None = None
    through: tuple[str, ...] = ()  # host's folders that were searched on the way


class Root:
    """The root that a plan gives: the mounts in it, or a chroot, or the host's own tree."""

    def __init__(self, plan: Plan, *, reads_files: bool) -> None:
        steps = (*plan.template, *plan.worker)
        self.reads_files = reads_files
        self.is_own = any(isinstance(step, NewRoot) for step in steps)
        mounts = [each for step in steps if isinstance(step, NewRoot | MountInRoot) for each in step.mounts]
        self._mounts: dict[str, Mount] = {each.at: each for each in mounts if self._stands(each)}
        chroot = next((step.path for step in steps if isinstance(step, Chroot)), None)
        if chroot is not None:
            self._mounts = {} if chroot == EMPTY_DIRECTORY else {"/": Mount("bind", "/", chroot, True, True)}
        elif not self.is_own:
            self._mounts = {"/": Mount("bind", "/", "/", writable=True, executable=True)}

    def _stands(self, each: Mount) -> bool:
        return not (each.optional and self.reads_files and not os.path.exists(each.source))

    def find(self, path: str) -> Place:
        """Follow a path, with its links, as the kernel would in there."""
        through: list[str] = []
        for _ in range(_MOST_LINKS):
            again = self._step(path, through)
            if isinstance(again, Place):
                return again
            path = again
        return Place(Where.MISSING, path)

    def has(self, path: str) -> bool:
        """Whether the name itself is taken, be it by a link that leads nowhere. Its folder has no links in it."""
        return self._at(path).where is not Where.MISSING

    def _step(self, path: str, through: list[str]) -> Place | str:
        """The end of the path, or, at a symbolic link, the path to go on with."""
        at = "/"
        rest = [part for part in path.split("/") if part]
        for index in range(len(rest) + 1):
            place = self._at(at)
            if place.where is Where.MISSING:
                return place
            target = self._link(at, place)
            if target is not None:
                return posixpath.normpath(posixpath.join(posixpath.dirname(at), target, *rest[index:]))
            if index == len(rest):
                return Place(place.where, place.path, place.real, place.mount, tuple(through))
            if place.real:
                through.append(place.real)
            at = posixpath.join(at, rest[index])
        raise AssertionError("a path has an end")

    def _link(self, at: str, place: Place) -> str | None:
        if place.mount is not None and place.mount.kind == "link":
            return place.mount.source
        if place.where is Where.BOUND and self.reads_files and at not in self._mounts and os.path.islink(place.real):
            return os.readlink(place.real)
        return None

    def _at(self, path: str) -> Place:
        """What stands at a path whose folders are no links."""
        mount = self._mounts.get(path)
        if mount is None:
            inside = [at for at in self._mounts if _beneath(path, at)]
            if any(_beneath(at, path) for at in self._mounts) or (path == "/" and "/" not in self._mounts):
                return Place(Where.FOLDER, path)
            if not inside:
                return Place(Where.MISSING, path)
            mount = self._mounts[max(inside, key=len)]
        if mount.kind in ("tmpfs", "directory"):
            return Place(Where.SCRATCH if path == mount.at else Where.MISSING, path, mount=mount)
        if mount.kind == "link":
            return Place(Where.FOLDER, path, mount=mount) if path == mount.at else Place(Where.MISSING, path)
        real = mount.source.rstrip("/") + path[len(mount.at.rstrip("/")) :] or "/"
        if self.reads_files and not os.path.lexists(real):
            return Place(Where.MISSING, path, real, mount)
        return Place(Where.BOUND, path, real, mount)


def _beneath(path: str, top: str) -> bool:
    return path != top and path.startswith(top.rstrip("/") + "/")


@dataclass(frozen=True)
class Ids:
    """Whose rights a worker has to files. `uid` None: a number that owns nothing here."""

    uid: int | None
    gids: frozenset[int]

    def may(self, info: os.stat_result, wanted: int) -> bool:
        """Whether the permission bits allow `wanted` (4 read, 2 write, 1 execute or search). ACLs are not looked at."""
        shift = 6 if info.st_uid == self.uid else 3 if info.st_gid in self.gids else 0
        return (info.st_mode >> shift) & wanted == wanted

    def may_search(self, folders: Iterable[str]) -> str | None:
        """The first folder that may not be searched, or None."""
        for folder in folders:
            try:
                info = os.stat(folder)
            except OSError:
                return folder
            if stat.S_ISDIR(info.st_mode) and not self.may(info, 1):
                return folder
        return None
