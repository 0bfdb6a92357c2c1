"""Runs in: nowhere; values only. What came in from, or goes out to, another program's notation; and what could not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bunri.seccomp._compile import compile
from bunri.seccomp._pointers import POINTERS
from bunri.seccomp.actions import Action, Kind
from bunri.seccomp.attack import ATTACK_SHAPED
from bunri.seccomp.conditions import Compare, Condition
from bunri.seccomp.program import Program
from bunri.seccomp.rules import Rule, allow, dangerous_allow, dangerous_log, deny, log, notify

# Attack-shaped by an argument: `allow` takes them, but `compile` then asks for clone_rules.
_BY_ARGUMENT = frozenset({"clone", "clone3"})


@dataclass(frozen=True)
class Imported:
    """Rules read from another notation, with the answers for what they do not name.

    `left_out` holds a sentence for everything that could not be carried over; read it before you trust the rest.
    """

    origin: str
    rules: tuple[Rule, ...]
    default: Action
    unknown: Action
    left_out: tuple[str, ...] = ()
    arches: tuple[str, ...] = field(default=(), compare=False)  # empty: no matter which

    def compile(self, *, arch: str = "x86_64") -> Program:
        """The filter for `arch` that the rules mean."""
        return compile(self.rules, arch=arch, default=self.default, unknown=self.unknown)


@dataclass(frozen=True)
class Exported:
    """A filter in another notation. `left_out` holds a sentence for everything that it cannot say there."""

    text: str
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


def imported_rules(names: Iterable[str], action: Action, when: Condition | None, reason: str) -> list[Rule]:
    """Rules that carry a foreign decision over as it stands: its dangerous calls too, and spelled so."""
    every = sorted(set(names))
    plain = tuple(name for name in every if name not in ATTACK_SHAPED and name not in _BY_ARGUMENT)
    dangerous = tuple(name for name in every if name not in plain)
    match action.kind:
        case Kind.ALLOW:
            makers = (allow, dangerous_allow)
        case Kind.LOG:
            makers = (log, dangerous_log)
        case Kind.NOTIFY:
            return [notify(*every, when=when, reason=reason)] if every else []
        case _:
            return [deny(*every, with_=action, when=when, reason=reason)] if every else []
    return [
        make(*some, when=when, reason=reason) for make, some in zip(makers, (plain, dangerous), strict=True) if some
    ]


def looks_at_a_pointer(call: str, when: Condition | None) -> bool:
    """Whether the condition compares what, for this call, is a pointer: our rules cannot say that."""
    table = POINTERS.get(call, {})
    return when is not None and any(
        atom.arg in table and not (isinstance(atom, Compare) and atom.is_about_null()) for atom in when.atoms()
    )
