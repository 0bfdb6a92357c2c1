"""Runs in: the process that makes a plan. In: minijail's policies (minijail0(5)).

    line      = name ":" action  |  "@default" action  |  "@frequency" path
    action    = "1" | "allow" | "kill" | "kill-process" | "kill-thread" | "trap" | "log" | "user-notify"
              | "return" errno  |  expression [";" "return" errno]
    expression = all {"||" all}         all = test {"&&" test}
    test      = "arg"0..5 ("==" | "!=" | "<" | "<=" | ">" | ">=" | "&" | "in") constant
    constant  = part {"|" part}         part = ["~"] (number | NAME | "(" constant ")")

`arg1 & 4` asks whether one of those bits is set, `arg1 in 7` whether no other bit is. What no line allows dies.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import termios
from collections.abc import Mapping
from types import ModuleType
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp._names import is_known
from bunri.seccomp.actions import Action
from bunri.seccomp.conditions import LARGEST, Arg, Condition
from bunri.seccomp.imported import Imported, imported_rules, looks_at_a_pointer
from bunri.seccomp.rules import Rule

LARGEST_POLICY: Final = 1 << 20  # characters
_DEEPEST: Final = 32  # parentheses in a constant

_ACTIONS: Final = {
    "1": Action.ALLOW,
    "allow": Action.ALLOW,
    "kill": Action.KILL,
    "kill-process": Action.KILL,
    "kill-thread": Action.KILL_THREAD,
    "log": Action.LOG,
    "trap": Action.TRAP,
    "user-notify": Action.NOTIFY,
}
_MODULES: Final[tuple[ModuleType, ...]] = (errno, os, socket, signal, termios)
# linux/sched.h, linux/prctl.h, linux/mman.h: what policies name and no module of Python's has.
_MORE: Final[Mapping[str, int]] = {
    "CLONE_VM": 0x100, "CLONE_FS": 0x200, "CLONE_FILES": 0x400, "CLONE_SIGHAND": 0x800, "CLONE_PIDFD": 0x1000,
    "CLONE_VFORK": 0x4000, "CLONE_THREAD": 0x10000, "CLONE_SYSVSEM": 0x40000, "CLONE_SETTLS": 0x80000,
    "CLONE_PARENT_SETTID": 0x100000, "CLONE_CHILD_CLEARTID": 0x200000, "CLONE_CHILD_SETTID": 0x1000000,
    "PR_SET_NAME": 15, "PR_GET_NAME": 16, "PR_SET_PDEATHSIG": 1, "PR_SET_DUMPABLE": 4, "PR_GET_DUMPABLE": 3,
    "PR_SET_NO_NEW_PRIVS": 38, "PR_SET_VMA": 0x53564D41, "PR_SET_PTRACER": 0x59616D61,
    "PROT_NONE": 0, "PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4, "MAP_SHARED": 1, "MAP_PRIVATE": 2, "MAP_FIXED": 16,
    "MAP_ANONYMOUS": 32, "MAP_STACK": 0x20000, "MAP_NORESERVE": 0x4000, "F_DUPFD": 0, "F_GETFD": 1, "F_SETFD": 2,
    "F_GETFL": 3, "F_SETFL": 4, "F_GETLK": 5, "F_SETLK": 6, "F_SETLKW": 7, "F_DUPFD_CLOEXEC": 1030, "FD_CLOEXEC": 1,
    "MADV_DONTNEED": 4, "MADV_FREE": 8, "MADV_DONTDUMP": 16,
    "FIONREAD": 0x541B, "TCGETS": 0x5401, "TIOCGWINSZ": 0x5413, "FUTEX_PRIVATE_FLAG": 128,
}  # fmt: skip
_TEST: Final = re.compile(r"^arg([0-5])\s*(==|!=|<=|>=|<|>|&|in\b)\s*(.+)$")
_TOKEN: Final = re.compile(r"\s*(0[xX][0-9a-fA-F]+|\d+|[A-Z_][A-Z0-9_]*|[|~()])")


def from_minijail(policy: str, *, constants: Mapping[str, int] | None = None) -> Imported:
    """The rules of a minijail policy. `constants` are names beside those of the C headers that Python knows.

    UsageError, with the line, for what is no policy, for a name without a number and for @include (put the other file's
    lines in its place).
    """
    if len(policy) > LARGEST_POLICY:
        raise UsageError(f"a policy of {len(policy)} characters is longer than {LARGEST_POLICY}: not read")
    reading = _Reading(constants or {})
    for number, line in enumerate(policy.replace("\\\n", " ").split("\n"), 1):
        text = line.partition("#")[0].strip()
        if text:
            reading.add(f"line {number}", text)
    return Imported("minijail", tuple(reading.rules), reading.default, reading.default, tuple(reading.left_out))


class _Reading:
    """One policy, line by line."""

    def __init__(self, constants: Mapping[str, int]) -> None:
        self.rules: list[Rule] = []
        self.left_out: list[str] = []
        self.default = Action.KILL
        self._constants = constants
        self._seen: dict[str, str] = {}

    def add(self, where: str, text: str) -> None:
        if text.startswith("@"):
            self._directive(where, text)
            return
        name, colon, action = (part.strip() for part in text.partition(":"))
        if not colon or not action:
            raise UsageError(f"{where}: a line is 'name: action', not {text!r}")
        if name in self._seen:
            raise UsageError(f"{where}: {name} is decided in {self._seen[name]} already")
        self._seen[name] = where
        if not is_known(name):
            self.left_out.append(f"{where}: no call of our architectures is named {name!r}")
            return
        self._decide(where, name, action.removeprefix("{").removesuffix("}").strip())

    def _directive(self, where: str, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "@default":
            self.default = self._plain(where, rest.strip())
        elif word == "@frequency":
            self.left_out.append(f"{where}: {text}: our programs search by halves, and need no frequencies")
        else:
            raise UsageError(f"{where}: {text!r} is not read; put the lines it stands for in its place")

    def _decide(self, where: str, name: str, action: str) -> None:
        if action in _ACTIONS or action.startswith("return"):
            self.rules += imported_rules([name], self._plain(where, action), None, where)
            return
        expression, semicolon, otherwise = (part.strip() for part in action.partition(";"))
        when = self._expression(where, expression)
        if looks_at_a_pointer(name, when):
            self.left_out.append(
                f"{where} compares a pointer of {name} ({when!r}), which decides nothing; it is refused"
            )
        elif when is None:
            self.rules += imported_rules([name], Action.ALLOW, None, where)
        elif when is not _NEVER:
            self.rules += imported_rules([name], Action.ALLOW, when, where)
        if semicolon and otherwise:
            self.rules += imported_rules([name], self._plain(where, otherwise), None, f"{where}, otherwise")

    def _plain(self, where: str, action: str) -> Action:
        verb, _, number = action.partition(" ")
        if verb == "return" and number.strip():
            value = self._number(where, number.strip())
            if value <= 4095:
                return Action.errno(value)
        elif action in _ACTIONS:
            return _ACTIONS[action]
        raise UsageError(f"{where}: {action!r} is none of {', '.join(_ACTIONS)}, 'return errno' or a test of arguments")

    def _expression(self, where: str, text: str) -> Condition | None:
        """None: it always holds."""
        whole: Condition = _NEVER
        for alternative in text.split("||"):
            some: Condition | None = None
            for test in alternative.split("&&"):
                some = _and(some, self._test(where, test.strip()))
            if some is None:
                return None
            if some is not _NEVER:
                whole = some if whole is _NEVER else whole | some
        if whole is _NEVER:
            self.left_out.append(f"{where}: {text!r} never holds")
        return whole

    def _test(self, where: str, text: str) -> Condition | None:
        match = _TEST.match(text)
        if match is None:
            raise UsageError(f"{where}: {text!r} is no test like 'arg1 == 2'")
        arg, relation, value = Arg(int(match[1])), match[2], self._number(where, match[3])
        try:
            return _compare(arg, relation, value)
        except UsageError as fault:
            if "always holds" in str(fault):
                return None
            if "never hold" in str(fault):
                return _NEVER
            raise UsageError(f"{where}: {fault}") from None

    def _number(self, where: str, text: str) -> int:
        tokens: list[str] = []
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                raise UsageError(f"{where}: {text!r} is no constant")
            tokens.append(token[1])
            at = token.end()
        value = self._or(where, text, tokens, 0)
        if tokens or not 0 <= value <= LARGEST:
            raise UsageError(f"{where}: {text!r} is no unsigned 64-bit constant")
        return value

    def _or(self, where: str, text: str, tokens: list[str], depth: int) -> int:
        value = self._part(where, text, tokens, depth)
        while tokens and tokens[0] == "|":
            tokens.pop(0)
            value |= self._part(where, text, tokens, depth)
        return value

    def _part(self, where: str, text: str, tokens: list[str], depth: int) -> int:
        if not tokens or depth > _DEEPEST:
            raise UsageError(f"{where}: {text!r} is no constant")
        token = tokens.pop(0)
        if token == "~":
            return ~self._part(where, text, tokens, depth + 1) & LARGEST
        if token == "(":
            value = self._or(where, text, tokens, depth + 1)
            if not tokens or tokens.pop(0) != ")":
                raise UsageError(f"{where}: {text!r} lacks a ')'")
            return value
        if token[0].isdigit():
            if len(token) > 22:
                raise UsageError(f"{where}: {token} has more than 64 bits")
            return (
                int(token, 0)
                if token[:2] in ("0x", "0X")
                else int(token, 8 if token[0] == "0" and _octal(token) else 10)
            )
        return self._named(where, token)

    def _named(self, where: str, name: str) -> int:
        if name in self._constants:
            return self._constants[name]
        if name in _MORE:
            return _MORE[name]
        for module in _MODULES:
            value = getattr(module, name, None)
            if isinstance(value, int):
                return int(value) & LARGEST
        raise UsageError(
            f"{where}: no number is known for {name!r}; pass it as from_minijail(..., constants={{{name!r}: ...}})"
        )


def _octal(token: str) -> bool:
    return all(digit in "01234567" for digit in token)


# Stands for a test that no argument passes; never part of a rule.
_NEVER: Final[Condition] = Arg(0) == LARGEST


def _and(one: Condition | None, other: Condition | None) -> Condition | None:
    if one is _NEVER or other is _NEVER:
        return _NEVER
    if one is None or other is None:
        return other if one is None else one
    try:
        return one & other
    except UsageError:  # they exclude each other
        return _NEVER


def _compare(arg: Arg, relation: str, value: int) -> Condition | None:
    match relation:
        case "==":
            return arg == value
        case "!=":
            return arg != value
        case "<":
            return arg < value
        case "<=":
            return arg <= value
        case ">":
            return arg > value
        case ">=":
            return arg >= value
        case "&":
            return arg.masked(value) != 0 if value else _NEVER
        case _:
            return arg.masked(~value & LARGEST) == 0 if value != LARGEST else None
