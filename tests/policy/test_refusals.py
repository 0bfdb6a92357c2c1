"""Runs in: the test process. What contradicts itself is refused where it is written, with the field and a way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bunri import seccomp
from bunri.errors import UsageError
from bunri.policy import AT_START, Policy, User, fs, net

_TRAP = seccomp.trap("flock", reason="a test")

# a mistake -> words that the message must have: the field, and what to write instead
MISTAKES: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: Policy(memry="1G"), "$.memry", "'memory'"),  # type: ignore[arg-type]
    (lambda: Policy().with_(filez=[]), "$.filez", "'files'"),  # type: ignore[arg-type]
    (lambda: Policy(memory="512X"), "$.memory", '"256M"'),
    (lambda: Policy(memory=-1), "$.memory", "out of range"),
    (lambda: Policy(memory=True), "$.memory", "a size is"),
    (lambda: Policy(cpu="5 parsecs"), "$.cpu", '"5s"'),
    (lambda: Policy(cpu=0), "$.cpu", "more than 0"),
    (lambda: Policy(wall=float("nan")), "$.wall", "out of range"),
    (lambda: Policy(threads=-1), "$.threads", "out of range"),
    (lambda: Policy(processes=-1), "$.processes", "out of range"),
    (lambda: Policy(open_files=2), "$.open_files", "at least 8"),
    (lambda: Policy(network=AT_START), "$.network", "AT_START"),  # type: ignore[arg-type]
    (lambda: Policy(files=["/usr"]), "$.files[0]", "fs.read('/usr')"),  # type: ignore[list-item]
    (lambda: Policy(files="/usr"), "$.files", "list"),  # type: ignore[arg-type]
    (lambda: Policy(files=[fs.read("/a"), net.listen(1)]), "$.files[1]", "network="),  # type: ignore[list-item]
    (lambda: Policy(files=[object()]), "$.files[0]", "arguments of start()"),  # type: ignore[list-item]
    (lambda: Policy(network=[fs.read("/a")]), "$.network[0]", "files="),  # type: ignore[list-item]
    (lambda: Policy(files=[fs.read("/a"), fs.write("/a")]), "$.files[1]", "at="),
    (lambda: Policy(files=[fs.read("/a", at="/x"), fs.read("/b", at="/x")]), "$.files[1]", "at="),
    (lambda: Policy(files=[fs.read("/tmp/a/b"), fs.scratch("/tmp", "1M")]), "$.files[0]", "at="),
    (lambda: Policy(files=[fs.scratch("/tmp", "1M"), fs.scratch("/tmp/b", "1M")]), "$.files[1]", "Keep one"),
    (lambda: Policy(may_miss=["MEMRY"]), "$.may_miss[0]", "'MEMORY'"),  # type: ignore[list-item]
    (lambda: Policy(may_miss=[3]), "$.may_miss[0]", "Promise"),  # type: ignore[list-item]
    (lambda: Policy(capabilities=["CAP_SYS_ADMN"]), "$.capabilities[0]", "'SYS_ADMIN'"),
    (lambda: Policy(syscalls=["opnat"]), "$.syscalls[0]", "'openat'"),
    (lambda: Policy(syscalls=["@stdoi"]), "$.syscalls[0]", "stdio"),
    (lambda: Policy(syscalls=["ptrace"]), "$.syscalls[0]", "'dangerous_ptrace'"),
    (lambda: Policy(syscalls=["dangerous_read"]), "$.syscalls[0]", "not attack-shaped"),
    (lambda: Policy(syscalls=[_TRAP]), "$.syscalls[0]", "neither allows nor refuses"),
    (lambda: Policy(env={"A=B": "x"}), "$.env", "'='"),
    (lambda: Policy(env={"A": "x\0"}), "$.env", "NUL"),
    (lambda: Policy(env={"A": "\udce9"}), "$.env['A']", "UTF-8"),
    (lambda: Policy(user="no such name!"), "$.user", "user name"),
    (lambda: Policy(user=3), "$.user", "User.dynamic()"),  # type: ignore[arg-type]
    (lambda: User.ids(-1, 0), "User.ids(uid)", "out of range"),
    (lambda: User.ids(0xFFFFFFFF, 0), "User.ids(uid)", "out of range"),
    (lambda: Policy(selinux="a", apparmor="b"), "$.apparmor", "one label"),
    (lambda: Policy(file_size=0, files=[fs.scratch("/tmp", "1M")]), "$.file_size", "scratch"),
    (lambda: Policy(network=[net.dangerous_host(), net.listen(80)]), "$.network", "dangerous_host"),
    (lambda: Policy.compute().with_(threads=1), "$.threads", "Policy()"),
    (lambda: Policy.strict().with_(files=[fs.read("/a")]), "$.files", "Policy()"),
    (lambda: Policy.dangerous_unconfined().with_(files=[fs.read("/a")]), "$.files", "confines nothing"),
    (lambda: fs.read("usr"), "fs.read(path)", "'/usr'"),
    (lambda: fs.read("/usr/../etc"), "fs.read(path)", "'..'"),
    (lambda: fs.write("/x", at="y"), "fs.write(at)", "relative"),
    (lambda: fs.read("/x\0"), "fs.read(path)", "NUL"),
    (lambda: fs.read("/caf\udce9"), "fs.read(path)", "Grant the folder"),
    (lambda: net.unix("/caf\udce9"), "net.unix(path)", "Grant the folder"),
    (lambda: fs.read(b"/x"), "fs.read(path)", "path"),  # type: ignore[arg-type]
    (lambda: fs.read("/proc/1"), "/proc", "other processes"),
    (lambda: fs.scratch("/", "1M"), "fs.scratch", "/tmp"),
    (lambda: fs.scratch("/tmp", 1), "fs.scratch(size)", "4096"),
    (lambda: net.connect("", 1), "net.connect(host)", "db.example.org"),
    (lambda: net.connect("db", 0), "net.connect(port)", "65535"),
    (lambda: net.listen(70000), "net.listen(port)", "65535"),
]


@pytest.mark.parametrize(
    ("mistake", "where", "remedy"), MISTAKES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_mistake_is_refused_where_it_is_written(mistake: Callable[[], Any], where: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        mistake()
    assert where in str(caught.value)
    assert remedy in str(caught.value)


def test_the_same_grant_twice_is_one() -> None:
    assert Policy(files=[fs.read("/a"), fs.read("/a")]) == Policy(files=[fs.read("/a")])
