"""Runs in: the test process, and confined workers. Table tests of filters: what they say, and that they can fail."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import unseen

import bunri
from bunri import testing
from bunri.plan import hosts
from bunri.seccomp import Action, Arg, Program, allow, compile, deny, group, syscalls_of

ALLOW, KILL = Action.ALLOW, Action.KILL
EPERM, ENOSYS, ENOMEM = Action.errno(errno.EPERM), Action.errno(errno.ENOSYS), Action.errno(errno.ENOMEM)
WRITE, CODE = 3, 5  # PROT_READ with PROT_WRITE, with PROT_EXEC


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A host that is not here, as `bunri doctor --json` prints it there."""
    file = tmp_path / "server.json"
    file.write_text(hosts.LINUX_6_1.to_json())
    return file


def test_a_table_of_a_compartment_holds(server: Path) -> None:
    table = [
        ("read", (0,), ALLOW),
        ("mmap", (0, 4096, WRITE), ALLOW),
        ("mmap", (0, 4096, CODE), EPERM),
        ("socket", (1, 1, 0), EPERM),
        ("ptrace", (), KILL),
        (9999, (), ENOSYS),
    ]
    for arch in ("x86_64", "aarch64"):
        testing.check_filter(unseen.Everything, table, arch=arch, host=server)


def test_what_the_signature_needs_is_in_the_filter() -> None:
    testing.check_filter(unseen.Loop, [("epoll_create1", (), ALLOW)])
    testing.check_filter(bunri.Policy(), [("epoll_create1", (), EPERM)])


def test_a_wrong_row_is_shown_with_the_rule_that_decides_it() -> None:
    program = compile(
        [deny("dup", when=Arg(0) > 7, reason="the higher ones are not ours"), allow("dup", reason="ours")]
    )
    right = ("dup", (7,), ALLOW)
    testing.check_filter(program, [right])
    with pytest.raises(AssertionError) as caught:
        testing.check_filter(program, [right, ("dup", (8,), ALLOW), ("close", (), ALLOW)])
    said = str(caught.value)
    assert said.startswith("2 of 3 rows are decided otherwise\n")
    assert "the table says allow, the filter:\n  dup(8): errno EPERM\n" in said
    assert "because: the higher ones are not ours" in said
    assert "close(): errno EPERM\n    no rule holds" in said


def test_a_filter_read_back_from_bytes_can_be_tested_too() -> None:
    code = compile([allow("read", reason="x")]).to_bytes()
    testing.check_filter(Program.from_bytes(code), [("read", (), ALLOW), ("write", (), EPERM)])
    with pytest.raises(AssertionError, match="decided by instruction"):
        testing.check_filter(Program.from_bytes(code), [("write", (), ALLOW)])


def test_a_policy_stands_in_for_the_compartments_own() -> None:
    opens = ("openat", (0xFFFFFF9C, 1, os.O_RDONLY))
    testing.check_filter(unseen.Holes, [(*opens, EPERM)])
    mine = unseen.Holes.policy.with_(files=[bunri.fs.read("/usr")])
    testing.check_filter(unseen.Holes, [(*opens, ALLOW)], under=mine)


def test_computing_policies_are_tables_of_a_few_calls() -> None:
    for policy, refused in ((bunri.Policy.compute(), ENOMEM), (bunri.Policy.strict(), KILL)):
        program = testing.filter_of(policy)
        allowed = {call for call in syscalls_of(program.arch) if program.decide(program.arch, call) == ALLOW}
        assert {"read", "write", "rt_sigreturn", "exit"} <= allowed <= {*group("stdio"), "brk"}
        testing.check_filter(policy, [("getpid", (), refused), ("ptrace", (), KILL)])


# By number, without arguments that could do anything.
TRIED = ("getpid", "socket", "ptrace", "clone3", "setuid", "bpf", "getppid", "fchmod", "memfd_create", "userfaultfd")


@pytest.mark.parametrize("policy", [bunri.Policy(), bunri.Policy.compute(), bunri.Policy.strict()], ids=["", "compute", "strict"])  # fmt: skip
@pytest.mark.parametrize("name", TRIED)
def test_a_worker_is_answered_as_its_filter_says(name: str, policy: bunri.Policy) -> None:
    program = testing.filter_of(unseen.Caller, under=policy)
    said = program.decide(program.arch, name, (7, 7, 7, 7, 7, 7))
    with unseen.Caller.start_under(policy) as worker:
        if said == KILL:
            with pytest.raises(bunri.WorkerDied) as caught:
                worker.make(syscalls_of(program.arch)[name])
            assert caught.value.exit.signal in (signal.SIGSYS, signal.SIGKILL)
            return
        got = worker.make(syscalls_of(program.arch)[name])
    assert (got == said.data) if said != ALLOW else got not in (errno.EPERM, errno.ENOSYS, errno.ENOMEM), (said, got)


MISTAKES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: testing.check_filter(bunri.Policy(), []), "without a row tests nothing"),
    (lambda path: testing.check_filter(bunri.Policy(), [("opennat", (), ALLOW)]), "did you mean 'openat'"),
    (lambda path: testing.filter_of(bunri.Policy(), arch="vax"), "'vax'"),
    (lambda path: testing.filter_of(bunri.Policy(), under=bunri.Policy()), "for a compartment"),
    (lambda path: testing.filter_of(compile([allow("read", reason="x")]), arch="aarch64"), "too late"),
    (lambda path: testing.filter_of(bunri.Policy.dangerous_unconfined(user="root")), "has no filter"),
    (lambda path: testing.filter_of(bunri.Policy(), host=path / "nothing"), "No such file"),
    (lambda path: testing.filter_of(bunri.Policy(), host=sys.executable), "is no host"),
]


@pytest.mark.parametrize(("asked", "says"), MISTAKES)
def test_what_cannot_be_asked_says_why(asked: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    with pytest.raises(bunri.UsageError) as caught:
        asked(tmp_path)
    assert says in str(caught.value)
