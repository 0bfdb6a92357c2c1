"""Runs in: the process that makes a plan. Decisions without an order, for notations whose rules have none.

Rules are asked in order; elsewhere they are alternatives, and libseccomp's tree leaves alternatives of one call out where
they look at different arguments or overlap in one. So the decisions of a call are written as a tree: the first argument
that matters is cut into classes that exclude each other, each of them decides or cuts the next argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp.actions import Action
from bunri.seccomp.conditions import LARGEST, All, AnyOf, Compare, Condition, MaskedCompare, Ranges, merge

MOST: Final = 64  # alternatives of one call; more is no longer readable anywhere
_ALL: Final[Ranges] = ((0, LARGEST),)

Test = tuple[int, str, int, int]  # argument, "==" or the like, value, value two; "&": the bits of value are value two
Tests = tuple[Test, ...]
Atom = Compare | MaskedCompare
Asked = tuple[Condition | None, Action]  # one rule


class TooManyError(Exception):
    """More than `MOST` alternatives."""


@dataclass(frozen=True, slots=True)
class Bits:
    """A class of values: they lie in `ranges`, and `value of argument & mask == value`."""

    ranges: Ranges = _ALL
    mask: int = 0
    value: int = 0

    def both(self, other: Bits) -> Bits | None:
        """What is in the two; None if surely nothing is."""
        if (self.value ^ other.value) & self.mask & other.mask:
            return None
        mask, value = self.mask | other.mask, self.value | other.value
        lowest, highest = value, value | (LARGEST & ~mask)
        ranges = merge((max(a[0], b[0], lowest), min(a[1], b[1], highest)) for a in self.ranges for b in other.ranges)
        return Bits(ranges, mask, value) if ranges else None


def decisions(rules: Sequence[Asked], default: Action, unsaid: Action) -> list[tuple[Tests, Action]]:
    """The alternatives that these rules come down to: they exclude each other, and what is in none does `unsaid`.

    `default` is the answer where no rule holds. TooManyError beyond `MOST`.
    """
    return list(_tree(0, rules, default, unsaid))


def apart(one: Condition, other: Condition) -> bool:
    """Whether two conditions surely never hold together. Sees comparisons that must all hold; else False."""
    arguments: dict[int, Bits] = {}
    for atom in (*_all_of(one), *_all_of(other)):
        joined = arguments.get(atom.arg, Bits()).both(_yes(atom)[0]) if len(_yes(atom)) == 1 else Bits()
        if joined is None:
            return True
        arguments[atom.arg] = joined
    return False


def _tree(arg: int, rules: Sequence[Asked], default: Action, unsaid: Action) -> tuple[tuple[Tests, Action], ...]:
    """The decisions over arguments from `arg` on; those before it stand in no condition any more."""
    first = next((action for when, action in rules if when is None), default)
    rules = rules[: next((index + 1 for index, (when, _) in enumerate(rules) if when is None), len(rules))]
    if not any(when is not None and action != first for when, action in rules):
        return (((), first),) if first != unsaid else ()
    atoms = [atom for when, _ in rules if when is not None for atom in when.atoms() if atom.arg == arg]
    alike: dict[tuple[Asked, ...], list[Bits]] = {}  # many classes leave the same to ask
    for bits, truths in _classes(atoms):
        alike.setdefault(tuple(_rest(rules, truths)), []).append(bits)
    grown: dict[tuple[tuple[Tests, Action], ...], list[Bits]] = {}
    for rest, classes in alike.items():
        grown.setdefault(_tree(arg + 1, rest, default, unsaid), []).extend(classes)
    if len(grown) == 1:
        return next(iter(grown))
    made: list[tuple[Tests, Action]] = []
    for below, classes in grown.items():
        for test in _tests_of_all(classes) if below else ():
            made += [(((arg, *test), *tests), action) for tests, action in below]
            if len(made) > MOST:
                raise TooManyError
    return tuple(made)


def _classes(atoms: Iterable[Atom]) -> list[tuple[Bits, dict[Atom, bool]]]:
    """An argument's values, cut so that every comparison holds for all of a class or for none."""
    classes: list[tuple[Bits, dict[Atom, bool]]] = [(Bits(), {})]
    for atom in dict.fromkeys(atoms):
        cut: list[tuple[Bits, dict[Atom, bool]]] = []
        for bits, truths in classes:
            for truth, parts in ((True, _yes(atom)), (False, _no(atom))):
                joined = (bits.both(part) for part in parts)
                cut += [(one, {**truths, atom: truth}) for one in joined if one is not None]
        classes = cut
        if len(classes) > 4 * MOST:
            raise TooManyError
    return classes


def _yes(atom: Atom) -> list[Bits]:
    """Where it holds, in classes that exclude each other."""
    if isinstance(atom, Compare):
        return [Bits(atom.ranges)]
    return [Bits(_ALL, atom.mask, atom.value)] if atom.relation == "==" else _differing(atom.mask, atom.value)


def _no(atom: Atom) -> list[Bits]:
    if isinstance(atom, Compare):
        return [Bits(_complement(atom.ranges))]
    return [Bits(_ALL, atom.mask, atom.value)] if atom.relation == "!=" else _differing(atom.mask, atom.value)


def _differing(mask: int, value: int) -> list[Bits]:
    """The bits of `mask` are not `value`: by the first one, from the left, that differs."""
    found: list[Bits] = []
    before = 0
    for bit in (1 << place for place in reversed(range(64)) if mask >> place & 1):
        found.append(Bits(_ALL, before | bit, value & before | ~value & bit))
        before |= bit
    return found


def _rest(rules: Iterable[Asked], truths: dict[Atom, bool]) -> Iterator[Asked]:
    """What is left to ask in a class of an argument."""
    for when, action in rules:
        left = True if when is None else _known(when, truths)
        if left is not False:
            yield (None if left is True else left), action


def _known(when: Condition, truths: dict[Atom, bool]) -> Condition | bool:
    if isinstance(when, Compare | MaskedCompare):
        return truths.get(when, when)
    assert isinstance(when, All | AnyOf)
    settling = isinstance(when, AnyOf)
    parts: list[Condition] = []
    for part in when.parts:
        left = _known(part, truths)
        if left is settling:
            return settling
        if not isinstance(left, bool):
            parts.append(left)
    if not parts:
        return not settling
    if len(parts) == 1:
        return parts[0]
    try:
        return type(when)(tuple(parts))
    except UsageError:  # what is left excludes itself
        return False


def _tests_of_all(classes: list[Bits]) -> list[tuple[str, int, int]]:
    """The tests of classes that decide alike: each value passes exactly one of them."""
    plain = merge(pair for bits in classes if not bits.mask for pair in bits.ranges)
    found = _tests_of(Bits(plain)) if plain else []
    for bits in classes:
        if bits.mask:
            found += _tests_of(bits)
    return found


def _tests_of(bits: Bits) -> list[tuple[str, int, int]]:
    if bits.mask == LARGEST:
        return [("==", bits.value, 0)]
    if not bits.mask:
        return _tests_of_ranges(bits.ranges)
    lowest, highest = bits.value, bits.value | (LARGEST & ~bits.mask)
    if bits.ranges == ((lowest, highest),):
        return [("&", bits.mask, bits.value)]
    found: list[tuple[str, int, int]] = []
    for mask, value in _prefixes(bits.ranges):
        if not (value ^ bits.value) & mask & bits.mask:
            found.append(("&", mask | bits.mask, value | bits.value))
    return found


def _tests_of_ranges(ranges: Ranges) -> list[tuple[str, int, int]]:
    if len(ranges) == 2 and ranges[0][0] == 0 and ranges[1][1] == LARGEST and ranges[0][1] + 2 == ranges[1][0]:
        return [("!=", ranges[0][1] + 1, 0)]
    found: list[tuple[str, int, int]] = []
    for first, last in ranges:
        if first == last:
            found.append(("==", first, 0))
        elif first == 0:
            found.append(("<=", last, 0))
        elif last == LARGEST:
            found.append((">=", first, 0))
        else:
            found += [("&", mask, value) for mask, value in _prefixes(((first, last),))]
    return found


def _prefixes(ranges: Ranges) -> Iterator[tuple[int, int]]:
    """(mask, value) pairs whose numbers are those of the ranges: as routes are cut from address ranges."""
    for first, last in ranges:
        at = first
        while at <= last:
            size = at & -at or 1 << 64
            while at + size - 1 > last:
                size >>= 1
            yield LARGEST & ~(size - 1), at
            at += size


def _all_of(condition: Condition) -> Iterator[Atom]:
    """Comparisons that all hold where it does."""
    if isinstance(condition, Compare | MaskedCompare):
        yield condition
    elif isinstance(condition, All):
        for part in condition.parts:
            yield from _all_of(part)


def _complement(ranges: Ranges) -> Ranges:
    edges = [-1, *(edge for pair in ranges for edge in pair), LARGEST + 1]
    return merge((edges[index] + 1, edges[index + 1] - 1) for index in range(0, len(edges), 2))
