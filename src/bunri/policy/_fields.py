"""Runs in: the process that writes the policy; pure. Checks each field of a policy once, and makes a plain value of
it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from bunri.errors import Promise, UsageError
from bunri.policy import _parse
from bunri.policy.fs import FileGrant, FileKind
from bunri.policy.net import NetGrant
from bunri.policy.words import Capability

if TYPE_CHECKING:
    from bunri.seccomp import Rule

_E = TypeVar("_E", bound=Enum)


class Environment(Mapping[str, str]):
    """Environment variables, frozen and hashable."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self._pairs = dict(sorted(pairs.items()))

    def __getitem__(self, key: str) -> str:
        return self._pairs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(tuple(self._pairs.items()))

    def __repr__(self) -> str:
        return repr(self._pairs)


def environment(value: object, where: str) -> Environment:
    if not isinstance(value, Mapping):
        raise UsageError(f'{where}: a dict of strings is needed, as {{"TZ": "UTC"}}; got {value!r}')
    pairs: dict[str, str] = {}
    for key, text in value.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(key, str) or not isinstance(text, str):
            raise UsageError(f"{where}: names and values are strings; got {key!r}: {text!r}")
        if not key or "=" in key or "\0" in key or "\0" in text:
            raise UsageError(f"{where}[{key!r}]: a name has no '=', and neither part has a NUL")
        if not _parse.is_text(key + text):
            raise UsageError(f"{where}[{key!r}]: {text!r} is no UTF-8, and a policy is text")
        pairs[key] = text
    return Environment(pairs)


def each(value: object, where: str, example: str) -> list[object]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise UsageError(f"{where}: a list is needed, as {example}; got {value!r}")
    return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def files(value: object, where: str) -> tuple[FileGrant, ...]:
    grants: dict[str, FileGrant] = {}
    listed: list[FileGrant] = []
    for index, grant in enumerate(each(value, where, '[fs.read("/usr/share/zoneinfo")]')):
        if not isinstance(grant, FileGrant):
            raise UsageError(f"{where}[{index}]: {short(grant)} is no grant of files. {_instead_of_file(grant)}")
        before = grants.setdefault(grant.at or grant.kind.value, grant)
        if before != grant:
            raise UsageError(
                f"{where}[{index}]: {grant!r} and {before!r} both stand at {grant.at!r}: one would hide the other. "
                "Keep one, or move one with at="
            )
        if grant not in listed:
            listed.append(grant)
    _refuse_hidden(listed, where)
    return tuple(listed)


def _refuse_hidden(grants: list[FileGrant], where: str) -> None:
    """Each worker mounts its scratches last: what else is granted beneath one could not be reached."""
    for scratch in grants:
        for index, grant in enumerate(grants):
            if scratch.kind is FileKind.SCRATCH and grant.at.startswith(f"{scratch.at}/"):
                raise UsageError(
                    f"{where}[{index}]: {grant!r} stands beneath {scratch!r}, which would hide it. "
                    f"{'Keep one' if grant.kind is FileKind.SCRATCH else 'Move it with at='}, or move the scratch"
                )


def _instead_of_file(grant: object) -> str:
    if isinstance(grant, str):
        return f"Write fs.read({grant!r}) or fs.write({grant!r})"
    if isinstance(grant, NetGrant):
        return f"{grant!r} belongs to network="
    return (
        "Write fs.read(path), fs.write(path), fs.execute(path), fs.scratch(at, size). "
        "Handles (File, Directory) are handed over as arguments of start()"
    )


def network(value: object, where: str) -> tuple[NetGrant, ...]:
    listed: list[NetGrant] = []
    for index, grant in enumerate(each(value, where, '[net.connect("db", 5432)]')):
        if not isinstance(grant, NetGrant):
            other = (
                f"{grant!r} belongs to files="
                if isinstance(grant, FileGrant)
                else "Write net.connect(host, port), net.listen(port) or net.unix(path)"
            )
            raise UsageError(f"{where}[{index}]: {short(grant)} is no grant of network. {other}")
        if grant not in listed:
            listed.append(grant)
    return tuple(listed)


def _members(value: object, where: str, kind: type[_E], strip: str) -> tuple[_E, ...]:
    """Members of an enum, each also by its name."""
    found: set[_E] = set()
    for index, member in enumerate(each(value, where, f"[{kind.__name__}.{next(iter(kind)).name}]")):
        if isinstance(member, str):
            name = member.upper().removeprefix(strip)
            if name not in kind.__members__:
                raise UsageError(
                    f"{where}[{index}]: no {kind.__name__} is named {member!r}. "
                    f"{_parse.nearest(name, kind.__members__)}"
                )
            member = kind[name]
        if not isinstance(member, kind):
            raise UsageError(
                f"{where}[{index}]: {short(member)} is no {kind.__name__}. "
                f"{_parse.nearest(str(member), kind.__members__)}"
            )
        found.add(member)
    return tuple(member for member in kind if member in found) if found else ()


def capabilities(value: object, where: str) -> tuple[Capability, ...]:
    return _members(value, where, Capability, "CAP_")


def promises(value: object, where: str) -> tuple[Promise, ...]:
    return _members(value, where, Promise, "PROMISE.")


def syscalls(value: object, where: str) -> tuple[str | Rule, ...]:
    entries = each(value, where, '["sched_setaffinity", "@flock"]')
    if not entries:
        return ()
    from bunri.policy import _syscalls  # zygotes need no tables of calls, but where a policy names some

    return _syscalls.parse(entries, where)


def label(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 4096:
        raise UsageError(
            f"{where}: {short(value)} is no label. Write the SELinux domain or the AppArmor profile as text"
        )
    return value


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
