"""Runs in: the monitor; pure. Whether one policy allows no more than another (for start_under)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from bunri.policy import _parse
from bunri.policy.fs import FileGrant, FileKind
from bunri.policy.policy import Policy
from bunri.policy.words import AtStart, Profile
from bunri.seccomp import Rule

_WIDTH: Final = {Profile.STRICT: 0, Profile.COMPUTE: 1, Profile.NORMAL: 2, Profile.DANGEROUS_UNCONFINED: 3}
# What a grant of this kind allows, besides itself.
_WITHIN: Final = {
    FileKind.READ: (FileKind.READ, FileKind.WRITE, FileKind.EXECUTE),
    FileKind.WRITE: (FileKind.WRITE,),
    FileKind.EXECUTE: (FileKind.EXECUTE,),
}


@lru_cache(maxsize=64)
def narrower_or_equal(policy: Policy, of: Policy) -> tuple[str, ...]:
    """What `policy` allows beyond `of`, in words; empty if nothing. A hole of `of` takes any value.

    Remembered: whoever starts worker after worker under one policy asks for it each time."""
    found: list[str] = []
    if _WIDTH[policy.profile] > _WIDTH[of.profile]:
        found.append(f"profile: {policy.profile.value} is wider than {of.profile.value}")
    for name, compare in _COMPARE.items():
        mine, theirs = getattr(policy, name), getattr(of, name)
        if isinstance(theirs, AtStart) or mine == theirs:
            continue
        if isinstance(mine, AtStart):
            found.append(f"{name}: left open (AT_START), where the class says {theirs!r}")
            continue
        found += [f"{name}: {text}" for text in compare(mine, theirs)]
    return tuple(found)


def _files(mine: tuple[FileGrant, ...], theirs: tuple[FileGrant, ...]) -> Iterable[str]:
    for grant in mine:
        if not any(_file_within(grant, other) for other in theirs):
            yield f"{grant!r} is within no grant of the class"


def _file_within(grant: FileGrant, other: FileGrant) -> bool:
    if grant == other:
        return True
    if grant.kind is FileKind.SCRATCH:
        return other.kind is FileKind.SCRATCH and grant.at == other.at and grant.size <= other.size
    if other.kind not in _WITHIN.get(grant.kind, ()) or not _parse.covers(other.path, grant.path):
        return False
    inside = grant.path[len(other.path.rstrip("/")) :]
    return grant.via is other.via and (other.at.rstrip("/") + inside or "/") == grant.at


def _members(mine: Iterable[object], theirs: Iterable[object]) -> Iterable[str]:
    allowed = list(theirs)
    for member in mine:
        if member not in allowed:
            yield f"{getattr(member, 'name', None) or repr(member)} is not in the class's policy"


def _syscalls(mine: tuple[str | Rule, ...], theirs: tuple[str | Rule, ...]) -> Iterable[str]:
    """What is added must be in the class's policy, and what the class refuses stays refused, in that order."""
    yield from _members([entry for entry in mine if not _refuses(entry)], theirs)
    refused = iter([entry for entry in mine if _refuses(entry)])
    for entry in theirs:
        if _refuses(entry) and entry not in refused:
            yield f"{entry} is in the class's policy and not in this one"


def _refuses(entry: str | Rule) -> bool:
    return isinstance(entry, Rule) and entry.refuses


def _limit(mine: float | None, theirs: float | None) -> Iterable[str]:
    if theirs is not None and (mine is None or mine > theirs):
        yield f"{'no bound' if mine is None else mine} is more than {theirs}"


def _file_size(mine: int | None, theirs: int | None) -> Iterable[str]:
    # None is a bound too, chosen by what is writable; only another None is surely within it, or 0.
    if theirs is None and mine:
        yield f"{mine} where the class leaves it to the default"
    elif theirs is not None and (mine is None or mine > theirs):
        yield f"{'the default' if mine is None else mine} is more than {theirs}"


def _env(mine: Mapping[str, str], theirs: Mapping[str, str]) -> Iterable[str]:
    for key, value in mine.items():
        if theirs.get(key) != value:
            yield f"{key} is not in the class's policy, or has another value there"


def _equal(mine: object, theirs: object) -> Iterable[str]:
    yield f"{mine!r} is not the class's {theirs!r}"


_COMPARE: Final[Mapping[str, Callable[[Any, Any], Iterable[str]]]] = {
    "user": _equal,
    "files": _files,
    "network": _members,
    "capabilities": _members,
    "syscalls": _syscalls,
    "memory": _limit,
    "cpu": _limit,
    "wall": _limit,
    "open_files": _limit,
    "file_size": _file_size,
    "threads": _limit,
    "processes": _limit,
    "env": _env,
    "selinux": _equal,
    "apparmor": _equal,
    "may_miss": _members,
}
