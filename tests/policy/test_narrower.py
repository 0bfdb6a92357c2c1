"""Runs in: the test process. A filled policy may take rights away, and never add one (start_under)."""

from __future__ import annotations

import pytest

from bunri import seccomp
from bunri.errors import Promise
from bunri.policy import AT_START, Policy, User, fs, narrower_or_equal, net

CLASS = Policy(
    user=User.dynamic(),
    files=[fs.read("/usr"), fs.write("/srv", at="/data"), fs.scratch("/tmp", "16M")],
    network=[net.connect("db", 1)],
    memory="1G",
    cpu="5s",
    threads=2,
    env={"A": "1"},
    syscalls=["flock"],
    capabilities=["NET_RAW"],
    may_miss=[Promise.MEMORY],
)


@pytest.mark.parametrize(
    "policy",
    [
        CLASS,
        CLASS.with_(files=[]),
        CLASS.with_(files=[fs.read("/usr/lib")]),
        CLASS.with_(files=[fs.read("/srv/a", at="/data/a")]),
        CLASS.with_(files=[fs.scratch("/tmp", "1M")]),
        CLASS.with_(
            memory="1M", cpu=1, wall=3, threads=0, env={}, syscalls=[], network=[], capabilities=[], may_miss=[]
        ),
    ],
)
def test_less_is_taken(policy: Policy) -> None:
    assert narrower_or_equal(policy, CLASS) == ()


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (CLASS.with_(user="ftp"), "user"),
        (CLASS.with_(files=[fs.write("/usr")]), "files"),
        (CLASS.with_(files=[fs.read("/usr2")]), "files"),
        (CLASS.with_(files=[fs.read("/usr/lib", at="/lib")]), "files"),
        (CLASS.with_(files=[fs.execute("/usr")]), "files"),
        (CLASS.with_(files=[fs.scratch("/tmp", "32M")]), "files"),
        (CLASS.with_(network=[net.connect("db", 2)]), "network"),
        (CLASS.with_(network=[net.dangerous_host()]), "network"),
        (CLASS.with_(memory="2G"), "memory"),
        (CLASS.with_(cpu=None), "cpu"),
        (CLASS.with_(threads=3), "threads"),
        (CLASS.with_(file_size="9G"), "file_size"),
        (CLASS.with_(env={"A": "2"}), "env"),
        (CLASS.with_(syscalls=["flock", "sched_setaffinity"]), "syscalls"),
        (CLASS.with_(capabilities=["NET_RAW", "NET_ADMIN"]), "capabilities"),
        (CLASS.with_(may_miss=[Promise.FILES]), "may_miss"),
        (CLASS.with_(selinux="x"), "selinux"),
        (CLASS.with_(memory=AT_START), "memory"),
        (Policy.dangerous_unconfined(), "profile"),
    ],
)
def test_more_is_named(policy: Policy, field: str) -> None:
    assert any(text.startswith(f"{field}:") for text in narrower_or_equal(policy, CLASS))


def test_what_the_class_refuses_stays_refused() -> None:
    refuses = seccomp.deny("getpid", "kill", reason="of no use here")
    of = CLASS.with_(syscalls=["flock", refuses])
    assert narrower_or_equal(of.with_(syscalls=[refuses]), of) == ()
    more = seccomp.kill("uname", reason="of no use either")
    assert narrower_or_equal(of.with_(syscalls=["flock", more, refuses]), of) == ()
    for syscalls in (["flock"], [], ["flock", seccomp.deny("kill", reason="of no use here")]):
        (text,) = narrower_or_equal(of.with_(syscalls=syscalls), of)
        assert text.startswith("syscalls:") and "getpid" in text


def test_a_hole_takes_any_value() -> None:
    with_holes = CLASS.with_(user=AT_START, files=AT_START, memory=AT_START)
    assert narrower_or_equal(CLASS.with_(user="ftp", files=[fs.write("/", at="/")], memory="9G"), with_holes) == ()
