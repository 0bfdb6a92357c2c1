"""Runs in: the process that makes a plan. From a condition on 64-bit arguments to tests of 32-bit words.

The machine compares 32 bits, an argument has 64. A filter that looks at one half is passed by setting bits in the
other; so every comparison here is made of both halves, and the ranges of a `Compare` are the only form that numbers
take.
"""

from __future__ import annotations

from bunri.seccomp._assemble import JEQ, JSET, WORD, Assembler, Node, high_word, low_word, segments
from bunri.seccomp.conditions import All, AnyOf, Compare, Condition, MaskedCompare, Ranges


def lower(out: Assembler, condition: Condition, yes: Node, no: Node) -> Node:
    """Where to go to have `condition` decided: it leads to `yes` where it holds and to `no` where it does not."""
    match condition:
        case All(parts):
            for part in reversed(parts):
                yes = lower(out, part, yes, no)
            return yes
        case AnyOf(parts):
            for part in reversed(parts):
                no = lower(out, part, yes, no)
            return no
        case Compare(arg, ranges):
            return _ranges(out, arg, ranges, yes, no)
        case MaskedCompare(arg, mask, relation, value):
            if relation == "!=":
                yes, no = no, yes
            low = _bits(out, low_word(arg), mask & WORD, value & WORD, yes, no)
            return _bits(out, high_word(arg), mask >> 32, value >> 32, low, no)
        case _:
            raise TypeError(f"not a condition: {condition!r}")


def _ranges(out: Assembler, arg: int, ranges: Ranges, yes: Node, no: Node) -> Node:
    """Search the high word first. Where a range covers a high word whole it is `yes`; else the low word decides."""
    whole: list[tuple[int, int, Node]] = []
    partial: dict[int, list[tuple[int, int, Node]]] = {}
    for first, last in ranges:
        high_first, low_first = first >> 32, first & WORD
        high_last, low_last = last >> 32, last & WORD
        if high_first == high_last:
            partial.setdefault(high_first, []).append((low_first, low_last, yes))
            continue
        partial.setdefault(high_first, []).append((low_first, WORD, yes))
        partial.setdefault(high_last, []).append((0, low_last, yes))
        if high_last > high_first + 1:
            whole.append((high_first + 1, high_last - 1, yes))
    for high, lows in partial.items():
        whole.append((high, high, _load_and_search(out, low_word(arg), lows, no)))
    return _load_and_search(out, high_word(arg), whole, no)


def _load_and_search(out: Assembler, offset: int, pieces: list[tuple[int, int, Node]], no: Node) -> Node:
    parts = segments(pieces, no)
    return parts[0][2] if len(parts) == 1 else out.load(offset, out.search(pieces, no))


def _bits(out: Assembler, offset: int, mask: int, value: int, yes: Node, no: Node) -> Node:
    """Whether the bits of `mask` in one word are `value`."""
    if not mask or yes == no:
        return yes
    if mask == WORD:
        test = out.jump(JEQ, value, yes, no)
    elif not value:
        test = out.jump(JSET, mask, no, yes)
    elif value == mask and mask & (mask - 1) == 0:
        test = out.jump(JSET, mask, yes, no)
    else:
        test = out.mask(mask, out.jump(JEQ, value, yes, no))
    return out.load(offset, test)
