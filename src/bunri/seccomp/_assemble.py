"""Runs in: the process that makes a plan. From decisions to instructions of classic BPF (kernel: filter.rst).

Instructions are made from the last to the first: a jump can only go forward, so both its targets exist before it does.
An instruction that was made once is not made again (`_made`), which shares all common endings without looking for them.
A conditional jump reaches 255 instructions. Where its target is farther, a stepping stone is placed right after it: a
copy of the target if that is a return, else an unconditional jump, which reaches everything. Later jumps use the
nearest such stone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from bunri.errors import UsageError

# linux/filter.h, linux/bpf_common.h
LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
JUMP: Final = 0x05  # BPF_JMP | BPF_JA
JEQ: Final = 0x15
JGT: Final = 0x25
JGE: Final = 0x35
JSET: Final = 0x45
RETURN: Final = 0x06  # BPF_RET | BPF_K

# struct seccomp_data, little-endian
NUMBER: Final = 0
ARCH: Final = 4
DATA_SIZE: Final = 64

WORD: Final = 0xFFFFFFFF
MOST_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
_REACH: Final = 255
_CHAIN: Final = 4  # so many single numbers are asked for one by one: shorter than a tree, and no slower

Node = int  # an instruction, counted from the end of the program
Part = tuple[int, int, Node]  # first number, last number, where to go
Pieces = Iterable[Part]


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int


def low_word(arg: int) -> int:
    """Where the low half of an argument stands in seccomp_data."""
    return 16 + 8 * arg


def high_word(arg: int) -> int:
    return 20 + 8 * arg


class Assembler:
    """Makes one program, last instruction first. Each method returns the node to go to."""

    def __init__(self) -> None:
        self._backwards: list[Instruction] = []
        self._made: dict[tuple[int, int, Node, Node], Node] = {}
        self._stone: dict[Node, Node] = {}  # node -> its nearest equal so far

    def ret(self, value: int) -> Node:
        key = (RETURN, value, 0, 0)
        if key not in self._made:
            self._made[key] = self._push(Instruction(RETURN, 0, 0, value))
        return self._made[key]

    def load(self, offset: int, then: Node) -> Node:
        return self._straight(LOAD, offset, then)

    def mask(self, bits: int, then: Node) -> Node:
        return self._straight(AND, bits, then)

    def jump(self, code: int, k: int, yes: Node, no: Node) -> Node:
        """A conditional jump; nothing at all where both ways are the same."""
        if yes == no:
            return yes
        key = (code, k, yes, no)
        if key not in self._made:
            near_yes = self._within(yes, _REACH - 1)  # the stone for `no` may push it one farther
            near_no = self._within(no, _REACH)
            after = len(self._backwards) - 1
            self._made[key] = self._push(Instruction(code, after - near_yes, after - near_no, k))
        return self._made[key]

    def search(self, pieces: Pieces, otherwise: Node) -> Node:
        """Binary search of the accumulator over `pieces` (disjoint, any order); numbers in none go to `otherwise`."""
        return self._tree(segments(pieces, otherwise))

    def finish(self, entry: Node) -> tuple[Instruction, ...]:
        """The program. UsageError if it is longer than the kernel takes."""
        self._within(entry, 0)
        length = len(self._backwards)
        if length > MOST_INSTRUCTIONS:
            raise UsageError(
                f"the filter has {length} instructions and the kernel takes at most {MOST_INSTRUCTIONS}: "
                "drop argument conditions, or write large sets as ranges"
            )
        return tuple(reversed(self._backwards))

    def _tree(self, parts: list[Part]) -> Node:
        if len(parts) == 1:
            return parts[0][2]
        common = next((node for first, last, node in parts if first != last), parts[0][2])
        others = [part for part in parts if part[2] != common]
        if len(others) <= min(_CHAIN, len(parts) - 2) and all(first == last for first, last, _ in others):
            node = common
            for first, _, special in reversed(others):
                node = self.jump(JEQ, first, special, node)
            return node
        middle = len(parts) // 2
        upper = self._tree(parts[middle:])
        lower = self._tree(parts[:middle])  # made last, so that it stands right behind the jump
        return self.jump(JGE, parts[middle][0], upper, lower)

    def _straight(self, code: int, k: int, then: Node) -> Node:
        key = (code, k, then, then)
        if key not in self._made:
            self._within(then, 0)
            self._made[key] = self._push(Instruction(code, 0, 0, k))
        return self._made[key]

    def _within(self, node: Node, reach: int) -> Node:
        """`node`, or an equal of it that the next instruction reaches."""
        near = self._stone.get(node, node)
        if len(self._backwards) - 1 - near <= reach:
            return near
        target = self._backwards[node]
        stone = target if target.code == RETURN else Instruction(JUMP, 0, 0, len(self._backwards) - 1 - node)
        self._stone[node] = self._push(stone)
        return self._stone[node]

    def _push(self, instruction: Instruction) -> Node:
        self._backwards.append(instruction)
        return len(self._backwards) - 1


def segments(pieces: Pieces, otherwise: Node) -> list[Part]:
    """All 32-bit numbers as parts, ascending; neighbours that go to the same node are one."""
    parts: list[Part] = []

    def add(first: int, last: int, node: Node) -> None:
        if parts and parts[-1][2] == node:
            parts[-1] = (parts[-1][0], last, node)
        else:
            parts.append((first, last, node))

    following = 0
    for first, last, node in sorted(pieces):
        if first > following:
            add(following, first - 1, otherwise)
        add(first, last, node)
        following = last + 1
    if following <= WORD:
        add(following, WORD, otherwise)
    return parts
