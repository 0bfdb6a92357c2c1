"""Runs in: the test process. Random policies with an independent statement of what they mean, for hypothesis."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from bunri.errors import UsageError
from bunri.seccomp import Action, Arg, Condition, Rule, allow, deny, kill, log, notify, trap
from bunri.seccomp.conditions import Compare

LARGEST = (1 << 64) - 1

# BUNRI_EXAMPLES=50 makes fifty times as many examples as the everyday run.
EXAMPLES = int(os.environ.get("BUNRI_EXAMPLES", "1"))


def examples(everyday: int) -> int:
    """How many examples hypothesis tries."""
    return everyday * EXAMPLES


Predicate = Callable[[Sequence[int]], bool]

edges = st.sampled_from(
    (0, 1, 2, 3, 4, 7, 8, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (5 << 32) + 7,
     1 << 63, LARGEST - 1, LARGEST)
)  # fmt: skip
words = edges | st.integers(0, LARGEST)
arguments = st.tuples(*[words] * 6)


@dataclass(frozen=True)
class Stated:
    """A rule, and what it means said a second time, in plain Python."""

    rule: Rule
    names: tuple[str, ...]
    predicate: Predicate
    action: Action


@st.composite
def atoms(draw: st.DrawFn, args: Sequence[int]) -> tuple[Condition, Predicate]:
    i = draw(st.sampled_from(args))
    kind = draw(st.sampled_from(("==", "!=", "<", "<=", ">", ">=", "set", "range", "mask", "nomask", "int32")))
    v, w = draw(words), draw(words)
    low, high = min(v, w), max(v, w)
    table: dict[str, Callable[[], tuple[Condition, Predicate]]] = {
        "==": lambda: (Arg(i) == v, lambda a: a[i] == v),
        "!=": lambda: (Arg(i) != v, lambda a: a[i] != v),
        "<": lambda: (Arg(i) < v, lambda a: a[i] < v),
        "<=": lambda: (Arg(i) <= v, lambda a: a[i] <= v),
        ">": lambda: (Arg(i) > v, lambda a: a[i] > v),
        ">=": lambda: (Arg(i) >= v, lambda a: a[i] >= v),
        "set": lambda: (Arg(i).one_of(v, w, 6, 1 << 33), lambda a: a[i] in (v, w, 6, 1 << 33)),
        "range": lambda: (Arg(i).between(low, high), lambda a: low <= a[i] <= high),
        "mask": lambda: (Arg(i).masked(v | 1) == w & (v | 1), lambda a: a[i] & (v | 1) == w & (v | 1)),
        "nomask": lambda: (Arg(i).masked(v | 2) != w & (v | 2), lambda a: a[i] & (v | 2) != w & (v | 2)),
        "int32": lambda: (Arg(i).int32 == v & 0xFFFFFFFF, lambda a: (a[i] ^ v) & 0xFFFFFFFF == 0),
    }
    return table[kind]()


def both(one: tuple[Condition, Predicate], other: tuple[Condition, Predicate]) -> tuple[Condition, Predicate]:
    return one[0] & other[0], lambda a: one[1](a) and other[1](a)


def either(one: tuple[Condition, Predicate], other: tuple[Condition, Predicate]) -> tuple[Condition, Predicate]:
    return one[0] | other[0], lambda a: one[1](a) or other[1](a)


@st.composite
def conditions(draw: st.DrawFn, args: Sequence[int], most: int = 3) -> tuple[Condition, Predicate] | None:
    """A condition and its meaning; None where what came out cannot be written."""
    try:
        condition = draw(atoms(args))
        for _ in range(draw(st.integers(0, most))):
            condition = draw(st.sampled_from((both, either)))(condition, draw(atoms(args)))
    except UsageError:
        return None
    return condition


MAKERS = (
    (allow, Action.ALLOW),
    (log, Action.LOG),
    (notify, Action.NOTIFY),
    (kill, Action.KILL),
    (trap, Action.TRAP),
    (lambda *names, when, reason: deny(*names, with_=Action.errno(77), when=when, reason=reason), Action.errno(77)),
    (lambda *names, when, reason: deny(*names, with_=Action.errno(78), when=when, reason=reason), Action.errno(78)),
)


@st.composite
def policies(
    draw: st.DrawFn,
    names: Sequence[str],
    args: Sequence[int] = (0, 1, 2, 3, 4, 5),
    makers: Sequence[tuple[Callable[..., Rule], Action]] = MAKERS,
) -> list[Stated]:
    stated: list[Stated] = []
    for _ in range(draw(st.integers(1, 6))):
        chosen = tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True)))
        condition = draw(st.none() | conditions(args))
        maker, action = draw(st.sampled_from(makers))
        if condition is None:
            stated.append(Stated(maker(*chosen, when=None, reason="random"), chosen, lambda _: True, action))
        else:
            stated.append(Stated(maker(*chosen, when=condition[0], reason="random"), chosen, condition[1], action))
    return stated


def meaning(stated: Sequence[Stated], name: str, args: Sequence[int], default: Action) -> Action:
    """The first rule whose condition holds decides."""
    return next((one.action for one in stated if name in one.names and one.predicate(args)), default)


def telling(stated: Sequence[Stated]) -> list[int]:
    """Numbers on which the policy turns.

    Each bound and its neighbours, the same low half under another high half; for masks the value with one bit of the
    mask, or all bits outside of it, changed.
    """
    found = {0, LARGEST}
    for one in stated:
        for atom in one.rule.when.atoms() if one.rule.when is not None else ():
            if isinstance(atom, Compare):
                bounds = [bound for pair in atom.ranges for bound in pair]
                found |= {bound + near for bound in bounds for near in (-1, 0, 1, 1 << 32, -(1 << 32))}
                continue
            outside = ~atom.mask & LARGEST
            bits = [1 << bit for bit in range(64) if atom.mask >> bit & 1]
            found |= {atom.value, atom.value | outside}
            found |= {atom.value ^ bit for bit in (bits[0], bits[len(bits) // 2], bits[-1])}
    return sorted(number for number in found if 0 <= number <= LARGEST)
