"""Runs in: the test process. What `explain --can` answers is what happens: each question is asked, and tried in a worker."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asked
import pytest

import bunri
from bunri import Policy, fs, seccomp
from bunri.confine import detect
from bunri.observe.answer import Answer, Verdict, answer
from bunri.observe.question import Access as To
from bunri.observe.question import OpenPath, SystemCall, parse
from bunri.observe.subject import Subject, of_compartment
from bunri.plan import Host, hosts
from bunri.plan.host import UserNamespaces
from bunri.process import program

SYSTEM = (
    "/", "/etc", "/etc/passwd", "/etc/shadow", "/etc/ssl/certs", "/etc/localtime", "/usr", "/usr/bin/env", "/bin/sh", "/lib", "/root",
    "/tmp", "/proc", "/proc/self/status", "/dev", "/dev/null", "/dev/zero", "/dev/kmsg", "/nowhere", "/usr/nowhere", "/var/log", "/sys",
)  # fmt: skip


def under(policy: Policy, cls: type[bunri.Compartment] = asked.Granted) -> Subject:
    subject = of_compartment(cls, detect())
    return Subject(subject.name, policy, subject.needs, subject.host, cls)


def say(found: Answer) -> str:
    return f"{found}"


def disagreements(subject: Subject, worker: Any, questions: list[tuple[str, str]]) -> list[str]:
    """Questions about paths whose answer is not what the worker met."""
    wrong = []
    for (path, access), met in zip(questions, worker.paths(questions), strict=True):
        told = answer(subject, OpenPath(path, To(access)))
        if (told.verdict is Verdict.YES) != (met == ""):
            wrong.append(f"{told}\n  the worker met {met or 'no refusal'}")
    return wrong


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Files and folders of every kind of permission, and links of every kind."""
    top = tmp_path / "tree"
    top.mkdir()
    for mode in (0o644, 0o600, 0o000, 0o666, 0o640, 0o604, 0o200, 0o755):
        (top / f"file{mode:o}").write_text("x")
        (top / f"file{mode:o}").chmod(mode)
    for mode in (0o755, 0o700, 0o000, 0o777, 0o711, 0o744):
        (top / f"folder{mode:o}").mkdir()
        (top / f"folder{mode:o}/inner").write_text("x")
        (top / f"folder{mode:o}/inner").chmod(0o666)
    links = {
        "inside": "file644", "folder": "folder755", "deep": "folder/inner", "up": "../tree/file644", "dangling": "nothing",
        "round": "round", "out": "/etc/passwd", "absolute": f"{top}/file644", "system": "/usr/bin/env", "top": "/",
    }  # fmt: skip
    for name, target in links.items():
        (top / f"link-{name}").symlink_to(target)
    if os.getuid() == 0:
        (top / "owned").write_text("x")
        os.chown(top / "owned", 4711, 4711)
        (top / "owned").chmod(0o600)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    yield top
    for mode in (0o000, 0o711, 0o744):
        (top / f"folder{mode:o}").chmod(0o755)


def names_of(tree: Path, at: str) -> list[str]:
    found = [at, f"{at}/new", f"{at}/nofolder/new", f"{at}/link-folder/inner", f"{at}/link-folder/new"]
    for each in sorted(os.listdir(tree)):
        found.append(f"{at}/{each}")
        if each.startswith("folder"):
            found += [f"{at}/{each}/inner", f"{at}/{each}/new"]
    return found


def every(paths: list[str]) -> list[tuple[str, str]]:
    return [(os.path.normpath(path), access) for path in dict.fromkeys(paths) for access in ("read", "write", "create")]


@pytest.mark.parametrize(
    "kind", ["nothing", "read", "read elsewhere", "write", "execute", "scratch", "python", "system"]
)
def test_answers_about_paths_are_what_a_worker_meets(kind: str, tree: Path) -> None:
    """Some sixty paths, three ways, eight policies: well over a thousand questions."""
    if kind == "write":
        for each in (tree, tree / "folder777", tree / "file666"):
            each.chmod(0o777 if each.is_dir() else 0o666)
    grants = {
        "nothing": [],
        "read": [fs.read(tree)],
        "read elsewhere": [fs.read(tree, at="/data/tree"), fs.read("/etc/passwd", at="/data/users")],
        "write": [fs.write(tree), fs.read("/etc")],
        "execute": [fs.execute(tree)],
        "scratch": [fs.scratch("/tmp", "1M"), fs.read(tree, at="/data")],
        "python": [fs.python()],
        "system": [fs.system()],
    }[kind]
    subject = under(Policy(files=grants))
    places = [str(tree), "/data/tree", "/data"]
    paths = [*SYSTEM, "/data/users", "/tmp/new", *(name for at in places for name in names_of(tree, at))]
    with asked.Granted.start_under(subject.policy) as worker:
        wrong = disagreements(subject, worker, every(paths))
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong)


def test_a_grant_of_the_root_is_a_chroot(tree: Path) -> None:
    tree.chmod(0o755)
    subject = under(Policy(files=[fs.read(tree, at="/")]))
    with asked.Granted.start_under(subject.policy) as worker:
        wrong = disagreements(subject, worker, every([*SYSTEM, *names_of(tree, "")]))
    assert not wrong, "\n".join(wrong)


def test_answers_about_programs_are_what_a_worker_meets(tmp_path: Path) -> None:
    try:
        worker = asked.Shell.start()
        worker.process  # noqa: B018
    except bunri.HostError as fault:
        pytest.skip(f"processes= is not to be had here: {fault}")
    subject = of_compartment(asked.Shell, detect())
    wrong = []
    with worker:
        for path in (
            "/usr/bin/true",
            "/bin/true",
            "/bin/sh",
            "/etc/ssl/openssl.cnf",
            "/usr",
            "/nowhere",
            "/dev/null",
            "/usr/bin/awk",
        ):
            told = answer(subject, OpenPath(path, To.EXECUTE))
            met = worker.executes(path)
            if (told.verdict is Verdict.YES) != (met == ""):
                wrong.append(f"{told}\n  the worker met {met or 'no refusal'}")
    assert not wrong, "\n".join(wrong)


ARCH = detect().arch
# With -1 for every argument these would end the worker, wait for ever, or make another process. The last two the kernel
# passes by every filter, and sends SIGILL to whoever calls them without having a probe (Linux 6.14).
NOT_TRIED = frozenset(
    {
        "exit",
        "exit_group",
        "pause",
        "rt_sigreturn",
        "rt_sigsuspend",
        "restart_syscall",
        "fork",
        "vfork",
        "uprobe",
        "uretprobe",
    }
)
MINUS = (-1,) * 6


def calls() -> list[str]:
    return sorted(set(seccomp.syscalls_of(ARCH)) - NOT_TRIED)


@pytest.mark.parametrize("cls", [asked.Plain, asked.Granted])
def test_answers_about_calls_are_what_a_worker_meets(
    cls: type[asked.Plain] | type[asked.Granted], tmp_path: Path
) -> None:
    """Every call of this architecture, with arguments that make no call succeed by accident."""
    policy = cls.policy if cls is asked.Plain else Policy(files=[fs.scratch("/tmp", "1M")])
    subject = under(policy, cls)
    numbers = seccomp.syscalls_of(ARCH)
    told = {name: answer(subject, SystemCall(name, MINUS)) for name in calls()}
    wrong = []
    with cls.start_under(policy) as worker:
        for name, found in told.items():
            if found.verdict is Verdict.DEATH:
                continue
            met = worker.call(numbers[name], list(MINUS))
            if found.verdict is Verdict.NO and met != found.error:
                wrong.append(f"{found}\n  the worker met {met or 'no refusal'}")
            if found.verdict is Verdict.YES and met == "EPERM":
                wrong.append(f"{found}\n  the worker met EPERM")
    assert not wrong, "\n".join(wrong)
    assert sum(found.verdict is Verdict.NO for found in told.values()) > 100


def test_answers_about_deaths_are_deaths() -> None:
    subject = of_compartment(asked.Plain, detect())
    numbers = seccomp.syscalls_of(ARCH)
    deadly = [name for name in calls() if answer(subject, SystemCall(name, MINUS)).verdict is Verdict.DEATH]
    assert {"ptrace", "bpf", "io_uring_setup", "unshare"} <= set(deadly)
    for name in deadly:
        with asked.Plain.start() as worker:
            with pytest.raises(bunri.WorkerDied) as death:
                worker.call(numbers[name], list(MINUS))
            assert death.value.exit.signal == 31, name
        assert program._current is not None
        program._current.forgive()


@pytest.mark.slow
def test_the_two_filters_together_are_the_list_that_is_shown() -> None:
    """What is explained is the worker's list; what the kernel has are a template's filter and a top-up."""
    policies = [
        Policy(), Policy(files=[fs.system()], processes=3, threads=2), Policy(files=[fs.scratch("/t", "1M")]), Policy.compute(),
        Policy(network=[bunri.net.dangerous_host()]), Policy(syscalls=["dangerous_ptrace", "flock"]),
    ]  # fmt: skip
    for host in (hosts.ROOT, hosts.ORDINARY, hosts.ARM64, hosts.LINUX_5_10):
        for policy in policies:
            subject = Subject(
                "x", policy.with_(may_miss=list(bunri.Promise)), of_compartment(asked.Plain, host).needs, host
            )
            for name in seccomp.syscalls_of(host.arch):
                for args in ((), MINUS, (1, 2, 3), (0, 4096, 4, 2)):
                    action = subject.filter.decide(host.arch, name, args)
                    told = answer(subject, SystemCall(name, args), reads_files=False)
                    goes_on = action.kind in (seccomp.Kind.ALLOW, seccomp.Kind.LOG)
                    assert (told.verdict is Verdict.YES) == goes_on, (host.arch, policy, told, action)


def test_answers_about_connections_are_what_a_worker_meets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for cls, verdict in ((asked.Plain, Verdict.NO), (asked.Net, Verdict.YES)):
            subject = of_compartment(cls, detect())
            told = answer(subject, parse(f"connect 127.0.0.1:{port}"))
            assert told.verdict is verdict
            with cls.start() as worker:
                assert (worker.connects(socket.AF_INET, "127.0.0.1", port) == "") is (verdict is Verdict.YES)
    told = answer(of_compartment(asked.Plain, detect()), parse("connect 10.0.0.1:22"))
    assert told.layer == "filter on sockets"
    assert told.error == "EPERM"


@pytest.mark.parametrize("host", list(hosts.HOSTS.values()), ids=list(hosts.HOSTS))
def test_answers_for_other_hosts_do_not_read_this_ones_files(host: Host) -> None:
    policy = Policy(files=[fs.read("/only/there")], may_miss=list(bunri.Promise))
    subject = Subject("x", policy, of_compartment(asked.Plain, host).needs, host)
    assert answer(subject, parse("open /only/there/file read"), reads_files=False).verdict is Verdict.YES
    assert answer(subject, parse("open /only/there/file write"), reads_files=False).verdict is Verdict.NO
    if host.user_namespaces is UserNamespaces.FULL:
        assert answer(subject, parse("open /etc/passwd"), reads_files=False).error == "ENOENT"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty question"),
        ("open passwd read", "whole path"),
        ("open /etc/passwd raed", "read"),
        ("connect 10.0.0.1", "HOST:PORT"),
        ("connect a:99999", "1 to 65535"),
        ("ptrase", "ptrace"),
        ("kill one", "numbers"),
        ("kill 1 2 3 4 5 6 7", "six"),
    ],
)
def test_a_question_that_is_none_says_what_one_is(text: str, words: str) -> None:
    with pytest.raises(bunri.UsageError, match=words):
        parse(text)


def test_a_decisive_rule_is_named() -> None:
    subject = of_compartment(asked.Plain, detect())
    found = answer(subject, parse("ptrace"))
    assert found.verdict is Verdict.DEATH
    assert any("kill('ptrace'" in line for line in found.why)
    assert "controls another process" in " ".join(found.why)
    assert errno.errorcode[errno.EPERM] == answer(subject, parse("socket 2 1 0")).error
