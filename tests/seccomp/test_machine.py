"""Runs in: the test process. The simulated machine: programs of any compiler, checked and run as the kernel does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunri.errors import UsageError
from bunri.seccomp import Action, Instruction, Program

ALLOW, KILL = 0x7FFF0000, 0x80000000
RETURN = (0x06, 0, 0, ALLOW)


def program(*instructions: tuple[int, int, int, int]) -> Program:
    code = b"".join(
        c.to_bytes(2, "little") + bytes((jt, jf)) + k.to_bytes(4, "little") for c, jt, jf, k in instructions
    )
    return Program.from_bytes(code, arch="x86_64")


def result(*instructions: tuple[int, int, int, int], args: tuple[int, ...] = ()) -> int:
    """What is in A at the end, through `return A` of 16 bits of errno."""
    action = program(*instructions, (0x54, 0, 0, 0xFFF), (0x44, 0, 0, 0x50000), (0x16, 0, 0, 0)).decide(
        "x86_64", 7, args
    )
    return action.data


A, X = 0x00, 0x01  # load immediate


@pytest.mark.parametrize(
    ("code", "wanted"),
    [(0x04, 10), (0x14, 4), (0x24, 21), (0x34, 2), (0x44, 7), (0x54, 3), (0x64, 56), (0x74, 0), (0xA4, 4)],
)
def test_arithmetic_with_a_constant_and_with_x(code: int, wanted: int) -> None:
    assert result((A, 0, 0, 7), (code, 0, 0, 3)) == wanted
    assert result((X, 0, 0, 3), (A, 0, 0, 7), (code | 8, 0, 0, 0)) == wanted


def test_registers_memory_and_length() -> None:
    assert result((A, 0, 0, 5), (0x84, 0, 0, 0)) == -5 & 0xFFF
    assert result((A, 0, 0, 5), (0x02, 0, 0, 3), (A, 0, 0, 1), (0x60, 0, 0, 3)) == 5
    assert result((X, 0, 0, 6), (0x03, 0, 0, 0), (0x61, 0, 0, 0), (0x87, 0, 0, 0)) == 6
    assert result((A, 0, 0, 9), (0x07, 0, 0, 0), (A, 0, 0, 0), (0x87, 0, 0, 0)) == 9
    assert result((0x80, 0, 0, 0)) == 64
    assert result((0x81, 0, 0, 0), (0x87, 0, 0, 0)) == 64
    assert result((0x20, 0, 0, 0)) == 7
    assert result((0x20, 0, 0, 20), args=(0x123_0000_0004,)) == 0x123
    assert program((X, 0, 0, 0), (0x3C, 0, 0, 0), RETURN).decide("x86_64", 0) == Action.KILL_THREAD  # divides by X == 0


@pytest.mark.parametrize(
    ("instructions", "says"),
    [
        ([], "not 0|are not"),
        ([(A, 0, 0, 0)], "must be a return"),
        ([(0x28, 0, 0, 0), RETURN], "not allowed"),
        ([(0x94, 0, 0, 3), RETURN], "not allowed"),
        ([(0x20, 0, 0, 64), RETURN], "not a word of seccomp_data"),
        ([(0x20, 0, 0, 2), RETURN], "not a word of seccomp_data"),
        ([(0x15, 0, 1, 0), RETURN], "past the end"),
        ([(0x05, 0, 0, 1), RETURN], "past the end"),
        ([(0x34, 0, 0, 0), RETURN], "divides by 0"),
        ([(0x64, 0, 0, 32), RETURN], "shifts by 32"),
        ([(0x02, 0, 0, 16), RETURN], "16 memory cells"),
        ([(0x60, 0, 0, 1), RETURN], "before it is written"),
        ([(0x15, 0, 1, 0), (0x02, 0, 0, 1), (0x60, 0, 0, 1), RETURN], "before it is written"),
        ([RETURN] * 4097, "1 to 4096"),
    ],
)
def test_what_the_kernel_refuses_is_refused(instructions: list[tuple[int, int, int, int]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        program(*instructions)


def test_bytes_that_are_no_whole_instructions_are_refused() -> None:
    with pytest.raises(UsageError, match="8-byte instructions"):
        Program.from_bytes(b"1234567")


def test_a_program_that_names_no_architecture_needs_one_said() -> None:
    code = b"\x06\0\0\0\0\0\xff\x7f"
    with pytest.raises(UsageError, match="arch="):
        Program.from_bytes(code)
    assert Program.from_bytes(code, arch="aarch64").decide("aarch64", "read") == Action.ALLOW


@given(st.binary(max_size=400))
def test_any_bytes_are_either_refused_or_can_be_run_and_shown(code: bytes) -> None:
    try:
        made = Program.from_bytes(code, arch="x86_64")
    except UsageError:
        return
    assert isinstance(made.decide("x86_64", 0), Action)
    assert made.listing()


CODES = (
    0x20, 0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0x02, 0x03, 0x04, 0x14, 0x24, 0x34, 0x44, 0x64, 0x74, 0x84, 0xA4, 0x54,
    0x5C, 0x0C, 0x3C, 0x6C, 0x15, 0x25, 0x35, 0x45, 0x1D, 0x3D, 0x05, 0x06, 0x16, 0x07, 0x87,
)  # fmt: skip
instructions_ = st.builds(
    Instruction, st.sampled_from(CODES), st.integers(0, 3), st.integers(0, 3), st.integers(0, 24) | st.just(0x7FFF0000)
)


@given(st.lists(instructions_, max_size=12), st.integers(0, 500))
def test_any_program_of_valid_codes_ends_and_can_be_shown(made: list[Instruction], number: int) -> None:
    try:
        valid = program(*made, RETURN)
    except UsageError:
        return
    assert isinstance(valid.decide("x86_64", number, (1, 2, 3)), Action)
    assert len(valid.listing().splitlines()) > len(made)
