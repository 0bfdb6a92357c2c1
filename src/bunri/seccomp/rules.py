"""Runs in: nowhere; values only. Rules: which calls, under which condition, what then, and why."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp._names import check_name
from bunri.seccomp._pointers import POINTERS
from bunri.seccomp.actions import Action, Kind
from bunri.seccomp.attack import ATTACK_REASONS, ATTACK_SHAPED
from bunri.seccomp.conditions import Compare, Condition
from bunri.seccomp.groups import group

REFUSED: Final = Action.errno(errno.EPERM)
NOT_IMPLEMENTED: Final = Action.errno(errno.ENOSYS)

_GOES_ON: Final = frozenset({Kind.ALLOW, Kind.LOG})


@dataclass(frozen=True)
class Rule:
    """One sentence of a filter. Made by `allow`, `deny`, `kill`, `trap`, `log`, `notify`, `dangerous_allow` and `dangerous_log`.

    `names` is as written, groups with their "@"; `calls` is the same with the groups opened; `named` are those that
    were named one by one, and so must have an effect.
    """

    names: tuple[str, ...]
    action: Action
    when: Condition | None
    reason: str
    verb: str = "allow"
    calls: frozenset[str] = field(init=False, compare=False, repr=False)
    named: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError(f"{self.verb}() names no system call")
        if not self.reason.strip() or "\n" in self.reason:
            raise UsageError(f"{self.verb}({self.names[0]!r}, ...) needs a reason: one line that says why")
        named = frozenset(name for name in self.names if not name.startswith("@"))
        for name in named:
            check_name(name)
        from_groups = {call for name in self.names if name.startswith("@") for call in group(name)}
        if self.goes_on:
            _refuse_attack_shaped(self.verb, named)
            from_groups -= ATTACK_SHAPED
        object.__setattr__(self, "named", named)
        object.__setattr__(self, "calls", named | from_groups)
        if self.when is not None:
            _refuse_pointers(self.verb, self.calls, self.when)

    @property
    def goes_on(self) -> bool:
        """Whether the calls reach the kernel, without the danger being spelled."""
        return not self.refuses and not self.verb.startswith("dangerous_")

    @property
    def refuses(self) -> bool:
        """Whether the calls do not simply reach the kernel."""
        return self.action.kind not in _GOES_ON

    def __str__(self) -> str:
        shown = [repr(name) for name in self.names]
        if len(shown) > 8:
            shown = [*shown[:7], f"... {len(shown) - 7} more"]
        if self.when is not None:
            shown.append(f"when={self.when!r}")
        if self.verb == "deny":
            shown.append(f"with_={self.action!r}")
        return f"{self.verb}({', '.join(shown)})"

    def __repr__(self) -> str:
        return f"{str(self)[:-1]}, reason={self.reason!r})"


def allow(*names: str, when: Condition | None = None, reason: str) -> Rule:
    """The calls go on. Attack-shaped calls cannot be named here, and are left out of groups (`dangerous_allow`)."""
    return Rule(names, Action.ALLOW, when, reason)


def dangerous_allow(*names: str, when: Condition | None = None, reason: str) -> Rule:
    """The calls go on, attack-shaped ones too."""
    return Rule(names, Action.ALLOW, when, reason, "dangerous_allow")


def deny(*names: str, with_: Action = REFUSED, when: Condition | None = None, reason: str) -> Rule:
    """The calls fail, with EPERM unless `with_` says otherwise."""
    if with_.kind not in (Kind.ERRNO, Kind.KILL, Kind.KILL_THREAD, Kind.TRAP):
        raise UsageError(f"deny(with_={with_!r}) would not refuse; use allow, log or notify")
    return Rule(names, with_, when, reason, "deny")


def kill(*names: str, when: Condition | None = None, reason: str) -> Rule:
    """Whoever makes one of the calls dies, the whole process."""
    return Rule(names, Action.KILL, when, reason, "kill")


def trap(*names: str, when: Condition | None = None, reason: str) -> Rule:
    """SIGSYS is sent. Not a death: a handler may return (THREATS 27). For diagnosis."""
    return Rule(names, Action.TRAP, when, reason, "trap")


def log(*names: str, when: Condition | None = None, reason: str) -> Rule:
    """The calls go on, and the kernel writes an audit record of each."""
    return Rule(names, Action.LOG, when, reason, "log")


def dangerous_log(*names: str, when: Condition | None = None, reason: str) -> Rule:
    """As `log`, for attack-shaped calls too."""
    return Rule(names, Action.LOG, when, reason, "dangerous_log")


def notify(*names: str, when: Condition | None = None, reason: str) -> Rule:
    """A supervisor is asked. Without one (nobody holds the descriptor) the call fails with ENOSYS."""
    return Rule(names, Action.NOTIFY, when, reason, "notify")


def _refuse_attack_shaped(verb: str, named: frozenset[str]) -> None:
    for name in sorted(named & ATTACK_SHAPED):
        raise UsageError(
            f"{verb}({name!r}) is refused: {ATTACK_REASONS[name]}. "
            f"A program that truly needs it writes dangerous_allow({name!r}, ...)"
        )


def _refuse_pointers(verb: str, calls: frozenset[str], when: Condition) -> None:
    """A filter sees a pointer's value, never what it points to; and that changes between the check and the use."""
    asked = [atom for atom in when.atoms() if not (isinstance(atom, Compare) and atom.is_about_null())]
    for atom in asked:
        for name in sorted(calls):
            what = POINTERS.get(name, {}).get(atom.arg)
            if what is not None:
                raise UsageError(
                    f"{verb}({name!r}, when={atom!r}): argument {atom.arg} of {name} points to {what}, and a "
                    f"filter sees the pointer only. {_instead(what)} Only a comparison with 0 (no pointer) is possible."
                )


def _instead(what: str) -> str:
    if "path" in what:
        return "Grant paths with Landlock, as fs.read(...) or fs.write(...), or let a broker open them."
    if "address" in what:
        return "Grant addresses with net.connect(...), which a broker carries out."
    return "Check it in a broker (a service of the monitor), on a copy."
