"""Runs in: the process that writes the policy; pure. What a worker may do, as a frozen value.

A policy starts from nothing: every default is "no". It is made of grants, and it makes promises; `bunri.plan` finds
out how a given host keeps them. Constructing one looks nothing up and opens nothing; what contradicts itself is
refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Never, TypeVar, cast

import msgspec

from bunri.errors import Promise, UsageError
from bunri.policy import _fields, _parse
from bunri.policy import user as _user
from bunri.policy.fs import FileGrant, FileKind
from bunri.policy.net import NetGrant, NetKind
from bunri.policy.user import User
from bunri.policy.words import DANGEROUS, FEWEST_OPEN, AtStart, Capability, Profile

if TYPE_CHECKING:
    from bunri import seccomp

GIGABYTE: Final = 1 << 30


class _Keep(Enum):
    KEEP = 0


_KEEP: Final = _Keep.KEEP
_DYNAMIC: Final = User.dynamic()
_SAME: Final = User.same()
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_T = TypeVar("_T")


class Settled(msgspec.Struct, frozen=True):
    """A policy without holes, in plain values: sizes in bytes, durations in seconds."""

    user: User
    files: tuple[FileGrant, ...]
    network: tuple[NetGrant, ...]
    capabilities: tuple[Capability, ...]
    syscalls: tuple[str | seccomp.Rule, ...]
    memory: int
    cpu: float | None
    wall: float | None
    open_files: int
    file_size: int | None
    threads: int
    processes: int
    env: Mapping[str, str]
    selinux: str | None
    apparmor: str | None
    may_miss: tuple[Promise, ...]
    profile: Profile


@dataclass(frozen=True, init=False, repr=False)
class Policy:
    """What a worker may do. Keyword-only; every default is "nothing".

    `user`: User.dynamic() (a uid of its own), User.named("ftp") or just "ftp", User.ids(uid, gid, groups), User.same().
    `files`, `network`: grants of `bunri.fs` and `bunri.net`. `capabilities`: added to none.
    `syscalls`: names, "@groups" or `bunri.seccomp` rules, added to what signature and policy need; rules that refuse take from it.
    `memory`: bytes ("256M"). `cpu`, `wall`: seconds ("10s") of one call; None is no bound.
    `open_files`: descriptors. `file_size`: bytes a file can grow to; None is 0, or 1G where something writable is
    granted or handed.
    `threads`, `processes`: additional ones, beside the worker's own.
    `env`: variables added to the allow-list. `selinux`, `apparmor`: the label to change to.
    `may_miss`: promises without which the worker starts all the same; the report says so.
    user, files, env and every limit may be AT_START: a hole that `start_under` fills.

        Policy(memory="512M", cpu="5s", files=[fs.read("/usr/share/fonts")])

    UsageError, with the path of the field, for what is no value of a field or contradicts another.
    """

    user: User | AtStart
    files: tuple[FileGrant, ...] | AtStart
    network: tuple[NetGrant, ...]
    capabilities: tuple[Capability, ...]
    syscalls: tuple[str | seccomp.Rule, ...]
    memory: int | AtStart
    cpu: float | AtStart | None
    wall: float | AtStart | None
    open_files: int | AtStart
    file_size: int | AtStart | None
    threads: int | AtStart
    processes: int | AtStart
    env: Mapping[str, str] | AtStart
    selinux: str | None
    apparmor: str | None
    may_miss: tuple[Promise, ...]
    profile: Profile

    def __init__(
        self,
        *,
        user: User | str | AtStart = _DYNAMIC,
        files: Iterable[FileGrant] | AtStart = (),
        network: Iterable[NetGrant] = (),
        capabilities: Iterable[Capability | str] = (),
        syscalls: Iterable[str | seccomp.Rule] = (),
        memory: int | str | AtStart = "256M",
        cpu: float | str | AtStart | None = "10s",
        wall: float | str | AtStart | None = None,
        open_files: int | AtStart = 64,
        file_size: int | str | AtStart | None = None,
        threads: int | AtStart = 0,
        processes: int | AtStart = 0,
        env: Mapping[str, str] | AtStart = _NOTHING,
        selinux: str | None = None,
        apparmor: str | None = None,
        may_miss: Iterable[Promise] = (),
        **unknown: Never,
    ) -> None:
        _refuse_unknown(unknown)
        given = {name: value for name, value in locals().items() if name in _NAMES}
        self._fill(given, Profile.NORMAL)

    def _fill(self, given: Mapping[str, object], profile: Profile, of: Policy | None = None) -> None:
        """`of`: the policy that what is not given is taken from, as it was parsed there."""
        for name, parse in _PARSERS.items():
            if of is not None and name not in given:
                object.__setattr__(self, name, getattr(of, name))
                continue
            value = given[name]
            if value is not AtStart.AT_START:
                value = parse(value, f"$.{name}")
            elif name not in HOLES:
                raise UsageError(
                    f"$.{name}: AT_START stands for {', '.join(sorted(HOLES))} only. Write the value in the class"
                )
            object.__setattr__(self, name, value)
        object.__setattr__(self, "profile", profile)
        _refuse_contradictions(self)

    @classmethod
    def _of(cls, profile: Profile, given: Mapping[str, object], of: Policy | None = None) -> Policy:
        policy = cls.__new__(cls)
        policy._fill(given, profile, of)
        return policy

    @classmethod
    def compute(cls) -> Policy:
        """For pure computing on memory that it has: read and write on its own channel, and nothing else (strict's
        mode-2 twin).

        Every other call fails with ENOMEM. No threads, files, sockets, handles or asyncio."""
        return cls._of(Profile.COMPUTE, _DEFAULTS)

    @classmethod
    def strict(cls) -> Policy:
        """seccomp mode 1: read, write, sigreturn, exit; all else is SIGKILL. A demonstration: clocks and locks die in
        it too."""
        return cls._of(Profile.STRICT, _DEFAULTS)

    @classmethod
    def dangerous_unconfined(cls, *, user: User | str | AtStart = _SAME) -> Policy:
        """Promises nothing but a clean environment, clean descriptors, umask and the identity: for login shells and
        PAM."""
        return cls._of(Profile.DANGEROUS_UNCONFINED, {**_DEFAULTS, "user": user, "cpu": None})

    def with_(
        self,
        *,
        user: User | str | AtStart | _Keep = _KEEP,
        files: Iterable[FileGrant] | AtStart | _Keep = _KEEP,
        network: Iterable[NetGrant] | _Keep = _KEEP,
        capabilities: Iterable[Capability | str] | _Keep = _KEEP,
        syscalls: Iterable[str | seccomp.Rule] | _Keep = _KEEP,
        memory: int | str | AtStart | _Keep = _KEEP,
        cpu: float | str | AtStart | _Keep | None = _KEEP,
        wall: float | str | AtStart | _Keep | None = _KEEP,
        open_files: int | AtStart | _Keep = _KEEP,
        file_size: int | str | AtStart | _Keep | None = _KEEP,
        threads: int | AtStart | _Keep = _KEEP,
        processes: int | AtStart | _Keep = _KEEP,
        env: Mapping[str, str] | AtStart | _Keep = _KEEP,
        selinux: str | _Keep | None = _KEEP,
        apparmor: str | _Keep | None = _KEEP,
        may_miss: Iterable[Promise] | _Keep = _KEEP,
        **unknown: Never,
    ) -> Policy:
        """The same policy with these fields replaced (not added to)."""
        _refuse_unknown(unknown)
        changed = {name: value for name, value in locals().items() if name in _NAMES and value is not _KEEP}
        return self._of(self.profile, changed, self)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.profile, *self._values().values()))

    def __getstate__(self) -> dict[str, object]:
        """Without what was worked out: a hash is this process's own."""
        return {**self._values(), "profile": self.profile}

    def _values(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in _NAMES}

    @cached_property
    def holes(self) -> tuple[str, ...]:
        """The names of the fields that are AT_START."""
        return tuple(name for name in _NAMES if getattr(self, name) is AtStart.AT_START)

    def settled(self) -> Settled:
        """The policy in plain values. UsageError if a hole is open."""
        return self._settled

    @cached_property
    def _settled(self) -> Settled:
        if self.holes:
            names = ", ".join(self.holes)
            raise UsageError(
                f"the policy leaves {names} open (AT_START), and nothing was filled in. "
                f"Start it with start_under(policy.with_({self.holes[0]}=...), ...)"
            )
        values: dict[str, Any] = self._values()
        return Settled(**values, profile=self.profile)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of this policy should know before he trusts it."""
        return tuple(text for holds, text in _notes(self) if holds)

    def __repr__(self) -> str:
        return _spelled(self)

    def __str__(self) -> str:
        return _table(self)


HOLES: Final = frozenset(
    {"user", "files", "env", "memory", "cpu", "wall", "open_files", "file_size", "threads", "processes"}
)


def _duration(value: object, where: str) -> float | None:
    return None if value is None else _parse.duration(value, where)


def _size_or_none(value: object, where: str) -> int | None:
    return None if value is None else _parse.size(value, where)


def _few(value: object, where: str) -> int:
    return _parse.count(value, where, most=4096)


def _open_files(value: object, where: str) -> int:
    number = _parse.count(value, where)
    if number < FEWEST_OPEN:
        raise UsageError(
            f"{where}: a worker needs at least {FEWEST_OPEN} descriptors for its channel and its output; got {number}"
        )
    return number


def _memory(value: object, where: str) -> int:
    number = _parse.size(value, where)
    if number < 1 << 20:
        raise UsageError(
            f'{where}: {number} bytes is less than a Python process can work with. Write at least "1M", as "256M"'
        )
    return number


_PARSERS: Final[Mapping[str, Callable[[object, str], object]]] = {
    "user": _user.parse,
    "files": _fields.files,
    "network": _fields.network,
    "capabilities": _fields.capabilities,
    "syscalls": _fields.syscalls,
    "memory": _memory,
    "cpu": _duration,
    "wall": _duration,
    "open_files": _open_files,
    "file_size": _size_or_none,
    "threads": _few,
    "processes": _few,
    "env": _fields.environment,
    "selinux": _fields.label,
    "apparmor": _fields.label,
    "may_miss": _fields.promises,
}
_NAMES: Final = tuple(_PARSERS)


def _refuse_unknown(unknown: Mapping[str, object]) -> None:
    for name in unknown:
        raise UsageError(f"$.{name}: a policy has no field of that name. {_parse.nearest(name, _NAMES)}")


_LIMITS: Final = frozenset({"memory", "cpu", "wall", "may_miss", "user", "env", "open_files", "selinux", "apparmor"})


def _refuse_contradictions(policy: Policy) -> None:
    if policy.profile in (Profile.COMPUTE, Profile.STRICT):
        for name in _NAMES:
            if name not in _LIMITS and getattr(policy, name) != _DEFAULTS[name]:
                raise UsageError(
                    f"$.{name}: Policy.{policy.profile.value}() "
                    "grants nothing beside computing. Start from Policy() instead"
                )
    if policy.profile is Profile.DANGEROUS_UNCONFINED:
        for name in ("files", "network", "capabilities", "syscalls", "selinux", "apparmor"):
            if getattr(policy, name) != _DEFAULTS[name]:
                raise UsageError(
                    f"$.{name}: Policy.dangerous_unconfined() "
                    "confines nothing, so it cannot grant anything. Start from Policy() instead"
                )
    if policy.selinux is not None and policy.apparmor is not None:
        raise UsageError("$.apparmor: a process has one label here. Keep selinux= or apparmor=")
    scratches = [g for g in _tuple(policy.files) if g.kind is FileKind.SCRATCH]
    if scratches and isinstance(policy.file_size, int) and policy.file_size == 0:
        raise UsageError(
            f"$.file_size: 0 lets no file grow, and {scratches[0]!r} is there to be written to. Drop one of them"
        )
    if any(g.kind is NetKind.DANGEROUS_HOST for g in policy.network) and len(policy.network) > 1:
        raise UsageError("$.network: net.dangerous_host() already grants every address. Drop it, or the others")


def _tuple(value: tuple[_T, ...] | AtStart) -> tuple[_T, ...]:
    return () if isinstance(value, AtStart) else value


def _notes(policy: Policy) -> Iterable[tuple[bool, str]]:
    user = policy.user
    name = user.name if isinstance(user, User) else ""
    yield name == "nobody", "user nobody is shared with other daemons: they share its limits and can signal each other"
    yield (
        isinstance(policy.processes, int) and policy.processes > 0,
        "memory= is per process where the host has no memory cgroup: several could take it several times",
    )
    yield (
        any(g.kind is NetKind.DANGEROUS_HOST for g in policy.network),
        "net.dangerous_host(): the promise of network is given up",
    )
    yield (
        any(g.kind is FileKind.WRITE for g in _tuple(policy.files)),
        "fs.write: each file is bounded by file_size, the disk is not (disk: unlimited)",
    )
    dangerous = [str(s) for s in policy.syscalls if str(s).startswith(DANGEROUS)]
    yield bool(dangerous), f"attack-shaped calls are granted: {', '.join(dangerous)}"
    yield (
        policy.profile is Profile.DANGEROUS_UNCONFINED,
        "unconfined: nothing but environment, descriptors, umask and identity",
    )


# Spelling. Sizes and durations are written as people write them.


def _spell(name: str, value: object) -> str:
    if value is None or isinstance(value, AtStart):
        return repr(value)
    if name in ("memory", "file_size"):
        return repr(_parse.show_size(cast(int, value)))
    if name in ("cpu", "wall"):
        return repr(_parse.show_duration(cast(float, value)))
    if name == "may_miss":
        return f"[{', '.join(f'Promise.{p.name}' for p in cast('tuple[Promise, ...]', value))}]"
    if isinstance(value, tuple):
        return f"[{', '.join(map(repr, cast('tuple[object, ...]', value)))}]"
    return repr(value)


def fields_of() -> tuple[str, ...]:
    """The keywords of Policy, in order."""
    return _NAMES


def base_of(policy: Policy) -> tuple[str, Policy]:
    """The constructor that the policy comes from: its spelling and its value."""
    if policy.profile is Profile.NORMAL:
        return "Policy", Policy()
    if policy.profile is Profile.DANGEROUS_UNCONFINED:
        base = Policy.dangerous_unconfined(user=policy.user)
        return f"Policy.dangerous_unconfined(user={policy.user!r})", base
    return (
        f"Policy.{policy.profile.value}()",
        Policy.compute() if policy.profile is Profile.COMPUTE else Policy.strict(),
    )


def _spelled(policy: Policy) -> str:
    """The constructor call that makes an equal policy."""
    head, base = base_of(policy)
    changed = [
        f"{name}={_spell(name, getattr(policy, name))}"
        for name in _NAMES
        if getattr(policy, name) != getattr(base, name)
    ]
    if policy.profile is Profile.NORMAL:
        return f"{head}({', '.join(changed)})"
    return f"{head}.with_({', '.join(changed)})" if changed else head


def _table(policy: Policy) -> str:
    width = max(map(len, _NAMES))
    lines = [] if policy.profile is Profile.NORMAL else [f"{'profile'.ljust(width)}  {policy.profile.value}"]
    for name in _NAMES:
        value = getattr(policy, name)
        if isinstance(value, tuple):
            shown = [_one(item) for item in cast("tuple[object, ...]", value)] or ["nothing"]
        elif isinstance(value, Mapping):
            shown = [f"{key}={text}" for key, text in cast("Mapping[str, str]", value).items()] or ["nothing"]
        elif isinstance(value, AtStart):
            shown = ["known at start"]
        elif value is None:
            shown = [_ABSENT.get(name, "none")]
        else:
            shown = [_spell(name, value).strip("'")]
        for index, text in enumerate(shown):
            lines.append(f"{(name if index == 0 else '').ljust(width)}  {text}")
    return "\n".join([*lines, *(f"note: {note}" for note in policy.notes)])


_ABSENT: Final = {"cpu": "no bound", "wall": "no bound", "file_size": "no growth, or 1G where something is writable"}


def _one(item: object) -> str:
    return item.name if isinstance(item, Enum) else item if isinstance(item, str) else repr(item)


def largest_file(policy: Settled, *, writable_handles: bool = False) -> int:
    """Bytes that a file may grow to (RLIMIT_FSIZE)."""
    if policy.file_size is not None:
        return policy.file_size
    return GIGABYTE if writable_handles or any(grant.writable for grant in policy.files) else 0


_DEFAULTS: Final[Mapping[str, object]] = Policy()._values()  # pyright: ignore[reportPrivateUsage]

__all__ = ["GIGABYTE", "HOLES", "Policy", "Settled", "base_of", "fields_of", "largest_file"]
