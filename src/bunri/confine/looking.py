"""Runs in: the monitor. What the kernel says of a worker, read from outside and compared with the plan (THREATS 5, 6).

A worker's own report is hearsay: code of the user ran before it. So the monitor reads /proc/PID itself. What nothing
can change any more is read EARLY, while the worker still carries out its steps; the rest LATE, when it says that it is
ready, before anything is sent to it. What may not be read is said to be so: it never counts as right.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum

import msgspec

from bunri.confine._mounts import EMPTY_ROOT, Allowed, attributes_of, faults
from bunri.errors import BunriError, HostError, Promise
from bunri.kernel import descriptors, ids, label, mount, procfs
from bunri.plan.value import Expected


class Part(Enum):
    """Which half of the look: EARLY and LATE; or, where nobody may read of a process that is not dumpable, HELD and
    AFTER."""

    EARLY = "early"
    LATE = "late"
    HELD = "held"  # it waits at its checkpoint, still dumpable: all that cannot be read afterwards
    AFTER = "after"  # what is left for the end, where there was a checkpoint


Links = Mapping[str, Mapping[str, str]]
"""Of "monitor" and "template": namespace -> its link in /proc/PID/ns."""


class Sight(msgspec.Struct, frozen=True):
    """What the look must find beyond the plan's words: known when one worker is asked for. None: as the plan says.

    `template` is the pid of its template, `links` what is known already of the namespaces of it and of the monitor.
    `descriptors`: number -> kind, or kind and access as in "pipe r".
    `image`: bytes, to which the plan's `above_image` adds. `as_worker`: look with the worker's own ids, for a monitor
    that is root without CAP_SYS_PTRACE.
    """

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    template: int | None = None
    links: Links | None = None
    descriptors: Mapping[int, str] | None = None
    image: int | None = None
    as_worker: bool = False

    def eyes(self) -> AbstractContextManager[None]:
        """Whose rights count for reading."""
        if self.as_worker and self.uid is not None and self.gid is not None:
            return ids.file_system_ids(self.uid, self.gid)
        return nullcontext()


class Difference(msgspec.Struct, frozen=True):
    """Something that is not what the plan says."""

    field: str
    expected: str
    seen: str

    def __str__(self) -> str:
        return f"{self.field} is {self.seen}, and should be {self.expected}"


class Unreadable(msgspec.Struct, frozen=True):
    """Something that the kernel does not let us see. It is not known to be right."""

    field: str
    errno: int

    def __str__(self) -> str:
        return f"{self.field} cannot be read from outside ({os.strerror(self.errno)})"


class Look(msgspec.Struct, frozen=True):
    """One half of the look: what was found right (by field), what was not, what was hidden."""

    part: Part
    right: tuple[str, ...]
    differences: tuple[Difference, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()

    def fault(self, may_miss: frozenset[Promise] | tuple[Promise, ...] = ()) -> BunriError | None:
        """Why the worker must not be used; None where all is well.

        Hidden fields are forgiven where the promise they belong to may be missing; differences never are.
        """
        for difference in self.differences:
            return HostError(
                f"seen from outside, {difference}",
                promise=promise_of(difference.field),
                layer=difference.field,
                remedy="The worker has been ended. Something interferes with its confinement, or bunri is wrong",
            )
        for hidden in self.unreadable:
            promise = promise_of(hidden.field)
            if promise not in may_miss:
                return HostError(
                    str(hidden),
                    promise=promise,
                    layer=hidden.field,
                    errno=hidden.errno,
                    remedy=f"Give the program CAP_SYS_PTRACE, or write may_miss=(Promise.{promise.name},)",
                )
        return None


_PROMISES = {
    "uid": Promise.IDENTITY,
    "gid": Promise.IDENTITY,
    "groups": Promise.IDENTITY,
    "effective": Promise.IDENTITY,
    "permitted": Promise.IDENTITY,
    "inheritable": Promise.IDENTITY,
    "bounding": Promise.IDENTITY,
    "ambient": Promise.IDENTITY,
    "no_new_privs": Promise.SYSCALLS,
    "seccomp_mode": Promise.SYSCALLS,
    "filters": Promise.SYSCALLS,
    "namespace user": Promise.IDENTITY,
    "namespace mnt": Promise.FILES,
    "namespace net": Promise.NETWORK,
    "mounts": Promise.FILES,
    "descriptors": Promise.FILES,
    "limit CPU": Promise.TIME,
    "label": Promise.LABEL,
}


def promise_of(field: str) -> Promise:
    """The promise that a field of the look belongs to."""
    return _PROMISES.get(field, Promise.MEMORY if field.startswith("limit") else Promise.PROCESSES)


def look(pid: int, expected: Expected, part: Part, sight: Sight | None = None) -> Look:
    """Read one half from /proc/PID and compare. `pid` must not have been reaped. Nothing is raised for what it
    finds."""
    found = _Finding()
    try:
        directory = procfs.open_process(pid)
    except OSError as error:
        found.hide("process", error)
        return found.as_look(part)
    try:
        for each in _READINGS[part]:
            each(found, directory, expected, sight or Sight())
    finally:
        os.close(directory)
    return found.as_look(part)


class _Finding:
    """A Look in the making."""

    def __init__(self) -> None:
        self.right: list[str] = []
        self.differences: list[Difference] = []
        self.unreadable: list[Unreadable] = []

    def compare(self, field: str, expected: object, seen: object) -> None:
        if expected == seen:
            self.right.append(field)
        else:
            self.differences.append(Difference(field, str(expected), str(seen)))

    def hide(self, field: str, error: Exception) -> None:
        self.unreadable.append(Unreadable(field, (error.errno or 0) if isinstance(error, OSError) else 0))

    def as_look(self, part: Part) -> Look:
        return Look(part, tuple(self.right), tuple(self.differences), tuple(self.unreadable))


def _namespaces(found: _Finding, directory: int, expected: Expected, sight: Sight) -> None:
    names = expected.namespaces
    if not names:
        return
    theirs = sight.links or links_of_others(sight.template, names)
    of_monitor, of_template = theirs["monitor"], theirs["template"]
    links: dict[str, str] = {}
    with sight.eyes():
        for name in names:
            try:
                links[name] = procfs.namespace(directory, name)
            except OSError as error:
                found.hide(f"namespace {name}", error)
    for name, seen in links.items():
        field, whose = f"namespace {name}", names[name]
        monitors, templates = of_monitor.get(name), of_template.get(name)
        is_hidden = templates is None if whose == "template" else monitors is None
        if is_hidden or (whose == "own" and sight.template and templates is None):
            found.unreadable.append(Unreadable(field, errno.EACCES))
        elif seen == templates and (whose == "template" or seen != monitors):
            found.compare(field, whose, "template")
        else:
            found.compare(field, whose, "monitor" if seen == monitors else "own")


def links_of_others(template: int | None, names: Iterable[str]) -> Links:
    """Those that a worker's are compared with. What cannot be read is not there."""
    return {
        "monitor": _links_of("self", names),
        "template": _links_of(template, names) if template else {},
    }


def _links_of(process: int | str, names: Iterable[str]) -> dict[str, str]:
    """The namespace links of another process; empty where they cannot be read."""
    try:
        directory = procfs.open_process(process)
    except OSError:
        return {}
    try:
        return {name: procfs.namespace(directory, name) for name in names}
    except OSError:
        return {}
    finally:
        os.close(directory)


def _limits(found: _Finding, directory: int, expected: Expected, sight: Sight) -> None:
    if not expected.limits and expected.above_image is None:
        return
    try:
        seen = procfs.limits(directory)
    except (OSError, ValueError, KeyError) as error:
        found.hide("limits", error)
        return
    for name, value in (expected.limits or {}).items():
        found.compare(f"limit {name}", (value, value), seen.get(name))
    if expected.above_image is not None:
        _address_space(found, expected.above_image, sight.image, seen["AS"])


def _address_space(found: _Finding, above: int, image: int | None, seen: tuple[int, int]) -> None:
    """Exactly the image and what is granted above it; where the image is not known, at least a bound."""
    if image is not None:
        found.compare("limit AS", (image + above,) * 2, seen)
    else:
        found.compare("limit AS", "a bound", "a bound" if above <= seen[0] == seen[1] else seen)


def _oom_score(found: _Finding, directory: int, expected: Expected, sight: Sight) -> None:
    if expected.oom_score is None:
        return
    try:
        seen = int(procfs.read(directory, "oom_score_adj"))
    except OSError as error:
        found.hide("oom_score", error)
    else:
        found.compare("oom_score", expected.oom_score, seen)


def _mount_table(found: _Finding, directory: int, expected: Expected, sight: Sight) -> None:
    if expected.mounts is None:
        return
    try:
        entries = procfs.mounts(directory)
    except (OSError, ValueError) as error:
        found.hide("mounts", error)
        return
    wrong = _wrong_mounts(entries, _allowed(expected))
    if wrong:
        found.differences.extend(Difference("mounts", "those of the plan", text) for text in wrong)
    else:
        found.right.append("mounts")


@functools.lru_cache(64)
def _wrong_mounts(entries: tuple[procfs.MountEntry, ...], plan: tuple[Allowed, ...]) -> tuple[str, ...]:
    """Of all workers of one template it is the same question."""
    return tuple(faults(entries, plan))


def _allowed(expected: Expected) -> tuple[Allowed, ...]:
    """The plan's lines, and the root: where a folder for writing is the root itself, it is no empty one."""
    root = Allowed("/", mount.ATTR_NOSUID | mount.ATTR_NODEV) if expected.root_writable else EMPTY_ROOT
    return (root, *(Allowed(m.at, attributes_of(m), m.optional) for m in expected.mounts or () if m.at != "/"))


def _status(found: _Finding, directory: int, expected: Expected, sight: Sight) -> None:
    try:
        seen = procfs.status(directory)
    except (OSError, ValueError) as error:
        found.hide("status", error)
        return
    uid = expected.uid if sight.uid is None else sight.uid
    gid = expected.gid if sight.gid is None else sight.gid
    groups = expected.groups if sight.groups is None else sight.groups
    if uid is not None:
        found.compare("uid", (uid,) * 4, seen.uids)
    if gid is not None:
        found.compare("gid", (gid,) * 4, seen.gids)
    if groups is not None:
        found.compare("groups", tuple(sorted(groups)), tuple(sorted(seen.groups)))
    for name in ("effective", "permitted", "inheritable", "bounding", "ambient"):
        mask, theirs = getattr(expected, name), getattr(seen, name)
        if mask == theirs:
            found.right.append(name)
        elif mask is not None:
            found.compare(name, f"{mask:#x}", f"{theirs:#x}")
    if expected.no_new_privs is not None:
        found.compare("no_new_privs", expected.no_new_privs, seen.no_new_privs)
    if expected.seccomp_mode is not None:
        found.compare("seccomp_mode", expected.seccomp_mode, seen.seccomp_mode)
    least = expected.filters
    if least is not None and seen.seccomp_filters is not None:
        found.compare("filters", least, min(least, seen.seccomp_filters))


def _descriptor_table(found: _Finding, directory: int, expected: Expected, sight: Sight) -> None:
    table = sight.descriptors
    if table is None and expected.descriptors is None:
        return
    try:
        with sight.eyes():
            if table is None:
                found.compare("descriptors", expected.descriptors, procfs.descriptors(directory))
                return
            seen = _descriptors(directory, table)
    except (OSError, ValueError) as error:
        found.hide("descriptors", error)
        return
    found.compare("descriptors", dict(sorted(table.items())), seen)


def _descriptors(directory: int, table: Mapping[int, str]) -> dict[int, str]:
    """What is open, by number. Where there are as many as there should be, those are looked at: if one of them is not there, it is
    another, and only then the numbers are listed, which takes twice as many calls."""

    def of(numbers: Iterable[int]) -> dict[int, str]:
        return {number: _descriptor(directory, number, " " in table.get(number, "")) for number in numbers}

    if procfs.descriptor_count(directory) == len(table):
        try:
            return of(sorted(table))
        except FileNotFoundError:
            pass
    return of(procfs.descriptors(directory))


def _descriptor(directory: int, number: int, with_access: bool) -> str:
    """The kind of one descriptor, and its access mode where it is asked for."""
    kind = descriptors.kind_of_link(procfs.descriptor_link(directory, number))
    if kind is None:
        kind = descriptors.kind_of_mode(procfs.descriptor_mode(directory, number)) or "anonymous"
    if not with_access:
        return kind
    return f"{kind} {descriptors.access_of_flags(procfs.descriptor_flags(directory, number))}"


def _label(found: _Finding, directory: int, expected: Expected, sight: Sight) -> None:
    if expected.label is None:
        return
    module, wanted = expected.label
    try:
        seen = label.read(module, directory)
    except OSError as error:
        found.hide("label", error)
    else:
        found.compare("label", wanted, seen)


_Reading = Callable[[_Finding, int, Expected, Sight], None]


_READINGS: dict[Part, tuple[_Reading, ...]] = {
    Part.EARLY: (_namespaces,),
    Part.LATE: (_status, _limits, _oom_score, _mount_table, _descriptor_table, _label),
    Part.HELD: (_namespaces, _descriptor_table),
    Part.AFTER: (_status, _limits, _oom_score, _mount_table, _label),
}


def fields_right(looks: Sequence[Look]) -> Iterator[str]:
    """Every field that some look found right and none found otherwise."""
    wrong = {each.field for one in looks for each in one.differences}
    wrong |= {each.field for one in looks for each in one.unreadable}
    for one in looks:
        yield from (field for field in one.right if field not in wrong)
