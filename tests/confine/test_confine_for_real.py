"""Runs in: the test process; forked children confine themselves by the real plan. Control: the same action before."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from forked import Died, answer_descriptor, be, errno_of, in_child, skip_unless

from bunri.confine import _hooks, detect
from bunri.confine import self as this
from bunri.errors import HostError, Observer, Promise
from bunri.kernel import capability, clone, prctl, procfs
from bunri.plan.host import Host, UserNamespaces
from bunri.plan.report import Report, State
from bunri.policy import Policy, User, fs

DYNAMIC = 61_300


def confine(policy: Policy, *keep: Any) -> Report:
    """The real thing, for root with a dynamic uid that the test reserves."""
    reserved = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    _hooks.register(_hooks.Hooks(lambda: None, lambda: (DYNAMIC, reserved), lambda: None))
    found = this.confine(policy, keep=(0, 1, 2, answer_descriptor(), *keep))
    assert isinstance(found, Report)
    return found


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


ACTIONS: dict[str, Callable[[], object]] = {
    "read a file": lambda: os.close(os.open("/etc/passwd", os.O_RDONLY)),
    "list a folder": lambda: os.listdir("/usr"),
    "learn that a file is there": lambda: os.stat("/etc/passwd"),
    "make a socket": lambda: socket.socket().close(),
    "make a process": _fork,
    "look into /proc": lambda: os.listdir("/proc/self"),
}


def try_all() -> dict[str, int]:
    return {name: errno_of(action) for name, action in ACTIONS.items()}


def without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host as it would be, did it refuse user namespaces."""

    def poorer() -> Host:
        return msgspec.structs.replace(
            detect(), user_namespaces=UserNamespaces.REFUSED, namespaces=(), pivot_root=False, chroot=False
        )

    monkeypatch.setattr(this, "detect", poorer)


def need(*, landlock: int = 0, full: bool = False) -> None:
    host = detect()
    if host.landlock_abi < landlock or not host.seccomp:
        pytest.skip(f"this host has Landlock ABI {host.landlock_abi}, filters: {host.seccomp}")
    if full and host.user_namespaces is not UserNamespaces.FULL:
        pytest.skip("this host gives ordinary users no user namespaces")


def test_afterwards_nothing_is_left_that_worked_before(anyone: str) -> None:
    need(landlock=6, full=anyone != "root")

    def child() -> Any:
        be(anyone)
        before = try_all()
        report = confine(Policy())
        return before, try_all(), report

    before, after, report = in_child(child)
    assert set(before.values()) == {0}
    assert 0 not in after.values(), after
    assert report.layer("mount namespace").state is State.IN_FORCE
    assert report.layer("filter").observed_by is Observer.KERNEL
    for promise in Promise:
        assert report.keeps(promise) or promise in (Promise.LABEL,), promise


def test_what_is_granted_stays_and_its_neighbour_does_not(anyone: str, folder: Path) -> None:
    need(landlock=6, full=anyone != "root")
    for name in ("granted", "other"):
        (folder / name).mkdir()
        (folder / name / "file").write_text(name)

    def look() -> list[int]:
        return [errno_of(os.open, folder / name / "file", os.O_RDONLY) for name in ("granted", "other")]

    def child() -> Any:
        be(anyone)
        before = look()
        confine(Policy(files=[fs.read(str(folder / "granted"))]))
        return before, look(), errno_of(os.open, folder / "granted/file", os.O_WRONLY)

    before, after, writing = in_child(child)
    assert before == [0, 0]
    assert after[0] == 0
    assert after[1] in (errno.ENOENT, errno.EPERM, errno.EACCES)
    assert writing in (errno.EROFS, errno.EPERM, errno.EACCES)


def test_a_kept_socket_still_works(anyone: str) -> None:
    need(landlock=6, full=anyone != "root")

    def child() -> Any:
        be(anyone)
        ours, theirs = socket.socketpair()
        confine(Policy(), ours, theirs)
        os.write(ours.fileno(), b"still here")
        return os.read(theirs.fileno(), 64)

    assert in_child(child) == b"still here"


def test_an_ordinary_user_gets_a_user_namespace_of_his_own_and_no_rights_in_it() -> None:
    skip_unless("root of a user namespace")
    need(landlock=6, full=True)

    same_uid, changed, status, report = in_child(_seen_from_outside)
    assert same_uid
    assert changed is not False
    assert (status.effective, status.permitted, status.bounding, status.ambient) == (0, 0, 0, 0)
    assert status.no_new_privs
    assert (status.seccomp_mode, status.threads) == (2, 1)
    assert report.layer("user namespace").state is State.IN_FORCE
    assert report.layer("uid").state is State.MISSING


def _seen_from_outside() -> Any:
    """A child confines itself and waits; its parent, who may read all of it, looks."""
    reader, writer = os.pipe()
    wait, end = os.pipe()
    was = os.readlink("/proc/self/ns/user")
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            be("ordinary user")
            report = this.confine(Policy(), keep=(0, 1, 2, writer, wait))
            os.write(writer, pickle.dumps(report))
            os.close(writer)
            os.read(wait, 1)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    directory = procfs.open_process(pid)
    try:
        status = procfs.status(directory)
        changed = None if os.getuid() else procfs.namespace(directory, "user") != was  # it hides from others
    finally:
        os.close(directory)
        os.close(end)
        os.waitpid(pid, 0)
    return len(set(status.uids)) == 1 and status.uids[0] != 0, changed, status, pickle.loads(text)


def test_without_namespaces_landlock_and_the_filter_do_it(anyone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(landlock=6)
    without_namespaces(monkeypatch)

    def child() -> Any:
        be(anyone)
        before = try_all()
        report = confine(Policy(user=User.same()))
        return before, try_all(), report

    before, after, report = in_child(child)
    assert set(before.values()) == {0}
    # The C library's fstat is a stat of paths: what is kept needs it, and the report says so.
    open_ = {name for name, answer in after.items() if answer == 0}
    assert open_ <= {"learn that a file is there"}
    if open_:
        assert report.layer("filter on metadata").state is State.WEAKER
    assert report.layer("mount namespace").state is State.MISSING


def test_without_a_namespace_an_ordinary_user_has_no_identity_of_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    need(landlock=6)
    without_namespaces(monkeypatch)

    def child() -> Any:
        be("ordinary user")
        with pytest.raises(HostError) as caught:
            confine(Policy())
        return caught.value.promise, prctl.no_new_privs(), errno_of(os.listdir, "/usr")

    assert in_child(child) == (Promise.IDENTITY, False, 0)  # and nothing was done to it


def test_an_attack_shaped_call_is_death(anyone: str) -> None:
    need(landlock=6, full=anyone != "root")

    def control() -> int:
        be(anyone)
        return errno_of(clone.unshare, 0)

    def child() -> Any:
        be(anyone)
        confine(Policy())
        return errno_of(clone.unshare, 0)

    assert in_child(control) == 0
    assert in_child(child) == Died(signal.SIGSYS)


def test_root_has_no_way_back() -> None:
    skip_unless("root")
    need(landlock=6)

    def child() -> Any:
        before = bool(capability.get().effective)
        confine(Policy())
        return before, os.getresuid(), os.getgroups(), errno_of(os.setuid, 0)

    before, uids, groups, back = in_child(child)
    assert before
    assert uids == (DYNAMIC,) * 3
    assert groups == []
    assert back == errno.EPERM


def test_a_kept_directory_leads_nowhere_where_there_is_landlock(anyone: str, folder: Path) -> None:
    need(landlock=6, full=anyone != "root")
    up = "/".join([".."] * 20) + "/etc/passwd"

    def child() -> Any:
        be(anyone)
        kept = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

        def escape() -> int:
            return errno_of(lambda: os.close(os.open(up, os.O_RDONLY, dir_fd=kept)))

        before = escape()
        confine(Policy(files=[fs.read("/usr")]), kept)  # so that the filter lets openat through
        return before, escape()

    before, after = in_child(child)
    assert before == 0
    assert after in (errno.EACCES, errno.EPERM)


def test_a_kept_directory_is_refused_where_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless("root")
    monkeypatch.setattr(this, "detect", lambda: msgspec.structs.replace(detect(), landlock_abi=0))

    def child() -> Any:
        kept = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with pytest.raises(HostError) as caught:
            confine(Policy(may_miss=[Promise.PROCESSES]), kept)
        return str(kept) in str(caught.value), caught.value.promise, prctl.no_new_privs()

    assert in_child(child) == (True, Promise.FILES, False)


def test_a_process_that_hides_from_its_own_user_is_told_so_before_anything_is_done() -> None:
    """A daemon that was root and gave up the uid by itself: its files in /proc are root's, so it could not go on."""
    need(landlock=6)

    def child() -> Any:
        be("ordinary user")
        prctl.set_dumpable(0)
        with pytest.raises(HostError) as caught:
            confine(Policy())
        return "dumpable" in str(caught.value), prctl.no_new_privs()

    assert in_child(child) == (True, False)
