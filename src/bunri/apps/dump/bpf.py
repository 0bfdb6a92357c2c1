"""Runs in: the monitor, which checks what libpcap compiled; and the decoder, which runs it on packets. Pure.

The classic BPF machine on packets (net/core/filter.c, bpf(4)): check a program as the kernel does, run it, print it.
Instructions come from a process that read a stranger's expression with C code, so nothing is taken on trust.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from bunri.apps.dump.messages import Instruction

MOST: Final = 4096
_CELLS: Final = 16
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1}
_LOADS: Final = frozenset(mode | size for mode in (0x20, 0x40) for size in _SIZES)
_ALU: Final = frozenset({0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0})
_JUMPS: Final = frozenset({0x10, 0x20, 0x30, 0x40})
_CODES: Final = (
    _LOADS
    | {0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0xB1, 0x02, 0x03, 0x84, 0x05, 0x06, 0x16, 0x07, 0x87}
    | {0x04 | operation | source for operation in _ALU for source in (0, 8)}
    | {0x05 | operation | source for operation in _JUMPS for source in (0, 8)}
)
_WORD: Final = 0xFFFFFFFF
_ANCILLARY: Final = 0xFFFFF000  # SKF_AD_OFF: what the kernel knows beside the packet
_PACKET_TYPE: Final = (0x28, _ANCILLARY + 4)  # SKF_AD_PKTTYPE: whether it comes in or goes out


class Refused(Exception):
    """A program that the machine does not take."""


def check(program: Sequence[Instruction]) -> None:
    """Refused, with the instruction, for whatever the kernel would refuse, and for loads it gives a meaning of its own.

    But for the one that `inbound` and `outbound` need (`asks_direction`)."""
    if not 1 <= len(program) <= MOST:
        raise Refused(f"a filter has 1 to {MOST} instructions, not {len(program)}")
    for index, (code, jt, jf, k) in enumerate(program):
        left = len(program) - 1 - index
        problem = _problem(code, jt, jf, k, left)
        if problem:
            raise Refused(f"instruction {index} (0x{code:02x}, {jt}, {jf}, {k}): {problem}")
    if program[-1][0] not in (0x06, 0x16):
        raise Refused("the last instruction of a filter must be a return")


def _problem(code: int, jt: int, jf: int, k: int, left: int) -> str:
    if not (0 <= jt <= 255 and 0 <= jf <= 255 and 0 <= k <= _WORD):
        return "a field is out of range"
    if code not in _CODES:
        return "there is no such instruction"
    if code in _LOADS and k >= _ANCILLARY and (code, k) != _PACKET_TYPE:
        return "it reads beside the packet"
    if code in (0x60, 0x61, 0x02, 0x03) and k >= _CELLS:
        return f"there are {_CELLS} memory cells"
    if code in (0x34, 0x94) and k == 0:
        return "it divides by 0"
    if code in (0x64, 0x74) and k > 31:
        return "it shifts by more than 31 bits"
    if code == 0x05 and k >= left:
        return "it jumps past the end"
    if code & 7 == 5 and code != 0x05 and max(jt, jf) >= left:
        return "it jumps past the end"
    return ""


def asks_direction(program: Sequence[Instruction]) -> bool:
    """Whether it asks which way a packet goes, which only the kernel knows, not the packet."""
    return any((code, k) == _PACKET_TYPE for code, _, _, k in program)


Accept = Callable[[bytes, int], int]
"""Bytes that were captured, length on the wire -> bytes to keep; 0 is no match."""


def machine(program: Sequence[Instruction]) -> Accept:
    """A checked program as a function."""
    if len(program) == 1 and program[0][0] == 0x06:
        keep = program[0][3]
        return lambda data, length: keep
    steps = tuple(program)
    return lambda data, length: _run(steps, data, length)


_U32: Final = struct.Struct(">I").unpack_from
_U16: Final = struct.Struct(">H").unpack_from


def _run(program: Sequence[Instruction], data: bytes, length: int) -> int:
    """Reading past the end of the packet is no match, as in the kernel."""
    accumulator = index = counter = 0
    cells = [0] * _CELLS
    try:
        while True:
            code, jt, jf, k = program[counter]
            counter += 1
            if code == 0x28:
                accumulator = _U16(data, k)[0]
            elif code == 0x15:
                counter += jt if accumulator == k else jf
            elif code == 0x30:
                accumulator = data[k]
            elif code == 0x20:
                accumulator = _U32(data, k)[0]
            elif code == 0x06:
                return k
            elif code == 0x45:
                counter += jt if accumulator & k else jf
            elif code == 0xB1:
                index = (data[k] & 15) << 2
            elif code in _LOADS:
                accumulator = _load(data, code, k + index)
            elif code & 7 == 5:
                counter += _jump(code, accumulator, k, index, jt, jf)
            elif code & 7 == 4:
                accumulator = _calculate(code, accumulator, index if code & 8 else k)
            elif code == 0x16:
                return accumulator
            elif code in (0x00, 0x60, 0x80):
                accumulator = k if code == 0x00 else cells[k] if code == 0x60 else length
            elif code in (0x01, 0x61, 0x81):
                index = k if code == 0x01 else cells[k] if code == 0x61 else length
            elif code in (0x02, 0x03):
                cells[k] = accumulator if code == 0x02 else index
            elif code == 0x07:
                index = accumulator
            else:
                accumulator = index
    except (IndexError, struct.error, ZeroDivisionError):
        return 0


def _load(data: bytes, code: int, at: int) -> int:
    at &= _WORD
    size = _SIZES[code & 0x18]
    if size == 1:
        return data[at]
    return int((_U32 if size == 4 else _U16)(data, at)[0])


def _jump(code: int, accumulator: int, k: int, index: int, jt: int, jf: int) -> int:
    if code == 0x05:
        return k
    operand = index if code & 8 else k
    operation = code & 0xF0
    if operation == 0x10:
        return jt if accumulator == operand else jf
    if operation == 0x20:
        return jt if accumulator > operand else jf
    if operation == 0x30:
        return jt if accumulator >= operand else jf
    return jt if accumulator & operand else jf


_OPERATIONS: Final[dict[int, Callable[[int, int], int]]] = {
    0x00: lambda a, b: a + b, 0x10: lambda a, b: a - b, 0x20: lambda a, b: a * b, 0x30: lambda a, b: a // b,
    0x40: lambda a, b: a | b, 0x50: lambda a, b: a & b, 0x60: lambda a, b: a << (b & 31),
    0x70: lambda a, b: a >> (b & 31), 0x80: lambda a, b: -a, 0x90: lambda a, b: a % b, 0xA0: lambda a, b: a ^ b,
}  # fmt: skip


def _calculate(code: int, accumulator: int, operand: int) -> int:
    return _OPERATIONS[code & 0xF0](accumulator, operand) & _WORD


def for_cooked(program: Sequence[Instruction], version: int) -> list[Instruction] | None:
    """The program for a socket whose packets come without their link header: None where it cannot be said so.

    It was compiled for the cooked header that is put in front of each packet later. The kernel sees none: what the
    header would say is asked of the kernel (SKF_AD_PROTOCOL 0, SKF_AD_PKTTYPE 4, SKF_AD_IFINDEX 8).
    """
    size, known = (
        (16, {(0x28, 14): 0, (0x28, 0): 4}) if version == 1 else (20, {(0x28, 0): 0, (0x30, 10): 4, (0x20, 4): 8})
    )
    made: list[Instruction] = []
    for code, jt, jf, k in program:
        if code in _LOADS and code & 0xE0 == 0x20:
            if k >= size:
                k -= size
            elif (code, k) in known:
                code, k = 0x20, _ANCILLARY + known[code, k]
            else:
                return None
        elif code in (0x40, 0x48, 0x50) or code == 0xB1:
            if k < size:
                return None
            k -= size
        elif code in (0x80, 0x81):
            return None  # the length would be another one
        made.append((code, jt, jf, k))
    return made


# As tcpdump prints programs: -d, -dd, -ddd.

_NAMES: Final = {
    0x20: "ld", 0x28: "ldh", 0x30: "ldb", 0x40: "ld", 0x48: "ldh", 0x50: "ldb", 0x80: "ld", 0x81: "ldx", 0x00: "ld",
    0x01: "ldx", 0x60: "ld", 0x61: "ldx", 0xB1: "ldxb", 0x02: "st", 0x03: "stx", 0x07: "tax", 0x87: "txa",
    0x84: "neg", 0x06: "ret", 0x16: "ret", 0x05: "ja",
}  # fmt: skip
_ALU_NAMES: Final = {
    0x00: "add", 0x10: "sub", 0x20: "mul", 0x30: "div", 0x40: "or", 0x50: "and", 0x60: "lsh", 0x70: "rsh",
    0x90: "mod", 0xA0: "xor",
}  # fmt: skip
_JUMP_NAMES: Final = {0x10: "jeq", 0x20: "jgt", 0x30: "jge", 0x40: "jset"}
_HEXADECIMAL: Final = frozenset({0x40, 0x50, 0xA0})


def listing(program: Sequence[Instruction], level: int) -> str:
    """-d: readable; -dd: as a fragment of C; -ddd: numbers."""
    if level == 1:
        return "".join(f"{_line(index, *each)}\n" for index, each in enumerate(program))
    if level == 2:
        return "".join(f"{{ 0x{code:x}, {jt}, {jf}, 0x{k:08x} }},\n" for code, jt, jf, k in program)
    return f"{len(program)}\n" + "".join(f"{code} {jt} {jf} {k}\n" for code, jt, jf, k in program)


def _line(index: int, code: int, jt: int, jf: int, k: int) -> str:
    if code & 7 == 5 and code != 0x05:
        operand = "x" if code & 8 else f"#0x{k:x}"
        return f"({index:03}) {_JUMP_NAMES[code & 0xF0]:<8} {operand:<16} jt {index + 1 + jt}\tjf {index + 1 + jf}"
    return (
        f"({index:03}) {_name(code):<8} {_operand(index, code, k)}".rstrip()
        if code not in (0x07, 0x87, 0x84)
        else (f"({index:03}) {_name(code):<8} ")
    )


def _name(code: int) -> str:
    if code & 7 == 4 and code != 0x84:
        return _ALU_NAMES[code & 0xF0]
    return _NAMES[code]


def _operand(index: int, code: int, k: int) -> str:
    if code & 7 == 4:
        return "x" if code & 8 else f"#0x{k:x}" if code & 0xF0 in _HEXADECIMAL else f"#{k}"
    if code in (0x00, 0x01):
        return f"#0x{k:x}"
    if code in (0x20, 0x28, 0x30):
        return "[type]" if (code, k) == _PACKET_TYPE else f"[{k}]"
    if code in (0x40, 0x48, 0x50):
        return f"[x + {k}]"
    if code in (0x60, 0x61, 0x02, 0x03):
        return f"M[{k}]"
    if code in (0x80, 0x81):
        return "#pktlen"
    if code == 0xB1:
        return f"4*([{k}]&0xf)"
    if code == 0x06:
        return f"#{k}"
    return str(index + 1 + k) if code == 0x05 else ""
