"""Runs in: the process that makes a plan, and wherever a filter is asked or shown. One compiled filter as a value."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from bunri.errors import InternalError, UsageError
from bunri.seccomp import _machine
from bunri.seccomp._assemble import ARCH, JEQ, LOAD, Instruction
from bunri.seccomp._listing import listing
from bunri.seccomp._names import AUDIT_ARCH, KERNEL_OF_TABLES, X32_BIT, audit_arch, name_of, number_of, syscalls_of
from bunri.seccomp.actions import Action
from bunri.seccomp.rules import Rule

_SOCK_FILTER = struct.Struct("<HBBI")


@dataclass(frozen=True)
class Source:
    """What a program was compiled from."""

    rules: tuple[Rule, ...]
    default: Action
    unknown: Action
    asked: dict[str, tuple[int, ...]] = field(
        compare=False, repr=False
    )  # call -> indices of the rules that are asked, in order


@dataclass(frozen=True, repr=False)
class Program:
    """A seccomp filter for one architecture. Two are equal if their instructions are.

    `source` is None for a program read back from bytes.
    """

    arch: str
    instructions: tuple[Instruction, ...]
    source: Source | None = field(default=None, compare=False)

    def decide(self, arch: str, call: str | int, args: Sequence[int] = (), *, instruction_pointer: int = 0) -> Action:
        """What the kernel would do: the instructions themselves are run, not the rules.

        `arch` is the caller's ("x86_64", "aarch64", "i386", "arm", "riscv64"), `call` a name or a number there (x32:
        number + 0x40000000); missing arguments are 0, negative ones are sign-extended. UsageError for a name `arch`
        does not have.
        """
        return Action.from_value(self._run(arch, call, args, instruction_pointer)[0])

    def explain(self, call: str | int | None = None, args: Sequence[int] = ()) -> str:
        """Which rule decides this call, and why; without a call, every rule with its reason."""
        if self.source is None:
            return self._explain_read_back(call, args)
        if call is None:
            return _all_rules(self.arch, self.source)
        number = number_of(self.arch, call)
        action, why = _by_the_rules(self.arch, self.source, number, six(args))
        decided = self.decide(self.arch, number, args)
        if action != decided:
            raise InternalError(f"the rules say {action}, the instructions {decided}, for {call!r} {tuple(args)}")
        return f"{_call_text(self.arch, number, args)}: {action}\n" + "\n".join(f"  {line}" for line in why)

    def listing(self) -> str:
        """The instructions as text: labels, real offsets, system call names."""
        return listing(self.arch, self.instructions)

    def to_bytes(self) -> bytes:
        """An array of struct sock_filter, as the kernel takes it. Made once."""
        return self._bytes

    @cached_property
    def _bytes(self) -> bytes:
        return b"".join(_SOCK_FILTER.pack(*instruction) for instruction in self.instructions)

    @classmethod
    def from_bytes(cls, program: bytes, *, arch: str | None = None) -> Program:
        """Any filter, also one of another compiler or read back from a process.

        `arch` None: the one whose mark the program compares first. UsageError for bytes that the kernel would refuse.
        """
        if not program or len(program) % _SOCK_FILTER.size:
            raise UsageError(
                f"a filter is a number of {_SOCK_FILTER.size}-byte instructions; {len(program)} bytes are not"
            )
        instructions = tuple(Instruction(*fields) for fields in _SOCK_FILTER.iter_unpack(program))
        _machine.check(instructions)
        return cls(arch if arch is not None else _arch_of(instructions), instructions)

    def __len__(self) -> int:
        return len(self.instructions)

    def __repr__(self) -> str:
        made = f" from {len(self.source.rules)} rules" if self.source else ""
        return f"<Program for {self.arch}: {len(self)} instructions{made}>"

    def _run(self, arch: str, call: str | int, args: Sequence[int], instruction_pointer: int = 0) -> tuple[int, int]:
        number = number_of(arch, call)
        data = _machine.data_of(number, audit_arch(arch), instruction_pointer, six(args))
        return _machine.run(self.instructions, data)

    def _explain_read_back(self, call: str | int | None, args: Sequence[int]) -> str:
        if call is None:
            return f"{self!r}: read back from bytes, so without rules and reasons; see listing()"
        value, index = self._run(self.arch, call, args)
        number = number_of(self.arch, call)
        return f"{_call_text(self.arch, number, args)}: {Action.from_value(value)}\n  decided by instruction {index}"


def six(args: Sequence[int]) -> tuple[int, ...]:
    """The six argument registers: padded with 0, negative numbers sign-extended to 64 bits."""
    if len(args) > 6:
        raise UsageError(f"a system call has six arguments, not {len(args)}")
    for arg in args:
        if not -(1 << 63) <= arg < 1 << 64:
            raise UsageError(f"an argument has 64 bits; {arg} does not fit")
    return (*(int(arg) & (1 << 64) - 1 for arg in args), *(0,) * (6 - len(args)))


def _by_the_rules(arch: str, source: Source, number: int, args: tuple[int, ...]) -> tuple[Action, list[str]]:
    """What the rules say, read one after the other, and the lines that tell it."""
    if arch == "x86_64" and number >= X32_BIT:
        return Action.KILL, ["a number of the x32 interface: killed before any rule is asked"]
    name = name_of(arch, number)
    if name is None:
        newest = max(syscalls_of(arch).values())
        where = "newer than" if number > newest else "a hole in"
        return source.unknown, [
            f"{where} the table (it ends at {newest}, Linux {KERNEL_OF_TABLES}): the program's answer to unknown calls"
        ]
    lines: list[str] = []
    for index in source.asked.get(name, ()):
        rule = source.rules[index]
        if rule.when is None or rule.when.holds(args):
            return rule.action, [*lines, f"decided by rule {index + 1}: {rule}", f"because: {rule.reason}"]
        lines.append(f"passed by rule {index + 1}, whose condition does not hold: {rule}")
    return source.default, [*lines, "no rule holds: the program's default"]


def _all_rules(arch: str, source: Source) -> str:
    lines = [f"filter for {arch}: {len(source.rules)} rules, for one call the first that holds decides"]
    for index, rule in enumerate(source.rules):
        lines.append(f"{index + 1:4}. {rule}")
        lines.append(f"      {rule.reason}")
        elsewhere = sorted(name for name in rule.named if name not in syscalls_of(arch))
        if elsewhere:
            lines.append(f"      not on {arch}: {', '.join(elsewhere)}")
    lines.append(f"      known calls that no rule decides: {source.default}")
    lines.append(f"      calls newer than Linux {KERNEL_OF_TABLES}: {source.unknown}")
    lines.append("      other architectures, x32: kill")
    return "\n".join(lines)


def _call_text(arch: str, number: int, args: Sequence[int]) -> str:
    values = ", ".join(str(arg) if -4096 < arg < 4096 else hex(arg) for arg in args)
    return f"{name_of(arch, number) or f'call {number}'}({values})"


def _arch_of(instructions: tuple[Instruction, ...]) -> str:
    """The architecture that the program compares with first."""
    holds_arch = False
    for instruction in instructions:
        if instruction.code == LOAD:
            holds_arch = instruction.k == ARCH
        elif holds_arch and instruction.code == JEQ:
            for name, mark in AUDIT_ARCH.items():
                if mark == instruction.k:
                    return name
    raise UsageError("the program compares with no architecture we know: say from_bytes(..., arch=...)")
