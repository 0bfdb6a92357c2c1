"""Runs in: the process that makes a plan. In: seccomp profiles of containers (OCI runtime-spec config-linux.md, Docker).

What a profile means is what libseccomp makes of it, for that is how it is run: a rule without arguments swallows those
with arguments for the same call, rules with arguments are alternatives, a rule that does what the default does is
skipped, and two tests of one argument in a rule are alternatives too (runc, crun and containers-common agree).
Docker's additions (`includes`, `excludes`, `archMap`) are decided here, from what the caller says of the container.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from bunri.errors import UsageError
from bunri.seccomp._alternatives import apart
from bunri.seccomp._names import is_known, syscalls_of
from bunri.seccomp.actions import Action, Kind
from bunri.seccomp.conditions import Arg, Condition, implies
from bunri.seccomp.imported import Imported, imported_rules, looks_at_a_pointer
from bunri.seccomp.rules import Rule

LARGEST_PROFILE: Final = 4 << 20  # bytes; the largest known one has 30 KiB

MOST_RULES: Final = 256  # of one call: they are compared with each other

# Our name of an architecture: libseccomp's, and Go's (which Docker's includes and excludes use).
SCMP_ARCH: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_GO_ARCH: Final = {"x86_64": "amd64", "aarch64": "arm64"}

ACTIONS: Final = {
    "SCMP_ACT_ALLOW": Kind.ALLOW,
    "SCMP_ACT_ERRNO": Kind.ERRNO,
    "SCMP_ACT_KILL": Kind.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": Kind.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": Kind.KILL,
    "SCMP_ACT_LOG": Kind.LOG,
    "SCMP_ACT_NOTIFY": Kind.NOTIFY,
    "SCMP_ACT_TRACE": Kind.TRACE,
    "SCMP_ACT_TRAP": Kind.TRAP,
}


class _Argument(msgspec.Struct, forbid_unknown_fields=True):
    index: int
    op: str
    value: int
    valueTwo: int = 0


class _Limits(msgspec.Struct, forbid_unknown_fields=True):
    caps: list[str] | None = None
    arches: list[str] | None = None
    minKernel: str | None = None


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    action: str
    names: list[str] | None = None
    name: str | None = None
    errnoRet: int | None = None
    errno: str | None = None
    args: list[_Argument] | None = None
    comment: str | None = None
    includes: _Limits | None = None
    excludes: _Limits | None = None


class _ArchMap(msgspec.Struct, forbid_unknown_fields=True):
    architecture: str
    subArchitectures: list[str] | None = None


class _Profile(msgspec.Struct, forbid_unknown_fields=True):
    defaultAction: str
    syscalls: list[_Entry] | None = None
    defaultErrnoRet: int | None = None
    defaultErrno: str | None = None
    architectures: list[str] | None = None
    archMap: list[_ArchMap] | None = None
    flags: list[str] | None = None
    listenerPath: str | None = None
    listenerMetadata: str | None = None


class _Whole(msgspec.Struct):
    """An OCI configuration, around the profile."""

    linux: dict[str, msgspec.Raw] | None = None


class _Found(msgspec.Struct):
    """What the profile says of one call: (entry, condition, action), in its order."""

    ways: list[tuple[int, Condition | None, Action]]


def from_oci(
    profile: str | bytes,
    *,
    arch: str = "x86_64",
    capabilities: Collection[str] = (),
    kernel: tuple[int, int] | None = None,
) -> Imported:
    """The rules of a container's seccomp profile, Docker's or the `seccomp` object of an OCI configuration.

    `capabilities` are those of the container ("CAP_SYS_ADMIN"), `kernel` its Linux version (None: newer than any that the
    profile asks for); Docker's includes and excludes hang on them. UsageError, with the place in the profile, for what
    is no profile, and where something that it refuses cannot be refused here.
    """
    syscalls_of(arch)
    return _Reading(_parse(profile), arch, frozenset(capabilities), kernel).result()


def _parse(profile: str | bytes) -> _Profile:
    if len(profile) > LARGEST_PROFILE:
        raise UsageError(f"a profile of {len(profile)} bytes is longer than {LARGEST_PROFILE}: not read")
    try:
        if msgspec.json.decode(profile, type=_Whole).linux is not None:
            raise UsageError("this is a whole OCI configuration: pass its $.linux.seccomp")
        return msgspec.json.decode(profile, type=_Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise UsageError(f"not a seccomp profile: {fault}") from None


class _Reading:
    """One profile on its way to rules."""

    def __init__(self, profile: _Profile, arch: str, caps: frozenset[str], kernel: tuple[int, int] | None) -> None:
        self.profile = profile
        self.arch = arch
        self.caps = caps
        self.kernel = kernel
        self.left_out: list[str] = []
        self._doubtful: set[str] = set()  # calls of which overlapping rules were reported
        number = _number("$.defaultErrno", profile.defaultErrnoRet, profile.defaultErrno)
        self.default = self._action("$.defaultAction", profile.defaultAction, number)

    def result(self) -> Imported:
        self._say_frame()
        found: dict[str, _Found] = {}
        for number, entry in enumerate(self.profile.syscalls or []):
            where = f"$.syscalls[{number}]"
            if not self._applies(where, entry):
                continue
            action = self._action(where, entry.action, _number(where, entry.errnoRet, entry.errno))
            if action == self.default:
                continue  # libseccomp has no place for it: the default does it already
            for when in self._conditions(where, entry):
                for name in self._names(where, entry):
                    self._add(found.setdefault(name, _Found([])), number, name, when, action)
        return Imported("OCI profile", tuple(self._rules(found)), self.default, self.default, tuple(self.left_out))

    def _say_frame(self) -> None:
        profile = self.profile
        others = set(profile.architectures or ())
        for one in profile.archMap or ():
            if one.architecture == SCMP_ARCH[self.arch]:
                others |= {one.architecture, *(one.subArchitectures or ())}
        if others and SCMP_ARCH[self.arch] not in others:
            raise UsageError(f"the profile is not for {self.arch}: it names {', '.join(sorted(others))}")
        others -= {SCMP_ARCH[self.arch]}
        if others:
            self.left_out.append(f"calls of {', '.join(sorted(others))}: a program of ours kills them (THREATS 15)")
        for flag in profile.flags or ():
            self.left_out.append(f"flag {flag}: pass it when the filter is installed")
        if profile.listenerPath or profile.listenerMetadata:
            self.left_out.append(f"listener {profile.listenerPath!r}: whoever installs the filter holds the listener")

    def _action(self, where: str, name: str, number: int | None) -> Action:
        kind = ACTIONS.get(name)
        if kind is None:
            raise UsageError(f"{where}: no action is named {name!r}; there are {', '.join(sorted(ACTIONS))}")
        if kind is Kind.TRACE:
            self.left_out.append(f"{where}: {name} becomes errno ENOSYS, what the kernel answers without a tracer")
            return Action.errno(errno.ENOSYS)
        if kind is Kind.ERRNO:
            return Action.errno(errno.EPERM if number is None else number)
        return Action(kind)

    def _applies(self, where: str, entry: _Entry) -> bool:
        """Docker's limits: every wish of `includes` is met, and none of `excludes`."""
        wanted, unwanted = entry.includes or _Limits(), entry.excludes or _Limits()
        here = _GO_ARCH[self.arch]
        return (
            set(wanted.caps or ()) <= self.caps
            and (not wanted.arches or here in wanted.arches)
            and (wanted.minKernel is None or self._reaches(where, wanted.minKernel))
            and not set(unwanted.caps or ()) & self.caps
            and here not in (unwanted.arches or ())
            and (unwanted.minKernel is None or not self._reaches(where, unwanted.minKernel))
        )

    def _reaches(self, where: str, version: str) -> bool:
        parts = version.split(".")
        if len(parts) < 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts[:2]):
            raise UsageError(f"{where}: minKernel {version!r} is no version like '4.8'")
        return self.kernel is None or self.kernel >= (int(parts[0]), int(parts[1]))

    def _names(self, where: str, entry: _Entry) -> Iterator[str]:
        names = [*(entry.names or ()), *([entry.name] if entry.name else ())]
        if not names:
            raise UsageError(f"{where} names no system call")
        foreign = [name for name in names if not is_known(name)]
        if foreign:
            sentence = f"{where}: no call of our architectures is named {', '.join(foreign)}"
            if sentence not in self.left_out:
                self.left_out.append(sentence)
        return (name for name in names if is_known(name))

    def _conditions(self, where: str, entry: _Entry) -> Iterator[Condition | None]:
        """One rule, or, where it tests an argument twice, one for each test; none for what never holds."""
        arguments = entry.args or []
        if not arguments:
            yield None
            return
        indices = [argument.index for argument in arguments]
        apart = len(set(indices)) < len(indices)
        groups = [[one] for one in arguments] if apart else [arguments]
        if apart:
            self.left_out.append(f"{where} tests an argument twice: libseccomp's callers take that for 'or', so do we")
        for group in groups:
            try:
                yield _both([_test(f"{where}.args", one) for one in group])
            except _Never as never:
                self.left_out.append(f"{where}: {never}; it is skipped")

    def _add(self, found: _Found, entry: int, name: str, when: Condition | None, action: Action) -> None:
        if looks_at_a_pointer(name, when):
            sentence = f"$.syscalls[{entry}] compares a pointer of {name} ({when!r}), which decides nothing"
            if action.kind not in (Kind.ALLOW, Kind.LOG):
                raise UsageError(f"{sentence}: refuse {name} without it, or take it out of the profile")
            self.left_out.append(f"{sentence}; it is skipped, and {name} is stricter here")
            return
        if any(one is None for _, one, _ in found.ways):
            return  # a rule without arguments is there already
        if when is None:
            found.ways.clear()
        if len(found.ways) >= MOST_RULES:
            raise UsageError(f"the profile has more than {MOST_RULES} rules for {name}")
        for before, other, wanted in found.ways:
            if (
                wanted != action
                and name not in self._doubtful
                and when is not None
                and other is not None
                and not _apart(other, when)
            ):
                self._doubtful.add(name)
                self.left_out.append(
                    f"{name}: $.syscalls[{before}] and [{entry}] may both hold and want {wanted} and {action}; "
                    "libseccomp's order depends on how its tree grew, here the first one decides"
                )
            if wanted != action and implies(when, other):
                return
        found.ways.append((entry, when, action))

    def _rules(self, found: dict[str, _Found]) -> Iterator[Rule]:
        together: dict[tuple[int, Condition | None, Action], list[str]] = {}
        for name, one in found.items():
            for way in one.ways:
                together.setdefault(way, []).append(name)
        comments = [entry.comment for entry in self.profile.syscalls or []]
        for (entry, when, action), names in sorted(together.items(), key=lambda item: item[0][0]):
            comment = " ".join((comments[entry] or "").split())
            reason = f"entry {entry} of the profile" + (f": {comment}" if comment else "")
            yield from imported_rules(names, action, when, reason)


def _number(where: str, number: int | None, name: str | None) -> int | None:
    """The errno: containers-common says it by name as well, and both must agree."""
    if not name:
        return number
    named = next((value for value, spelled in errno.errorcode.items() if spelled == name), None)
    if named is None or number not in (None, named):
        raise UsageError(f"{where}: errno {name!r} is {named or 'not known'}, and the number beside it is {number}")
    return named


class _Never(Exception):
    """A test that no argument passes."""


def _test(where: str, argument: _Argument) -> Condition | None:
    """One test; None if every argument passes it."""
    if not 0 <= argument.index <= 5:
        raise UsageError(f"{where}: a system call has the arguments 0 to 5, not {argument.index}")
    for value in (argument.value, argument.valueTwo):
        if not 0 <= value < 1 << 64:
            raise UsageError(f"{where}: {value} is no unsigned 64-bit number")
    arg, value = Arg(argument.index), argument.value
    try:
        match argument.op:
            case "SCMP_CMP_EQ":
                return arg == value
            case "SCMP_CMP_NE":
                return arg != value
            case "SCMP_CMP_LT":
                return arg < value
            case "SCMP_CMP_LE":
                return arg <= value
            case "SCMP_CMP_GE":
                return arg >= value
            case "SCMP_CMP_GT":
                return arg > value
            case "SCMP_CMP_MASKED_EQ" if value:
                return arg.masked(value) == argument.valueTwo
            case "SCMP_CMP_MASKED_EQ" if not argument.valueTwo:
                return None
            case "SCMP_CMP_MASKED_EQ":
                raise _Never(f"{where}: no bit is looked at, and they must be {argument.valueTwo:#x}")
            case _:
                raise UsageError(f"{where}: no comparison is named {argument.op!r}")
    except UsageError as fault:
        if "always holds" in str(fault):
            return None
        if "never hold" in str(fault):
            raise _Never(str(fault)) from None
        raise


def _both(tests: list[Condition | None]) -> Condition | None:
    whole: Condition | None = None
    for test in tests:
        whole = test if whole is None else whole if test is None else whole & test
    return whole


_apart = lru_cache(maxsize=4096)(apart)
