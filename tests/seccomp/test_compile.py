"""Runs in: the test process. Compiled programs: they mean what the rules say, check first what must be, stay small."""

from __future__ import annotations

import errno
import time
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_policies import Stated, meaning, policies, telling

from bunri.errors import UsageError
from bunri.seccomp import (
    AUDIT_ARCH,
    X32_BIT,
    Action,
    Arg,
    Children,
    Instruction,
    Program,
    Rule,
    allow,
    arches,
    attack_rules,
    clone_rules,
    compile,
    deny,
    group,
    name_of,
    syscalls_of,
)

EPERM, ENOSYS = Action.errno(errno.EPERM), Action.errno(errno.ENOSYS)
# Calls without pointers, spread over both tables.
NAMES = (
    "close", "lseek", "dup", "dup3", "socket", "shutdown", "fcntl", "fchmod", "ftruncate", "kill", "setpgid", "umask",
    "flock", "getpriority", "sync_file_range", "fadvise64", "pidfd_open", "close_range", "mseal",
)  # fmt: skip


def compiled(stated: list[Stated], arch: str, default: Action = EPERM) -> Program:
    try:
        return compile([one.rule for one in stated], arch=arch, default=default)
    except UsageError:
        assume(False)
        raise


@settings(max_examples=50)
@given(policies(NAMES[:4]), st.integers(0, 1 << 32).map(Random))
def test_the_instructions_do_what_the_rules_say_on_both_architectures(stated: list[Stated], random: Random) -> None:
    numbers = telling(stated)
    for arch in arches():
        program = compiled(stated, arch)
        for name in NAMES[:5]:
            for _ in range(12):
                args = tuple(random.choice(numbers) for _ in range(6))
                wanted = meaning(stated, name, args, EPERM)
                assert program.decide(arch, name, args) == wanted, (name, args)
            assert str(wanted) in program.explain(name, args).splitlines()[0]


@settings(max_examples=50)
@given(policies(NAMES[:1], args=(2,)), st.integers(0, 1 << 32).map(Random))
def test_every_number_on_which_one_argument_turns_is_decided_right(stated: list[Stated], random: Random) -> None:
    program = compiled(stated, "x86_64")
    for number in [*telling(stated), *(random.getrandbits(64) for _ in range(10))]:
        args = (7, 7, number)
        assert program.decide("x86_64", NAMES[0], args) == meaning(stated, NAMES[0], args, EPERM), number


@pytest.mark.parametrize("space", [0, 1])
def test_every_distance_around_the_reach_of_a_jump_is_bridged(space: int) -> None:
    """Checks of two lengths (with and without a high half) in front of a shared ending, so that all distances occur."""
    for checks in range(20, 90):
        half = Arg(1).int32 if space else Arg(1)
        conditions = [(half == 1000 + number) & (Arg(2) == number) for number in range(checks)]
        when = conditions[0]
        for condition in conditions[1:]:
            when = when | condition
        program = compile([deny("lseek", when=when, reason="long")], default=Action.ALLOW)
        assert program.decide("x86_64", "lseek", (0, 1000, 0)) == EPERM
        assert program.decide("x86_64", "lseek", (0, 999 + checks, checks - 1)) == EPERM
        assert program.decide("x86_64", "lseek", (0, 1000, 1)) == Action.ALLOW
        assert program.decide("i386", 3) == Action.KILL
        assert Program.from_bytes(program.to_bytes()) == program


@pytest.mark.parametrize("arch", arches())
def test_another_architecture_dies_whatever_is_allowed(arch: str) -> None:
    program = compile([allow("@stdio", reason="r")], arch=arch, default=Action.ALLOW, unknown=Action.ALLOW)
    for other in AUDIT_ARCH:
        for number in (0, 3, 60, 0xFFFFFFFF):
            decided = program.decide(other, number)
            if other != arch:
                assert decided == Action.KILL
    assert program.instructions[0] == Instruction(0x20, 0, 0, 4)  # load arch: nothing comes before it


def test_x32_numbers_die_whatever_is_allowed() -> None:
    program = compile([allow("@stdio", reason="r")], default=Action.ALLOW, unknown=Action.ALLOW)
    for number in (X32_BIT, X32_BIT + 1, X32_BIT + 512, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert program.decide("x86_64", number) == Action.KILL
    assert program.decide("x86_64", X32_BIT - 1) == Action.ALLOW
    assert "x32" in program.explain(X32_BIT + 1)


@pytest.mark.parametrize("arch", arches())
def test_every_number_gets_its_rules_the_default_or_the_answer_for_unknown_ones(arch: str) -> None:
    allowed = set(group("stdio"))
    program = compile([allow("@stdio", reason="r")], arch=arch)
    numbers = {number: name for name, number in syscalls_of(arch).items()}
    for number in (*range(1024), 5000, X32_BIT - 1):
        name = numbers.get(number)
        wanted = ENOSYS if name is None else Action.ALLOW if name in allowed else EPERM
        assert program.decide(arch, number) == wanted, (number, name)


@pytest.mark.parametrize("arch", arches())
def test_calls_without_conditions_stay_on_the_kernels_table_of_allowed_calls(arch: str) -> None:
    """As kernel/seccomp.c, seccomp_is_const_allow: only loads of nr and arch, jumps and `and` may lie on the way."""
    program = compile(
        [*attack_rules(), deny("lseek", "fcntl", when=Arg(1) > 5, reason="r"), allow("@stdio", reason="r")], arch=arch
    )
    for name in sorted(set(group("stdio")) & set(syscalls_of(arch)) - {"lseek", "fcntl"}):
        assert constant_answer(program, arch, name) == Action.ALLOW, name
    assert constant_answer(program, arch, "lseek") is None


def constant_answer(program: Program, arch: str, name: str) -> Action | None:
    index = accumulator = 0
    while True:
        code, jt, jf, k = program.instructions[index]
        index += 1
        match code:
            case 0x20 if k == 0:
                accumulator = syscalls_of(arch)[name]
            case 0x20 if k == 4:
                accumulator = AUDIT_ARCH[arch]
            case 0x06:
                return Action.from_value(k)
            case 0x05:
                index += k
            case 0x15 | 0x25 | 0x35 | 0x45:
                tests = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}
                index += jt if tests.get(code, bool(accumulator & k)) else jf
            case _:
                return None


def scattered(per_call: int) -> list[Rule]:
    """Rules for every call that takes numbers, each with numbers of its own, so that nothing can be shared."""
    calls = [name for name in syscalls_of("x86_64") if not name.startswith("clone")]
    rules = []
    for index, name in enumerate(calls):
        values = [index * 1000 + 7 * step for step in range(per_call)]
        try:
            rules.append(deny(name, with_=Action.errno(index % 130 + 1), when=Arg(5).one_of(*values), reason="far"))
        except UsageError:
            continue  # a pointer
    return rules


@pytest.mark.parametrize("arch", arches())
def test_jumps_that_are_too_long_for_one_instruction_still_arrive(arch: str) -> None:
    rules = scattered(2)
    program = compile(rules, arch=arch, default=Action.ALLOW)
    assert len(program) > 1000
    for rule in rules:
        name = rule.names[0]
        if name in syscalls_of(arch):
            first = next(iter(rule.when.atoms())).ranges[0][0]  # type: ignore[union-attr]  # one_of makes a Compare
            assert program.decide(arch, name, (0, 0, 0, 0, 0, first)) == rule.action
            assert program.decide(arch, name, (0, 0, 0, 0, 0, first + 1)) == Action.ALLOW
    assert Program.from_bytes(program.to_bytes()) == program


def test_a_program_that_the_kernel_would_not_take_is_refused_with_the_figure() -> None:
    with pytest.raises(UsageError, match=r"has \d{4,5} instructions and the kernel takes at most 4096"):
        compile(scattered(16))


def test_common_endings_are_shared() -> None:
    """Ten calls with the same condition have one check between them, and each return stands once in a short program."""
    names = NAMES[:10]
    one = compile([allow(names[0], when=Arg(1) == 5, reason="r")])
    ten = compile([allow(*names, when=Arg(1) == 5, reason="r")])

    def loads(program: Program) -> int:
        return sum(instruction.code == 0x20 for instruction in program.instructions)

    assert loads(one) == loads(ten)
    returns = [instruction.k for instruction in ten.instructions if instruction.code == 0x06]
    assert len(returns) == len(set(returns))


def large_policy(salt: str) -> list[Rule]:
    """About a hundred rules, as a worker's policy may have them."""
    rules = [*attack_rules(), *clone_rules(Children.THREADS)]
    rules += [deny(name, when=Arg(1).int32.one_of(8, 10, index), reason=salt) for index, name in enumerate(NAMES)]
    rules += [allow(name, reason=salt) for name in group("stdio")[:60]]
    return [*rules, allow("@stdio", "@rpath", reason=salt)]


def test_compiling_a_hundred_rules_takes_no_longer_than_a_few_milliseconds_and_is_remembered() -> None:
    policies_ = [large_policy(str(turn)) for turn in range(5)]
    taken = []
    for rules in policies_:
        start = time.process_time()
        compile(rules)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.02  # 1 ms where this was written; ten times that is another algorithm
    assert compile(large_policy("0")) is compile(policies_[0])


def test_the_tables_know_what_the_kernels_headers_say() -> None:
    """A few numbers that never change, from asm/unistd_64.h and asm-generic/unistd.h."""
    for name, on_x86_64, on_aarch64 in (
        ("read", 0, 63), ("openat", 257, 56), ("clone", 56, 220), ("execve", 59, 221), ("seccomp", 317, 277),
        ("io_uring_setup", 425, 425), ("clone3", 435, 435), ("landlock_restrict_self", 446, 446), ("mseal", 462, 462),
    ):  # fmt: skip
        assert (syscalls_of("x86_64")[name], syscalls_of("aarch64")[name]) == (on_x86_64, on_aarch64)
    for arch in arches():
        numbers = list(syscalls_of(arch).values())
        assert len(numbers) == len(set(numbers)) > 300
        assert all(name_of(arch, number) == name for name, number in syscalls_of(arch).items())
    assert {"open", "stat", "fork"}.isdisjoint(syscalls_of("aarch64"))


def test_programs_are_values() -> None:
    rules = [allow("read", "write", reason="r"), deny("lseek", when=Arg(2) > 4, reason="s")]
    program = compile(rules)
    again = Program.from_bytes(program.to_bytes())
    assert again == program
    assert hash(again) == hash(program)
    assert again.arch == "x86_64"
    assert again.source is None
    assert program != compile(rules, arch="aarch64")
    assert len(program.to_bytes()) == 8 * len(program)
    assert repr(program) == f"<Program for x86_64: {len(program)} instructions from 2 rules>"
    assert Program.from_bytes(compile(rules, arch="aarch64").to_bytes()).arch == "aarch64"


def test_explain_names_the_deciding_rule_with_its_reason_and_those_passed_by() -> None:
    program = compile(
        [deny("lseek", when=Arg(2) > 4, reason="no such whence"), allow("lseek", "read", reason="reading files")]
    )
    assert program.explain("lseek", (3, -1, 9)).splitlines() == [
        "lseek(3, -1, 9): errno EPERM",
        "  decided by rule 1: deny('lseek', when=Arg(2) > 4, with_=Action.errno(EPERM))",
        "  because: no such whence",
    ]
    assert program.explain("lseek", (3, 0, 0)).splitlines() == [
        "lseek(3, 0, 0): allow",
        "  passed by rule 1, whose condition does not hold: deny('lseek', when=Arg(2) > 4, with_=Action.errno(EPERM))",
        "  decided by rule 2: allow('lseek', 'read')",
        "  because: reading files",
    ]
    assert "default" in program.explain("openat")
    assert "newer than the table" in program.explain(5000)
    assert "a hole in the table" in program.explain(400)
    assert "no such whence" in program.explain()
    assert "reading files" in program.explain()
    read_back = Program.from_bytes(program.to_bytes())
    assert "decided by instruction" in read_back.explain("lseek")
    assert "without rules" in read_back.explain()


def test_the_listing_shows_names_labels_and_offsets() -> None:
    program = compile([allow("lseek", when=(Arg(1).masked(6) == 2) & (Arg(2) < 5), reason="r")])
    text = program.listing()
    for part in (
        "if arch == 0xc000003e (x86_64)",
        "if nr >= 0x40000000",
        "(lseek)",
        "load args[1].low",
        "A &= 0x6",
        "(args[1].low & 0x6) == 2",
        "load args[2].high",
        "return errno EPERM",
        "return kill",
        "; lseek",
    ):
        assert part in text, part
    assert text == Program.from_bytes(program.to_bytes()).listing()
    assert len([line for line in text.splitlines() if line.startswith("  ")]) == len(program)


def test_calls_are_asked_about_in_sensible_ways_only() -> None:
    program = compile([allow("read", reason="r")])
    for call, args, says in (
        ("raed", (), "did you mean 'read'"),
        ("read", (0,) * 7, "six arguments"),
        ("read", (1 << 64,), "64 bits"),
        (-1, (), "32 bits"),
    ):
        with pytest.raises(UsageError, match=says):
            program.decide("x86_64", call, args)
    with pytest.raises(UsageError, match="unknown architecture"):
        program.decide("vax", 1)
