"""Runs in: the process that makes a plan. In: what strace and `perf trace` printed, as a first draft of a filter.

What a program did once is no promise of what it needs, and what it did under attack would be learned as well. So the
draft begins with the attack rules, whatever the trace holds, and its arguments are not learned.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp._names import is_known
from bunri.seccomp.attack import ATTACK_SHAPED
from bunri.seccomp.imported import Imported
from bunri.seccomp.presets import Children, attack_rules, clone_rules
from bunri.seccomp.rules import NOT_IMPLEMENTED, REFUSED, allow

LARGEST_TRACE: Final = 256 << 20  # characters
_MOST_SAID: Final = 20  # lines that were not understood, each with its text

# "[pid 7] read(3, ..." | "7 12:00:00.1 read(3, ..." | "0.000 ( 0.004 ms): cat/7 read(fd: 3, ..." | "<... read resumed>"
_MADE: Final = re.compile(
    r"^\s*(?:\[pid +\d+\] *)?(?:\d[\d:.]* +)*(?:\( *[\d.]* *(?:ms)?\s*\): +)?(?:\? +)?(?:[^\s(]+/\d+ +)?([a-z_]\w*)\("
)
_RESUMED: Final = re.compile(r"<?\.\.\. ?\[?(?:continued\]: )?([a-z_]\w*)(?: resumed|\(\))")
_COUNTED: Final = re.compile(r"^ *\d+[.\d]* +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(?!total)([a-z_]\w*)$")  # strace -c
_SUMMED: Final = re.compile(r"^ +([a-z_]\w*) +(\d+) +\d+ +[\d.]+ +[\d.]+ ")  # perf trace -s
_IDLE: Final = re.compile(
    r"^\s*$|^ *(?:\[pid +\d+\] *)?=> \{|^[\[\]\w :./-]*(?:\+\+\+|---) |^% time|^[- ]+$|^ *100\.0|<unfinished \.\.\.>$"
    r"|strace: |^ +syscall |^ *\(.*\)$|total$| events, |^ Summary"
)

_ATTACHED: Final = re.compile(
    r"strace: Process \d+ attached$"
)  # also in the middle of a call, whose end comes after it


def from_trace(trace: str) -> Imported:
    """A draft that allows the calls that were seen: by `strace [-f] [-c]` or `perf trace [-s]`.

    Attack-shaped calls stay deaths, and clone is allowed for what was seen made with it; both are listed in `left_out`,
    with the lines that no format explains. UsageError for text without one call.
    """
    if len(trace) > LARGEST_TRACE:
        raise UsageError(f"a trace of {len(trace)} characters is longer than {LARGEST_TRACE}: not read")
    seen: Counter[str] = Counter()
    children = Children.NONE
    strange: list[str] = []
    before = ""
    for number, line in enumerate(trace.split("\n"), 1):
        found = _call(line)
        interrupted, before = _ATTACHED.search(before), line
        if found is None or not is_known(found[0]):
            if found is not None or not (_IDLE.search(line) or (interrupted and ") = " in line)):
                strange.append(f"line {number} is no system call: {line.strip()[:80]!r}")
            continue
        seen[found[0]] += found[1]
        if found[0] in ("clone", "clone3", "fork", "vfork"):
            children |= _children(line)
    if not seen:
        raise UsageError("no line shows a system call: this is neither strace's nor perf trace's output")
    return _draft(seen, children, strange)


def _children(line: str) -> Children:
    """What a clone made; a summary does not say."""
    if "(" not in line:
        return Children.THREADS | Children.PROCESSES
    return Children.THREADS if "CLONE_THREAD" in line else Children.PROCESSES


def _call(line: str) -> tuple[str, int] | None:
    made = _MADE.search(line) or _RESUMED.search(line)
    if made:
        return made[1], 1
    counted, summed = _COUNTED.search(line), _SUMMED.search(line)
    if counted:
        return counted[2], int(counted[1])
    return (summed[1], int(summed[2])) if summed else None


def _draft(seen: Counter[str], children: Children, strange: list[str]) -> Imported:
    left_out = [
        f"{name} was seen {seen[name]} times and stays a death: it is attack-shaped"
        for name in sorted(seen.keys() & ATTACK_SHAPED)
    ]
    if children:
        left_out.append(f"clone is allowed for {children.name}; its other flags, and clone3, are not")
    left_out += strange[:_MOST_SAID]
    if len(strange) > _MOST_SAID:
        left_out.append(f"and {len(strange) - _MOST_SAID} more lines that are no system calls")
    plain = sorted(seen.keys() - ATTACK_SHAPED - {"clone", "clone3", "fork", "vfork"})
    rules = [*attack_rules(), *clone_rules(children)]
    if plain:
        rules.append(allow(*plain, reason=f"seen in the trace, {sum(seen[name] for name in plain)} calls in all"))
    return Imported("trace", tuple(rules), REFUSED, NOT_IMPLEMENTED, tuple(left_out))
