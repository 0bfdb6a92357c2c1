"""Runs in: wherever a filter is simulated. The kernel's machine for seccomp filters.

It checks a program as the kernel does and runs it as the kernel does. Written from the kernel's rules
(net/core/filter.c bpf_check_classic and check_load_and_stores, kernel/seccomp.c seccomp_check_filter), for every
instruction they accept, so that programs of other compilers can be read back and run too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp._assemble import (
    AND,
    DATA_SIZE,
    JEQ,
    JGE,
    JGT,
    JSET,
    JUMP,
    LOAD,
    MOST_INSTRUCTIONS,
    RETURN,
    WORD,
    Instruction,
)

LOAD_IMM: Final = 0x00
LOAD_MEM: Final = 0x60
LOAD_LEN: Final = 0x80
LOADX_IMM: Final = 0x01
LOADX_MEM: Final = 0x61
LOADX_LEN: Final = 0x81
STORE: Final = 0x02
STOREX: Final = 0x03
ADD: Final = 0x04
SUB: Final = 0x14
MUL: Final = 0x24
DIV: Final = 0x34
OR: Final = 0x44
LSH: Final = 0x64
RSH: Final = 0x74
NEG: Final = 0x84
XOR: Final = 0xA4
RETURN_A: Final = 0x16
TAX: Final = 0x07
TXA: Final = 0x87
BY_X: Final = 0x08  # added to an operation or a jump: the operand is X, not k

ARITHMETIC: Final = frozenset({ADD, SUB, MUL, DIV, AND, OR, XOR, LSH, RSH})
BRANCHES: Final = frozenset({JEQ, JGT, JGE, JSET})
_CODES: Final = (
    frozenset(
        {
            LOAD,
            LOAD_IMM,
            LOAD_MEM,
            LOAD_LEN,
            LOADX_IMM,
            LOADX_MEM,
            LOADX_LEN,
            STORE,
            STOREX,
            NEG,
            JUMP,
            RETURN,
            RETURN_A,
            TAX,
            TXA,
        }
    )
    | ARITHMETIC
    | BRANCHES
    | {code | BY_X for code in ARITHMETIC | BRANCHES}
)
_CELLS: Final = 16  # BPF_MEMWORDS
_DATA: Final = struct.Struct("<iIQ6Q")  # struct seccomp_data: nr, arch, instruction_pointer, args


def data_of(number: int, arch: int, instruction_pointer: int, arguments: Sequence[int]) -> bytes:
    """struct seccomp_data."""
    signed = number - (1 << 32) if number >= 1 << 31 else number
    return _DATA.pack(signed, arch, instruction_pointer, *arguments)


def check(program: Sequence[Instruction]) -> None:
    """UsageError, with the instruction, for what the kernel would refuse."""
    if not 1 <= len(program) <= MOST_INSTRUCTIONS:
        raise UsageError(f"a filter has 1 to {MOST_INSTRUCTIONS} instructions, not {len(program)}")
    for index, instruction in enumerate(program):
        problem = _problem(instruction, len(program) - 1 - index)
        if problem:
            raise UsageError(f"instruction {index} {tuple(instruction)}: {problem}")
    if program[-1].code not in (RETURN, RETURN_A):
        raise UsageError("the last instruction of a filter must be a return")
    _check_cells(program)


def _problem(instruction: Instruction, following: int) -> str | None:
    """What is wrong with one instruction that `following` others follow."""
    code, jt, jf, k = instruction
    if code not in _CODES:
        return f"code {code:#04x} is not allowed in a seccomp filter"
    if code == LOAD and (k >= DATA_SIZE or k % 4):
        return f"offset {k} is not a word of seccomp_data"
    if code in (LOAD_MEM, LOADX_MEM, STORE, STOREX) and k >= _CELLS:
        return f"there are {_CELLS} memory cells, not {k + 1}"
    if code == DIV and k == 0:
        return "it divides by 0"
    if code in (LSH, RSH) and k >= 32:
        return f"it shifts by {k} bits"
    if code == JUMP and k >= following:
        return "it jumps past the end"
    if code & ~BY_X in BRANCHES and max(jt, jf) >= following:
        return "it jumps past the end"
    return None


def _check_cells(program: Sequence[Instruction]) -> None:
    """No memory cell is read that was not written on every way there."""
    everything = (1 << _CELLS) - 1
    arriving = [everything] * len(program)
    written = 0
    for index, (code, jt, jf, k) in enumerate(program):
        written &= arriving[index]
        if code in (STORE, STOREX):
            written |= 1 << k
        elif code in (LOAD_MEM, LOADX_MEM) and not written >> k & 1:
            raise UsageError(f"instruction {index} reads memory cell {k} before it is written")
        elif code == JUMP:
            arriving[index + 1 + k] &= written
            written = everything
        elif code & ~BY_X in BRANCHES:
            arriving[index + 1 + jt] &= written
            arriving[index + 1 + jf] &= written
            written = everything


def run(program: Sequence[Instruction], data: bytes) -> tuple[int, int]:
    """The value that a checked program returns for `data`, and the index of the return that decided."""
    accumulator = index_register = counter = 0
    cells = [0] * _CELLS
    while True:
        code, jt, jf, k = program[counter]
        counter += 1
        operand = index_register if code & BY_X else k
        if code == LOAD:
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif code == JUMP:
            counter += k
        elif code & ~BY_X in BRANCHES:
            counter += jt if _branch(code & ~BY_X, accumulator, operand) else jf
        elif code == RETURN:
            return k, counter - 1
        elif code == RETURN_A:
            return accumulator, counter - 1
        elif code == TAX:
            index_register = accumulator
        elif code == TXA:
            accumulator = index_register
        elif code in (STORE, STOREX):
            cells[k] = accumulator if code == STORE else index_register
        elif code in (LOAD_IMM, LOAD_MEM, LOAD_LEN):
            accumulator = k if code == LOAD_IMM else cells[k] if code == LOAD_MEM else DATA_SIZE
        elif code in (LOADX_IMM, LOADX_MEM, LOADX_LEN):
            index_register = k if code == LOADX_IMM else cells[k] if code == LOADX_MEM else DATA_SIZE
        elif code == NEG:
            accumulator = -accumulator & WORD
        elif code == DIV | BY_X and operand == 0:
            return 0, counter - 1  # the kernel ends the program with 0 here, which kills the thread
        else:
            accumulator = _calculate(code & ~BY_X, accumulator, operand)


def _branch(code: int, accumulator: int, operand: int) -> bool:
    if code == JEQ:
        return accumulator == operand
    if code == JGE:
        return accumulator >= operand
    if code == JGT:
        return accumulator > operand
    return bool(accumulator & operand)


def _calculate(code: int, accumulator: int, operand: int) -> int:
    match code:
        case 0x04:
            result = accumulator + operand
        case 0x14:
            result = accumulator - operand
        case 0x24:
            result = accumulator * operand
        case 0x34:
            result = accumulator // operand
        case 0x44:
            result = accumulator | operand
        case 0x54:
            result = accumulator & operand
        case 0x64:
            result = accumulator << (operand & 31)
        case 0x74:
            result = accumulator >> (operand & 31)
        case _:
            result = accumulator ^ operand
    return result & WORD
