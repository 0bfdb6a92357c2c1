"""Runs in: wherever a filter is shown. A program as text that can be audited: labels, real offsets, names."""

from __future__ import annotations

from collections.abc import Sequence

from bunri.seccomp import _machine as m
from bunri.seccomp._assemble import AND, ARCH, JEQ, JGE, JGT, JSET, JUMP, LOAD, NUMBER, RETURN, Instruction
from bunri.seccomp._names import AUDIT_ARCH, name_of, syscalls_of
from bunri.seccomp.actions import Action

_Numbers = frozenset[int]
_SIGN = {JEQ: "==", JGE: ">=", JGT: ">", JSET: "&"}
_ARITHMETIC = {
    m.ADD: "+",
    m.SUB: "-",
    m.MUL: "*",
    m.DIV: "/",
    AND: "&",
    m.OR: "|",
    m.XOR: "^",
    m.LSH: "<<",
    m.RSH: ">>",
}
_SHOWN = 6  # so many names stand at a label


def listing(arch: str, program: Sequence[Instruction]) -> str:
    """One line per instruction; before each jump target its label and the calls that come by there."""
    holds, arriving = _flow(arch, program)
    targets = {target for index, one in enumerate(program) for target in _targets(index, one)}
    labels = {target: _label(target, program[target]) for target in sorted(targets)}
    lines = [f"filter for {arch}, {len(program)} instructions"]
    for index, instruction in enumerate(program):
        if index in labels:
            lines.append(f"{labels[index]}:{_visitors(arch, arriving[index])}")
        lines.append(f"  {index:4}  {_text(arch, index, instruction, holds[index], labels)}")
    return "\n".join(lines)


def _label(index: int, instruction: Instruction) -> str:
    if instruction.code == RETURN:
        return f"{str(Action.from_value(instruction.k)).replace(' ', '_')}_{index}"
    return f"L{index}"


def _targets(index: int, instruction: Instruction) -> list[int]:
    """Where it jumps to, other than to the next instruction."""
    if instruction.code == JUMP:
        return [index + 1 + instruction.k]
    if instruction.code & ~m.BY_X in m.BRANCHES:
        return [index + 1 + offset for offset in (instruction.jt, instruction.jf) if offset]
    return []


def _flow(arch: str, program: Sequence[Instruction]) -> tuple[list[str], list[_Numbers]]:
    """For each instruction: what the accumulator holds, and which known calls of `arch` can arrive."""
    holds: list[str] = [""] * len(program)
    arriving: list[_Numbers] = [frozenset()] * len(program)
    calls = frozenset(syscalls_of(arch).values()) if arch in ("x86_64", "aarch64") else frozenset[int]()
    arriving[0] = calls

    def go(target: int, what: str, numbers: _Numbers) -> None:
        if target < len(program):
            holds[target] = what if holds[target] in ("", what) else "A"
            arriving[target] |= numbers

    for index, instruction in enumerate(program):
        what, numbers = holds[index] or "A", arriving[index]
        code, jt, jf, k = instruction
        if code in (RETURN, m.RETURN_A):
            continue
        if code == JUMP:
            go(index + 1 + k, what, numbers)
        elif code & ~m.BY_X in m.BRANCHES:
            taken = numbers if code & m.BY_X else _taken(arch, code, what, k, numbers)
            both = what not in ("nr", "arch") or code & m.BY_X or code == JSET
            go(index + 1 + jt, what, taken)
            go(index + 1 + jf, what, numbers if both else numbers - taken)
        else:
            go(index + 1, _after(what, instruction), numbers)
    return holds, arriving


def _taken(arch: str, code: int, what: str, k: int, numbers: _Numbers) -> _Numbers:
    """The calls for which a branch is taken."""
    if what == "arch" and code == JEQ:
        return numbers if k == AUDIT_ARCH[arch] else frozenset()
    if what != "nr" or code == JSET:
        return numbers
    if code == JEQ:
        return numbers & {k}
    return frozenset(number for number in numbers if (number >= k if code == JGE else number > k))


def _after(what: str, instruction: Instruction) -> str:
    """What the accumulator holds behind a straight instruction."""
    code, _, _, k = instruction
    if code == LOAD:
        return _field(k)
    if code == AND:
        return f"({what} & {k:#x})"
    if code in (m.LOADX_IMM, m.LOADX_MEM, m.LOADX_LEN, m.STORE, m.STOREX, m.TAX):
        return what
    return "A"


def _field(offset: int) -> str:
    if offset == NUMBER:
        return "nr"
    if offset == ARCH:
        return "arch"
    if offset < 16:
        return "instruction_pointer." + ("low" if offset == 8 else "high")
    return f"args[{(offset - 16) // 8}]." + ("high" if offset % 8 else "low")


def _text(arch: str, index: int, instruction: Instruction, what: str, labels: dict[int, str]) -> str:
    code, jt, jf, k = instruction
    base = code & ~m.BY_X
    operand = "X" if code & m.BY_X else f"{k:#x}" if k >= 10 or code == AND else str(k)
    if code == RETURN:
        return f"return {Action.from_value(k)}"
    if code == JUMP:
        return f"goto {labels[index + 1 + k]} (+{k})"
    if base in m.BRANCHES:
        shown = operand if code & m.BY_X else _operand(arch, base, what, k)
        yes = f"goto {labels[index + 1 + jt]} (+{jt})" if jt else "next"
        no = f"goto {labels[index + 1 + jf]} (+{jf})" if jf else "next"
        return f"if {what or 'A'} {_SIGN[base]} {shown}: {yes}, else {no}"
    if base in m.ARITHMETIC and code not in (m.STORE, m.STOREX):
        return f"A {_ARITHMETIC[base]}= {operand}"
    return _plain(code, k, operand)


def _plain(code: int, k: int, operand: str) -> str:
    """The instructions without a jump or arithmetic."""
    return {
        LOAD: f"load {_field(k)}",
        m.LOAD_IMM: f"A = {operand}",
        m.LOAD_MEM: f"A = M[{k}]",
        m.LOAD_LEN: "A = length of the data",
        m.LOADX_IMM: f"X = {operand}",
        m.LOADX_MEM: f"X = M[{k}]",
        m.LOADX_LEN: "X = length of the data",
        m.STORE: f"M[{k}] = A",
        m.STOREX: f"M[{k}] = X",
        m.NEG: "A = -A",
        m.RETURN_A: "return A",
        m.TAX: "X = A",
        m.TXA: "A = X",
    }[code]


def _operand(arch: str, code: int, what: str, k: int) -> str:
    """A number, with its meaning where there is one."""
    if what == "nr":
        # A threshold may lie in a hole: then it is a number only.
        name = name_of(arch, k)
        return f"{k} ({name})" if name else f"{k:#x}" if k > 1 << 16 else str(k)
    if what == "arch":
        name = next((name for name, mark in AUDIT_ARCH.items() if mark == k), None)
        return f"{k:#x} ({name})" if name else f"{k:#x}"
    return f"{k:#x}" if code == JSET or k >= 10 else str(k)


def _visitors(arch: str, numbers: _Numbers) -> str:
    names = [name_of(arch, number) or str(number) for number in sorted(numbers)]
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"  ; {' '.join(names[:_SHOWN])}{more}"
