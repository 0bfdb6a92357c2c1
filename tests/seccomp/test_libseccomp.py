"""Runs in: the test process. Differential: libseccomp compiles the same rules, our machine runs both programs.

libseccomp knows no order of rules, so every policy here has one action beside its default, and for one call its rules
are alternatives. It is used through ctypes, in tests only, where libseccomp.so.2 is on the machine.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from answered import ALLOWED, MAGIC, decisions
from filtered_child import CHILD_NEEDS, MACHINE
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from libseccomp_peer import MASKED, Comparison, compiled, number_of
from random_policies import LARGEST, examples, words

from bunri.errors import UsageError
from bunri.seccomp import (
    ATTACK_SHAPED,
    Action,
    Arg,
    Condition,
    Program,
    Rule,
    allow,
    arches,
    compile,
    deny,
    group,
    syscalls_of,
)

EPERM = Action.errno(errno.EPERM)
NAMES = ("close", "lseek", "dup", "dup3", "socket", "fcntl", "kill", "umask", "flock", "sync_file_range", "getpriority")


@dataclass(frozen=True)
class Test:
    """One comparison, in both vocabularies."""

    __test__ = False

    arg: int
    op: int
    a: int
    b: int

    def ours(self) -> Condition:
        arg = Arg(self.arg)
        match self.op:
            case 1:
                return arg != self.a
            case 2:
                return arg < self.a
            case 3:
                return arg <= self.a
            case 4:
                return arg == self.a
            case 5:
                return arg >= self.a
            case 6:
                return arg > self.a
            case _:
                return arg.masked(self.a) == self.b

    def theirs(self) -> Comparison:
        return Comparison(self.arg, self.op, self.a, self.b)


@dataclass(frozen=True)
class Alternative:
    """One rule: a call, and tests of different arguments that must all hold."""

    name: str
    tests: tuple[Test, ...]

    def ours(self, action: Action) -> Rule:
        when: Condition | None = None
        for test in self.tests:
            when = test.ours() if when is None else when & test.ours()
        if action == Action.ALLOW:
            return allow(self.name, when=when, reason="both")
        return deny(self.name, with_=action, when=when, reason="both")


def exported(arch: str, rules: Sequence[Alternative], action: Action, default: Action) -> Program:
    """libseccomp's program for the same rules."""
    return compiled(arch, [(rule.name, action, [test.theirs() for test in rule.tests]) for rule in rules], default)


@st.composite
def alternatives(draw: st.DrawFn) -> Alternative:
    tests = []
    for arg in draw(st.lists(st.integers(0, 5), max_size=3, unique=True)):
        op, a, b = draw(st.integers(1, 7)), draw(words), draw(words)
        tests.append(Test(arg, op, a or 1, b & a) if op == MASKED else Test(arg, op, a, 0))
    return Alternative(draw(st.sampled_from(NAMES)), tuple(tests))


# None where one of the two does not take the rules.
def both(arch: str, rules: list[Alternative], action: Action, default: Action) -> tuple[Program, Program] | None:
    try:
        ours = compile([rule.ours(action) for rule in rules], arch=arch, default=default, unknown=default)
        return ours, exported(arch, rules, action, default)
    except UsageError:
        return None


def bounds_of(rules: list[Alternative]) -> list[int]:
    """Arguments on which the rules turn, and their neighbours."""
    bounds = {0, LARGEST}
    for rule in rules:
        for test in rule.tests:
            bounds |= {(test.a + near) % (1 << 64) for near in (-1, 0, 1, 1 << 32)} | {test.b}
    return sorted(bounds)


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(alternatives(), min_size=1, max_size=5), st.sampled_from(arches()), st.booleans(), st.data())
def test_libseccomps_program_decides_as_ours(
    rules: list[Alternative], arch: str, allow_list: bool, data: st.DataObject
) -> None:
    action, default = (Action.ALLOW, EPERM) if allow_list else (EPERM, Action.ALLOW)
    programs = both(arch, rules, action, default)
    assume(programs is not None)
    assert programs
    ours, theirs = programs
    some = st.sampled_from(bounds_of(rules))
    for name in NAMES:
        for _ in range(4):
            args = tuple(data.draw(some) for _ in range(6))
            assert ours.decide(arch, name, args) == theirs.decide(arch, name, args), (name, args)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(alternatives(), min_size=1, max_size=5), st.booleans(), st.data())
def test_installed_both_decide_alike_and_as_simulated(
    rules: list[Alternative], allow_list: bool, data: st.DataObject
) -> None:
    """Nothing is taken from a simulation: each program is in the kernel of a child of its own, and is asked there."""
    if MACHINE not in arches():
        pytest.skip(f"no system call table for {MACHINE}")
    action, default = (Action.ALLOW, EPERM) if allow_list else (EPERM, Action.ALLOW)
    programs = both(MACHINE, [*rules, *(Alternative(name, ()) for name in CHILD_NEEDS if allow_list)], action, default)
    assume(programs is not None)
    assert programs
    ours, theirs = programs
    some = st.tuples(*[st.sampled_from(bounds_of(rules))] * 5)
    calls = [(name, data.draw(some)) for name in NAMES for _ in range(4)]
    asked = [(syscalls_of(MACHINE)[name], args) for name, args in calls]
    got, other = decisions(ours.to_bytes(), asked), decisions(theirs.to_bytes(), asked)
    for call, mine, his in zip(calls, got, other, strict=True):
        simulated = ours.decide(MACHINE, call[0], (*call[1], MAGIC))
        assert mine == his == (ALLOWED if simulated == Action.ALLOW else simulated.data), call


@pytest.mark.parametrize("name", ["stdio", "@file-system", "@system-service"])
@pytest.mark.parametrize("arch", arches())
def test_our_program_for_a_group_decides_as_libseccomps_and_is_no_longer(arch: str, name: str) -> None:
    calls = set(group(name)) & set(syscalls_of(arch)) - ATTACK_SHAPED - {"clone", "clone3"}
    rules = [Alternative(call, ()) for call in sorted(calls) if theirs_knows(call)]
    programs = both(arch, rules, Action.ALLOW, EPERM)
    assert programs
    ours, theirs = programs
    for call in syscalls_of(arch):
        assert ours.decide(arch, call) == theirs.decide(arch, call), call
    assert len(ours) <= len(theirs)


def theirs_knows(name: str) -> bool:
    return number_of(name) >= 0
