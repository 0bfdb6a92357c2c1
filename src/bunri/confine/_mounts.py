"""Runs in: the template, the worker and the monitor. Which mounts a root may show, and with which attributes.

Used twice: from inside right after the root was made, and from outside by the monitor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bunri.kernel import mount, procfs
from bunri.plan.steps import Mount
from bunri.plan.value import ExpectedMount

MADE = ("link", "directory", "text")  # what is made in the root, not mounted
PINNED = mount.ATTR_NOSUID | mount.ATTR_NODEV | mount.ATTR_NOEXEC

_OPTION_NAMES = {
    mount.ATTR_RDONLY: "ro",
    mount.ATTR_NOSUID: "nosuid",
    mount.ATTR_NODEV: "nodev",
    mount.ATTR_NOEXEC: "noexec",
}


def depth(each: Mount) -> int:
    return sum(bool(part) for part in each.at.split("/"))


def attributes(each: Mount) -> int:
    """nosuid always; nodev but for devices; noexec and read-only but where granted."""
    return _attributes(each.kind == "device", each.writable, each.executable)


def attributes_of(each: ExpectedMount) -> int:
    """The same for a line that the monitor expects: devices are those that stand in /dev."""
    return _attributes(each.at.startswith("/dev/"), each.writable, each.executable)


def _attributes(device: bool, writable: bool, executable: bool) -> int:
    found = mount.ATTR_NOSUID
    found |= 0 if device else mount.ATTR_NODEV
    found |= 0 if executable else mount.ATTR_NOEXEC
    return found | (0 if writable else mount.ATTR_RDONLY)


def owner(at: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount of the plan to which the place `at` belongs: the deepest one at it or above it."""
    found = [m for m in mounts if m.kind not in MADE and (m.at == "/" or at == m.at or at.startswith(f"{m.at}/"))]
    return max(found, key=depth, default=None)


class Allowed(NamedTuple):
    """One mount that may stand in a root: where, with which attributes at least, and whether it may be absent.

    What is mounted below it came along with it and must have the same attributes; below the empty root nothing may be.
    """

    at: str
    attributes: int
    optional: bool = False
    empty: bool = False

    def covers(self, at: str) -> bool:
        return at == self.at or (not self.empty and (self.at == "/" or at.startswith(f"{self.at}/")))


EMPTY_ROOT = Allowed("/", PINNED | mount.ATTR_RDONLY, empty=True)


def allowed(mounts: Iterable[Mount]) -> tuple[Allowed, ...]:
    """What the steps of a plan make, the empty root among it."""
    made = tuple(Allowed(m.at, attributes(m), m.optional) for m in mounts if m.kind not in MADE)
    return made if any(each.at == "/" for each in made) else (EMPTY_ROOT, *made)


def faults(entries: Sequence[procfs.MountEntry], plan: Sequence[Allowed]) -> Iterator[str]:
    """What in the kernel's table is not as the plan says, in words."""
    places = [entry.at for entry in entries]
    if places.count("/") != 1:
        yield f"{places.count('/')} mounts stand at the root"
    for entry in entries:
        yield from _faults_of(entry, plan)
    for each in plan:
        if not each.optional and each.at not in places:
            yield f"{each.at} is not mounted"


def _faults_of(entry: procfs.MountEntry, plan: Sequence[Allowed]) -> Iterator[str]:
    nearest = max((each for each in plan if each.covers(entry.at)), key=lambda each: len(each.at), default=None)
    if nearest is None:
        yield f"{entry.at} is mounted, and was not asked for"
        return
    missing = [name for flag, name in _OPTION_NAMES.items() if nearest.attributes & flag and name not in entry.options]
    if missing:
        yield f"{entry.at} is mounted without {', '.join(missing)}"
