"""Runs in: the test process. Conditions: what they mean, and which cannot be written."""

from __future__ import annotations

import operator
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunri.errors import UsageError
from bunri.seccomp import Arg, Condition
from bunri.seccomp.conditions import implies

LARGEST = (1 << 64) - 1
EDGES = (0, 1, 2, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63, LARGEST - 1, LARGEST)
words = st.sampled_from(EDGES) | st.integers(0, LARGEST)


def holds(condition: Condition, value: int) -> bool:
    return condition.holds((value, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("compare", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
@given(bound=words, value=words)
def test_a_comparison_means_what_it_means_for_numbers(
    compare: Callable[[object, object], object], bound: int, value: int
) -> None:
    try:
        condition = compare(Arg(0), bound)
    except UsageError:
        assert {compare(value, bound) for value in EDGES} in ({True}, {False})  # it never holds, or always
        return
    assert isinstance(condition, Condition)
    assert holds(condition, value) == compare(value, bound)


@given(mask=st.integers(1, LARGEST), other=words, value=words)
def test_masked_looks_at_the_bits_of_the_mask_only(mask: int, other: int, value: int) -> None:
    wanted = other & mask
    assert holds(Arg(0).masked(mask) == wanted, value) == (value & mask == wanted)
    assert holds(Arg(0).masked(mask) != wanted, value) == (value & mask != wanted)


def test_int32_reads_an_argument_as_the_kernel_reads_an_int() -> None:
    at_fdcwd = Arg(0).int32 == -100
    assert holds(at_fdcwd, 0xFFFFFF9C)
    assert holds(at_fdcwd, LARGEST - 99)
    assert not holds(at_fdcwd, 100)
    assert holds(Arg(0).int32 == socket.AF_INET, 0x1_0000_0002)
    assert not holds(Arg(0) == socket.AF_INET, 0x1_0000_0002)


def test_sets_and_ranges_hold_for_their_members() -> None:
    assert [value for value in range(12) if holds(Arg(0).one_of(1, 2, 3, 9), value)] == [1, 2, 3, 9]
    assert [value for value in range(12) if holds(Arg(0).between(3, 5), value)] == [3, 4, 5]
    assert [value for value in range(8) if holds(Arg(0).masked(6).one_of(2, 4), value)] == [2, 3, 4, 5]
    assert [value for value in range(8) if holds((Arg(0) > 2) & (Arg(0) < 5) | (Arg(0) == 7), value)] == [3, 4, 7]


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda: Arg(6), "0 to 5"),
        (lambda: Arg(-1), "0 to 5"),
        (lambda: Arg(0) == LARGEST + 1, "more than 64 bits"),
        (lambda: Arg(0) == -1, r"int32 == -1"),
        (lambda: Arg(0).one_of(), "never hold"),
        (lambda: Arg(0).int32.one_of(), "never hold"),
        (lambda: Arg(0).between(5, 4), "never hold"),
        (lambda: Arg(0) < 0, "never hold"),
        (lambda: Arg(0) > LARGEST, "never hold"),
        (lambda: Arg(0) >= 0, "always holds"),
        (lambda: Arg(0).masked(6) == 1, "outside of the mask"),
        (lambda: Arg(0).masked(6) != 1, "outside of the mask"),
        (lambda: Arg(0).masked(0), "at least one"),
        (lambda: Arg(0).masked(1 << 64), "at most 64"),
        (lambda: Arg(0).int32 == 1 << 32, "outside of the mask"),
        (lambda: (Arg(0) == 1) & (Arg(0) == 2), "never hold"),
        (lambda: (Arg(0) > 5) & (Arg(0) < 5), "never hold"),
        (lambda: (Arg(0) == 2) & (Arg(0).masked(1) == 1), "never hold"),
        (lambda: (Arg(0).masked(3) == 1) & (Arg(0).masked(6) == 2), "never hold"),
        (lambda: (Arg(0).masked(3) == 1) & (Arg(0).masked(1) != 1), "never hold"),
        (lambda: (Arg(0) == 1) and (Arg(1) == 2), "& and |"),
        (lambda: not (Arg(0) < 1), "& and |"),
        (lambda: 1 < Arg(0) < 5, "between"),
        (lambda: Arg(0) == 1 & Arg(1) == 2, "parentheses"),
        (lambda: Arg(0) == 1 | Arg(1).masked(3) == 2, "parentheses"),
        (lambda: (Arg(0) == 1) & True, "combine two comparisons"),
    ],
)
def test_what_cannot_be_meant_cannot_be_written(write: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        write()


def test_the_same_condition_in_other_words_is_equal() -> None:
    assert (Arg(0) <= 4) == (Arg(0) < 5)
    assert Arg(0).one_of(1, 2, 3) == Arg(0).between(1, 3)
    assert hash(Arg(1) >= 1) == hash(Arg(1) != 0)
    assert (Arg(0) == 1) != (Arg(1) == 1)


def test_a_condition_reads_as_it_was_written() -> None:
    assert repr((Arg(0).int32 == -100) & (Arg(2).masked(0x40000) == 0)) == (
        "(Arg(0).int32 == -100) & (Arg(2).masked(0x40000) == 0)"
    )
    assert repr(Arg(1).one_of(1, 2) | (Arg(1) > 0x10000)) == "(Arg(1).one_of(1, 2)) | (Arg(1) > 0x10000)"


small = st.integers(0, 9)
atoms = st.one_of(
    small.map(lambda v: Arg(0) == v),
    small.map(lambda v: Arg(0) != v),
    small.map(lambda v: Arg(0) < v + 1),
    small.map(lambda v: Arg(0) > v),
    st.tuples(st.integers(1, 15), small).map(lambda p: Arg(0).masked(p[0]) == p[1] & p[0]),
    st.tuples(st.integers(1, 15), small).map(lambda p: Arg(0).masked(p[0]) != p[1] & p[0]),
)


def combine(parts: tuple[Condition, Condition], both: bool) -> Condition | None:
    try:
        return parts[0] & parts[1] if both else parts[0] | parts[1]
    except UsageError:
        return None


@given(st.tuples(atoms, atoms), st.tuples(atoms, atoms), st.booleans(), st.booleans())
def test_implies_is_never_wrong_when_it_says_yes(
    one: tuple[Condition, Condition], other: tuple[Condition, Condition], both: bool, both_other: bool
) -> None:
    narrow, broad = combine(one, both), combine(other, both_other)
    if narrow is None or broad is None:
        return
    if implies(narrow, broad):
        assert all(holds(broad, value) for value in range(64) if holds(narrow, value))


@given(atoms, atoms)
def test_implies_is_never_wrong_about_single_comparisons(narrow: Condition, broad: Condition) -> None:
    assert not implies(narrow, broad) or all(holds(broad, value) for value in range(64) if holds(narrow, value))


def test_a_wider_mask_is_not_implied_by_a_narrower_one() -> None:
    assert implies(Arg(0).masked(3) == 1, Arg(0).masked(1) == 1)
    assert not implies(Arg(0).masked(1) == 1, Arg(0).masked(3) == 1)
    assert implies(Arg(0).masked(1) != 1, Arg(0).masked(3) != 1)
    assert not implies(Arg(0).masked(3) != 1, Arg(0).masked(1) != 1)
    assert implies(Arg(0).masked(3) == 1, Arg(0).masked(5) != 4)


@given(atoms, atoms)
def test_a_conjunction_is_refused_only_if_nothing_satisfies_it(one: Condition, other: Condition) -> None:
    if combine((one, other), both=True) is None:
        assert not any(holds(one, value) and holds(other, value) for value in range(64))
