"""Runs in: nowhere; values only. Conditions on the six 64-bit arguments of a system call.

A condition is written as a comparison and is a frozen value; the grammar stands in `bunri.seccomp`.
Whatever could never hold, or would always hold, is refused where it is written: such a rule is a mistake,
and in a filter a mistake is a hole or a death.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn

from bunri.errors import UsageError

LARGEST: Final = (1 << 64) - 1
_WORD: Final = 0xFFFFFFFF
_FEW: Final = 64  # so many values of a set are tried one by one when two conditions are compared

Ranges = tuple[tuple[int, int], ...]  # ascending, disjoint, not adjacent; both ends belong


class Condition:
    """A condition. Combine with `&` and `|`, with every comparison in parentheses."""

    __slots__ = ()

    def holds(self, arguments: Sequence[int]) -> bool:
        """Whether it holds for these six values."""
        raise TypeError("Condition is the base of the others; write one as Arg(0) == 1")

    def atoms(self) -> Iterator[Compare | MaskedCompare]:
        """Every single comparison in it."""
        raise TypeError("Condition is the base of the others; write one as Arg(0) == 1")

    def __and__(self, other: Condition) -> Condition:
        return All(tuple(_parts(All, self, other)))

    def __or__(self, other: Condition) -> Condition:
        return AnyOf(tuple(_parts(AnyOf, self, other)))

    def __bool__(self) -> NoReturn:
        # `and`, `or`, `not` and 1 < Arg(0) < 5 ask for a truth value and would silently drop half of the condition.
        raise UsageError(
            "a condition has no truth value here: combine with & and |, each comparison in parentheses, "
            "and write a range as Arg(i).between(first, last)"
        )


@dataclass(frozen=True, slots=True)
class Compare(Condition):
    """The argument lies in one of `ranges`. All of ==, !=, <, <=, >, >=, one_of and between come down to this."""

    arg: int
    ranges: Ranges
    text: str = field(compare=False)

    def holds(self, arguments: Sequence[int]) -> bool:
        return any(first <= arguments[self.arg] <= last for first, last in self.ranges)

    def atoms(self) -> Iterator[Compare | MaskedCompare]:
        yield self

    def is_about_null(self) -> bool:
        """Whether it only asks if the argument is 0: the one question that makes sense for a pointer."""
        return self.ranges in (((0, 0),), ((1, LARGEST),))

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class MaskedCompare(Condition):
    """The bits of `mask` in the argument are (==), or are not (!=), exactly `value`."""

    arg: int
    mask: int
    relation: Literal["==", "!="]
    value: int
    text: str = field(compare=False)

    def holds(self, arguments: Sequence[int]) -> bool:
        return (arguments[self.arg] & self.mask == self.value) is (self.relation == "==")

    def atoms(self) -> Iterator[Compare | MaskedCompare]:
        yield self

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class All(Condition):
    """Every part holds."""

    parts: tuple[Condition, ...]

    def __post_init__(self) -> None:
        if _contradict([part for part in self.parts if isinstance(part, Compare | MaskedCompare)]):
            raise UsageError(f"{self!r} can never hold: its parts exclude each other")

    def holds(self, arguments: Sequence[int]) -> bool:
        return all(part.holds(arguments) for part in self.parts)

    def atoms(self) -> Iterator[Compare | MaskedCompare]:
        for part in self.parts:
            yield from part.atoms()

    def __repr__(self) -> str:
        return " & ".join(f"({part!r})" for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf(Condition):
    """At least one part holds."""

    parts: tuple[Condition, ...]

    def holds(self, arguments: Sequence[int]) -> bool:
        return any(part.holds(arguments) for part in self.parts)

    def atoms(self) -> Iterator[Compare | MaskedCompare]:
        for part in self.parts:
            yield from part.atoms()

    def __repr__(self) -> str:
        return " | ".join(f"({part!r})" for part in self.parts)


class _Combinable:
    """Catches `Arg(0) == 1 & Arg(1) == 2`, which Python reads as `Arg(0) == (1 & Arg(1)) == 2`."""

    __slots__ = ()

    def _forgot_parentheses(self, _other: object) -> NoReturn:
        raise UsageError("put each comparison in parentheses: (Arg(0) == 1) & (Arg(1) == 2)")

    __and__ = __rand__ = __or__ = __ror__ = _forgot_parentheses


class Arg(_Combinable):
    """One argument of a system call, `index` 0 to 5, as the unsigned 64-bit number that the kernel is handed.

        Arg(1) == 0                        Arg(0).one_of(AF_UNIX, AF_INET)
        Arg(2).masked(PROT_EXEC) == 0      Arg(0).between(3, 63)
        Arg(0).int32 == -100               for `int` parameters: the kernel looks at the low 32 bits only

    UsageError for an index, value or mask out of range, for what never holds and for what always does.
    """

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        if not 0 <= index <= 5:
            raise UsageError(f"a system call has the arguments 0 to 5; there is no Arg({index})")
        self.index = index

    def __eq__(self, value: int) -> Condition:  # type: ignore[override]
        return self._in([(_word64(value), value)], f"== {_number(value)}")

    def __ne__(self, value: int) -> Condition:  # type: ignore[override]
        return self._in([(0, _word64(value) - 1), (value + 1, LARGEST)], f"!= {_number(value)}")

    def __lt__(self, value: int) -> Condition:
        return self._in([(0, _word64(value) - 1)], f"< {_number(value)}")

    def __le__(self, value: int) -> Condition:
        return self._in([(0, _word64(value))], f"<= {_number(value)}")

    def __gt__(self, value: int) -> Condition:
        return self._in([(_word64(value) + 1, LARGEST)], f"> {_number(value)}")

    def __ge__(self, value: int) -> Condition:
        return self._in([(_word64(value), LARGEST)], f">= {_number(value)}")

    __hash__ = None  # type: ignore[assignment]  # == makes a condition, so an Arg can be in no set

    def one_of(self, *values: int) -> Condition:
        """The argument is one of `values`."""
        text = ", ".join(_number(value) for value in values)
        return self._in([(_word64(value), value) for value in values], f".one_of({text})")

    def between(self, first: int, last: int) -> Condition:
        """first <= argument <= last."""
        return self._in([(_word64(first), _word64(last))], f".between({_number(first)}, {_number(last)})")

    def masked(self, mask: int) -> Masked:
        """Only the bits of `mask`, for ==, != and one_of."""
        if not 0 < mask <= LARGEST:
            raise UsageError(f"a mask has at least one and at most 64 bits; {_number(mask)} has not")
        return Masked(self.index, int(mask), f"Arg({self.index}).masked({_number(mask)})")

    @property
    def int32(self) -> Masked:
        """The low 32 bits, as the kernel reads an `int` or `unsigned int` parameter; values may be negative.

        A rule that *refuses* must look at an int parameter this way: with the whole 64 bits compared, a caller gets
        past by setting a high bit, which the kernel then ignores.
        """
        return Masked(self.index, _WORD, f"Arg({self.index}).int32")

    def _in(self, ranges: Iterable[tuple[int, int]], text: str) -> Condition:
        sentence = f"Arg({self.index}){text}" if text.startswith(".") else f"Arg({self.index}) {text}"
        merged = merge(ranges)
        if not merged:
            raise UsageError(f"{sentence} can never hold: no 64-bit unsigned number does it")
        if merged == ((0, LARGEST),):
            raise UsageError(f"{sentence} always holds: leave the condition out")
        return Compare(self.index, merged, sentence)

    def __repr__(self) -> str:
        return f"Arg({self.index})"


class Masked(_Combinable):
    """Some bits of an argument: what `Arg.masked` and `Arg.int32` give. Has ==, != and one_of."""

    __slots__ = ("_index", "_mask", "_text")

    def __init__(self, index: int, mask: int, text: str) -> None:
        self._index = index
        self._mask = mask
        self._text = text

    def __eq__(self, value: int) -> Condition:  # type: ignore[override]
        return self._compare("==", value)

    def __ne__(self, value: int) -> Condition:  # type: ignore[override]
        return self._compare("!=", value)

    __hash__ = None  # type: ignore[assignment]  # as in Arg

    def one_of(self, *values: int) -> Condition:
        """Those bits are one of `values`."""
        if not values:
            raise UsageError(f"{self._text}.one_of() can never hold: the set is empty")
        conditions = [self._compare("==", value) for value in dict.fromkeys(values)]
        return conditions[0] if len(conditions) == 1 else AnyOf(tuple(conditions))

    def _compare(self, relation: Literal["==", "!="], value: int) -> Condition:
        sentence = f"{self._text} {relation} {_number(value)}"
        bits = value & _WORD if self._mask == _WORD and -(1 << 31) <= value < 0 else int(value)
        if bits & ~self._mask:
            never = "can never" if relation == "==" else "must always"
            raise UsageError(f"{sentence} {never} hold: the value has bits outside of the mask {_number(self._mask)}")
        return MaskedCompare(self._index, self._mask, relation, bits, sentence)

    def __repr__(self) -> str:
        return self._text


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ascending, disjoint ranges that cover the same numbers; empty ones (first > last) are dropped."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted((int(first), int(last)) for first, last in ranges if first <= last):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def implies(narrow: Condition | None, broad: Condition | None) -> bool:
    """Whether `broad` surely holds wherever `narrow` does (None: no condition). False where it is not plain to see."""
    if broad is None or narrow == broad:
        return True
    if narrow is None:
        return False
    if isinstance(narrow, AnyOf):
        return all(implies(part, broad) for part in narrow.parts)
    if isinstance(broad, All):
        return all(implies(narrow, part) for part in broad.parts)
    if isinstance(narrow, All) and any(implies(part, broad) for part in narrow.parts):
        return True
    if isinstance(broad, AnyOf):
        return any(implies(narrow, part) for part in broad.parts)
    return _atom_implies(narrow, broad)


def _atom_implies(narrow: Condition, broad: Condition) -> bool:
    if isinstance(narrow, Compare):
        return isinstance(broad, Compare | MaskedCompare) and narrow.arg == broad.arg and _ranges_imply(narrow, broad)
    if not (isinstance(narrow, MaskedCompare) and isinstance(broad, MaskedCompare) and narrow.arg == broad.arg):
        return False
    match narrow.relation, broad.relation:
        case "==", "==":
            return not broad.mask & ~narrow.mask and narrow.value & broad.mask == broad.value
        case "!=", "!=":  # the same, turned round
            return not narrow.mask & ~broad.mask and broad.value & narrow.mask == narrow.value
        case "==", "!=":
            return bool((narrow.value ^ broad.value) & narrow.mask & broad.mask)
        case _:
            return False


def _ranges_imply(narrow: Compare, broad: Compare | MaskedCompare) -> bool:
    if isinstance(broad, Compare):
        return all(any(b[0] <= first and last <= b[1] for b in broad.ranges) for first, last in narrow.ranges)
    values = few_values(narrow.ranges)
    return values is not None and all(broad.holds(_six(narrow.arg, value)) for value in values)


def few_values(ranges: Ranges) -> list[int] | None:
    """Every number in the ranges, or None if there are many."""
    if sum(last - first + 1 for first, last in ranges) > _FEW:
        return None
    return [value for first, last in ranges for value in range(first, last + 1)]


def _contradict(atoms: list[Compare | MaskedCompare]) -> bool:
    """Whether plain comparisons of one argument exclude each other. What it cannot see passes."""
    return any(_never(arg, [atom for atom in atoms if atom.arg == arg]) for arg in {atom.arg for atom in atoms})


def _never(arg: int, atoms: list[Compare | MaskedCompare]) -> bool:
    ranges: Ranges = ((0, LARGEST),)
    mask = value = 0
    for atom in atoms:
        if isinstance(atom, Compare):
            ranges = _intersect(ranges, atom.ranges)
        elif atom.relation == "==":
            if (value ^ atom.value) & mask & atom.mask:
                return True
            mask, value = mask | atom.mask, value | atom.value
    values = few_values(ranges)
    if values is not None:
        return not any(all(atom.holds(_six(arg, one)) for atom in atoms) for one in values)
    fixed = MaskedCompare(arg, mask, "==", value, "") if mask else None
    unequal = [atom for atom in atoms if isinstance(atom, MaskedCompare) and atom.relation == "!="]
    return fixed is not None and any(
        implies(fixed, MaskedCompare(arg, atom.mask, "==", atom.value, "")) for atom in unequal
    )


def _intersect(one: Ranges, other: Ranges) -> Ranges:
    return merge((max(a[0], b[0]), min(a[1], b[1])) for a in one for b in other)


def _six(arg: int, value: int) -> list[int]:
    return [value if index == arg else 0 for index in range(6)]


def _parts(kind: type[All] | type[AnyOf], *conditions: object) -> Iterator[Condition]:
    """The conditions, with those of the same kind opened: (a & b) & c is a & b & c."""
    for condition in conditions:
        if not isinstance(condition, Condition):
            raise UsageError(f"& and | combine two comparisons, as (Arg(0) == 1) & (Arg(1) == 2); got {condition!r}")
        if isinstance(condition, All | AnyOf) and isinstance(condition, kind):
            yield from condition.parts
        else:
            yield condition


def _word64(value: int) -> int:
    if value < 0:
        raise UsageError(
            f"arguments are unsigned 64-bit numbers; for the int parameter {value} write Arg(i).int32 == {value}"
        )
    if value > LARGEST:
        raise UsageError(f"{_number(value)} has more than 64 bits: no argument can be that large")
    return int(value)


def _number(value: int) -> str:
    """As a reader expects it: small ones decimal, large ones and flags hexadecimal."""
    return str(int(value)) if -4096 < value < 4096 else hex(value)
