"""Runs in: the test process. Rules, names, groups: what is taken, and what the errors say."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from bunri.errors import UsageError
from bunri.seccomp import (
    ATTACK_REASONS,
    ATTACK_SHAPED,
    Action,
    Arg,
    Children,
    Rule,
    allow,
    arches,
    attack_rules,
    clone_rules,
    compile,
    dangerous_allow,
    deny,
    group,
    groups,
    is_known,
    kill,
    log,
    notify,
    syscalls_of,
)


def test_a_misspelt_name_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'openat'"):
        allow("opennat", reason="r")
    with pytest.raises(UsageError, match="the kernel's name for it is 'rt_sigaction'"):
        allow("sigaction", reason="r")
    with pytest.raises(UsageError, match="did you mean '@system-service'"):
        group("@system-services")
    with pytest.raises(UsageError, match="did you mean 'rpath'"):
        group("rpaths")
    with pytest.raises(UsageError, match=r"riscv64.*x86_64, aarch64"):
        compile([], arch="riscv64")


def test_a_rule_has_a_reason_and_names_something() -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        allow("read", reason=" ")
    with pytest.raises(UsageError, match="needs a reason"):
        allow("read", reason="two\nlines")
    with pytest.raises(UsageError, match="names no system call"):
        deny(reason="r")


def test_a_deny_that_would_not_refuse_is_an_error() -> None:
    for action in (Action.ALLOW, Action.LOG, Action.NOTIFY):
        with pytest.raises(UsageError, match="would not refuse"):
            deny("read", with_=action, reason="r")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (
            lambda: allow("openat", when=Arg(1) == 0x7F00, reason="r"),
            r"argument 1 of openat points to a path.*fs\.read",
        ),
        (lambda: allow("connect", when=Arg(1).masked(0xFF) == 2, reason="r"), r"a socket address.*net\.connect"),
        (lambda: deny("execve", when=Arg(0) > 5, reason="r"), "argument 0 of execve"),
        (lambda: allow("stat", "read", when=Arg(0) == 3, reason="r"), "argument 0 of stat"),
        (lambda: kill("clone3", when=(Arg(1) == 1) & (Arg(0) == 1), reason="r"), "a structure that holds the flags"),
    ],
)
def test_pointers_cannot_be_compared(write: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        write()


def test_a_pointer_can_be_compared_with_null() -> None:
    program = compile([allow("sendto", when=(Arg(4) == 0) & (Arg(5) == 0), reason="no address")])
    assert program.decide("x86_64", "sendto", (3, 4096, 10)) == Action.ALLOW
    assert program.decide("x86_64", "sendto", (3, 4096, 10, 0, 0x1_0000_0000)) == Action.errno(errno.EPERM)
    allow("sendto", when=Arg(4) != 0, reason="r")


@pytest.mark.parametrize(
    "rules",
    [
        [allow("openat", reason="broad"), deny("openat", when=Arg(2).masked(3) != 0, reason="narrow")],
        [allow("@stdio", reason="broad"), deny("mmap", reason="narrow")],
        [allow("read", "write", reason="broad"), kill("write", "close", reason="narrow")],
        [deny("read", reason="one"), deny("read", with_=Action.errno(errno.EACCES), reason="other")],
        [
            allow("lseek", when=Arg(2) < 5, reason="broad"),
            kill("lseek", when=(Arg(2) == 3) & (Arg(1) == 0), reason="narrow"),
        ],
    ],
)
def test_a_rule_that_can_never_decide_is_an_error_that_shows_both(rules: list[object]) -> None:
    with pytest.raises(UsageError) as caught:
        compile(rules)  # type: ignore[arg-type]  # the table holds rules
    for rule in rules:
        assert str(rule) in str(caught.value)


def test_exceptions_stand_before_the_group() -> None:
    program = compile(
        [
            deny("read", reason="the exception"),
            allow("lseek", when=Arg(2) == 0, reason="narrow"),
            deny("lseek", reason="the rest"),
            allow("@basic-io", reason="the group"),
        ]
    )
    assert program.decide("x86_64", "read") == Action.errno(errno.EPERM)
    assert program.decide("x86_64", "lseek", (0, 0, 1)) == Action.errno(errno.EPERM)
    assert program.decide("x86_64", "write") == Action.ALLOW


NO_CODE = Arg(2).masked(4) == 0


@pytest.mark.parametrize(
    "rules",
    [
        [allow("mmap", when=NO_CODE, reason="narrow"), allow("@stdio", reason="broad")],
        [allow("@stdio", reason="broad"), allow("mmap", when=NO_CODE, reason="narrow")],
        [allow("mmap", when=NO_CODE & (Arg(3) == 34), reason="narrow"), allow("mmap", when=NO_CODE, reason="broad")],
        [log("lseek", when=Arg(2) < 3, reason="narrow"), log("lseek", reason="broad")],
        [
            allow("lseek", when=Arg(2) == 1, reason="narrow"),
            allow("lseek", when=Arg(2).between(0, 2), reason="broad"),
        ],
    ],
)
def test_a_condition_that_a_broader_rule_makes_meaningless_is_an_error_that_shows_both(rules: list[Rule]) -> None:
    """Whoever wrote it believes that the call is bound by it."""
    with pytest.raises(UsageError, match="does not narrow") as caught:
        compile(rules)
    for rule in rules:
        assert str(rule) in str(caught.value)


def test_the_narrowing_that_the_error_proposes_holds() -> None:
    program = compile([deny("mmap", when=Arg(2).masked(4) != 0, reason="no code"), allow("@stdio", reason="broad")])
    assert program.decide("x86_64", "mmap", (0, 1, 3)) == Action.ALLOW
    assert program.decide("x86_64", "mmap", (0, 1, 5)) == Action.errno(errno.EPERM)


def test_the_same_answer_twice_is_no_error() -> None:
    compile([allow("read", reason="one"), allow("read", reason="other"), allow("@stdio", reason="g")])
    compile([allow("lseek", when=Arg(2) < 3, reason="x"), deny("lseek", reason="y"), allow("@stdio", reason="g")])
    compile([deny("socket", when=Arg(0) == 2, reason="this is why"), deny("socket", reason="and the rest")])


def test_attack_shaped_calls_need_a_dangerous_word() -> None:
    for name in ATTACK_SHAPED:
        for verb in (allow, log):
            with pytest.raises(UsageError, match="dangerous_allow"):
                verb(name, reason="r")
        assert compile([dangerous_allow(name, reason="r")]).source is not None
    notify("ptrace", reason="a supervisor may look")


def test_broad_groups_do_not_bring_attack_shaped_calls_in() -> None:
    broad = compile([*clone_rules(Children.NONE), allow(*(name for name in groups() if name[0] == "@"), reason="all")])
    for arch in ("x86_64",):
        for name in ATTACK_SHAPED & set(syscalls_of(arch)):
            assert broad.decide(arch, name) == Action.errno(errno.EPERM), name


@pytest.mark.parametrize("arch", arches())
def test_attack_rules_kill_every_attack_shaped_call(arch: str) -> None:
    program = compile(attack_rules(but=["bpf"]), arch=arch)
    for name in ATTACK_SHAPED & set(syscalls_of(arch)):
        assert program.decide(arch, name) == (Action.errno(errno.EPERM) if name == "bpf" else Action.KILL)
    with pytest.raises(UsageError, match="did you mean 'ptrace'"):
        attack_rules(but=["ptraces"])


def test_attack_shaped_names_are_real_and_have_reasons() -> None:
    assert all(is_known(name) for name in ATTACK_SHAPED)
    assert all(ATTACK_REASONS[name] for name in ATTACK_SHAPED)
    assert not {"read", "clone", "execve", "pidfd_open"} & ATTACK_SHAPED


def test_groups_hold_known_calls_and_the_words_hold_no_attack_shaped_ones() -> None:
    for name in groups():
        assert group(name), name
        assert all(is_known(call) for call in group(name)), name
        if not name.startswith("@"):
            assert not ATTACK_SHAPED & set(group(name)), name
            assert group("@" + name) == group(name)
    assert set(group("@system-service")) >= {*group("@default"), *group("@file-system"), *group("@timer"), "ioctl"}
    assert {"open", "openat", "sendmsg", "ioctl", "execve", "clone", "kill"}.isdisjoint(group("stdio"))
    assert {"sendmsg", "recvmsg"} <= {*group("sendfd"), *group("recvfd")}


@pytest.mark.parametrize("arch", arches())
def test_a_name_that_one_architecture_lacks_is_passed_over_there(arch: str) -> None:
    program = compile([allow("open", "openat", reason="files")], arch=arch)
    assert program.decide(arch, "openat") == Action.ALLOW
    if "open" in syscalls_of(arch):
        assert program.decide(arch, "open") == Action.ALLOW
    else:
        assert "not on aarch64: open" in program.explain()
        with pytest.raises(UsageError, match="aarch64 has no system call 'open'; did you mean"):
            program.decide(arch, "open")


SIGCHLD, THREAD, VFORK, NEWUSER, NEWNET, PARENT, UNTRACED = (
    17, 0x3D0F00, 0x4111, 0x10000000, 0x40000000, 0x8000, 0x800000,
)  # fmt: skip
EPERM, KILL, ALLOW = Action.errno(errno.EPERM), Action.KILL, Action.ALLOW


@pytest.mark.parametrize(
    ("children", "thread", "fork", "vfork"),
    [
        (Children.NONE, EPERM, EPERM, EPERM),
        (Children.THREADS, ALLOW, EPERM, EPERM),
        (Children.PROCESSES, EPERM, ALLOW, ALLOW),
        (Children.THREADS | Children.PROCESSES, ALLOW, ALLOW, ALLOW),
    ],
)
def test_clone_makes_only_what_is_granted(children: Children, thread: Action, fork: Action, vfork: Action) -> None:
    program = compile(clone_rules(children))
    decided = [program.decide("x86_64", "clone", (flags,)) for flags in (THREAD, SIGCHLD, VFORK)]
    assert decided == [thread, fork, vfork]
    assert program.decide("x86_64", "clone3") == Action.errno(errno.ENOSYS)
    assert program.decide("x86_64", "fork") == fork
    for flag in (NEWUSER, NEWNET, PARENT, UNTRACED):
        for base in (0, THREAD, SIGCHLD, 0xDEAD_0000_0000_0000):
            assert program.decide("x86_64", "clone", (flag | base,)) == KILL


@pytest.mark.parametrize(
    "rule",
    [
        allow("clone", reason="r"),
        allow("clone3", reason="r"),
        allow("@thread", reason="r"),
        allow("@process", reason="r"),
        allow("clone", when=Arg(0).masked(0x10000) != 0, reason="threads, it was thought"),
    ],
    ids=str,
)
def test_a_filter_in_which_clone_makes_namespaces_does_not_compile(rule: object) -> None:
    with pytest.raises(UsageError, match="clone_rules"):
        compile([rule])  # type: ignore[list-item]  # the table holds rules
    compile([*clone_rules(Children.NONE), allow("@process", "@thread", reason="r")])
    compile([dangerous_allow("clone", "clone3", reason="r")])


def test_actions_are_values() -> None:
    assert Action.errno(1) == Action.errno(errno.EPERM)
    assert repr(Action.errno(errno.ENOSYS)) == "Action.errno(ENOSYS)"
    assert repr(Action.KILL) == "Action.KILL"
    assert Action.KILL.value == 0x80000000
    assert Action.errno(38).value == 0x50026
    assert Action.from_value(0x12340000) == Action.KILL  # as the kernel takes what it does not know
    assert Action.from_value(0x5FFFF) == Action.errno(4095)
    for action in (Action.ALLOW, Action.KILL, Action.KILL_THREAD, Action.TRAP, Action.LOG, Action.NOTIFY):
        assert Action.from_value(action.value) == action
    with pytest.raises(UsageError, match="0 to 4095"):
        Action.errno(4096)
