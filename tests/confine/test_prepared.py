"""Runs in: the test process; every step is done to a forked child. Steps made ready do what carrying them out does."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import be, in_child

from bunri.confine import Context, Surround, carry_out, detect, prepare
from bunri.kernel import prctl, prepared, procfs
from bunri.plan import Needs, plan
from bunri.plan import steps as s
from bunri.policy import Policy, fs

READ_FILE = 1 << 2  # LANDLOCK_ACCESS_FS_READ_FILE
STATUS = ("uids", "gids", "effective", "permitted", "inheritable", "bounding")
STEPS: dict[str, tuple[s.AnyStep, ...]] = {
    "root": (
        s.NewSession(),
        s.SetIds(uid=70123, gid=70124, groups=()),
        s.SetCapabilities(),
        s.Limits(values={"NOFILE": 32, "CPU": 7}),
        s.ParentDeath(),
    ),
    "ordinary user": (
        s.NewSession(),
        s.SetCapabilities(),
        s.Limits(values={"NOFILE": 32, "CPU": 7}),
        s.ParentDeath(),
    ),
}


def facts() -> tuple[Any, ...]:
    """What the kernel says of this process."""
    directory = procfs.open_process("self")
    status, limits = procfs.status(directory), procfs.limits(directory)
    return *(getattr(status, name) for name in STATUS), limits["NOFILE"], limits["CPU"], os.getsid(0) == os.getpid()


def done(who: str, do: Callable[[tuple[s.AnyStep, ...], int], None]) -> Any:
    def child() -> Any:
        be(who)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            do(STEPS[who], ours.fileno())
            return facts()

    return in_child(child)


def test_steps_made_ready_leave_the_process_as_steps_carried_out_do(anyone: str) -> None:
    def one_by_one(steps: tuple[s.AnyStep, ...], channel: int) -> None:
        carry_out(steps, Context(parent_alive=lambda: True))

    def ready(steps: tuple[s.AnyStep, ...], channel: int) -> None:
        made = prepare(steps, Surround(image=0, channel=channel, first_free=50))
        assert made is not None
        assert prepared.refused(made.calls) == -1

    assert done(anyone, ready) == done(anyone, one_by_one)


def test_a_refused_call_names_its_step(anyone: str) -> None:
    def child() -> Any:
        be(anyone)
        os.setpgid(0, 0)  # the leader of a group cannot begin a session (setsid(2))
        made = prepare((s.SetCapabilities(), s.NewSession()), Surround(0, 0, 3))
        assert made is not None
        fault = made.fault(prepared.refused(made.calls))
        return fault.step, fault.errno

    assert in_child(child) == ("new_session", 1)


def test_a_parent_that_is_gone_is_noticed(anyone: str) -> None:
    def child() -> Any:
        be(anyone)
        ours, theirs = socket.socketpair()
        made = prepare((s.ParentDeath(),), Surround(0, ours.fileno(), 3))
        assert made is not None
        alive = prepared.refused(made.calls)
        theirs.close()
        assert select.select([ours], [], [], 1)[0]
        return alive, prepared.refused(made.calls)

    assert in_child(child) == (-1, 1)


def test_the_default_plan_is_made_ready_here() -> None:
    made = plan(Policy(), detect(), Needs()).worker
    if not detect().reads_not_dumpable:
        pytest.skip("workers stop to be looked at on this host, which goes step by step")

    def child() -> bool:
        return prepare(made, Surround(0, 3, 4)) is not None

    assert in_child(child)


def test_what_is_not_known_before_the_clone_goes_step_by_step() -> None:
    made = plan(Policy(files=[fs.scratch("/tmp", "1M")]), detect(), Needs()).worker

    def child() -> bool:
        return prepare(made, Surround(0, 3, 4)) is None

    if not any(isinstance(step, s.MountInRoot) for step in made):
        pytest.skip("no scratch of its own on this host")
    assert in_child(child)


def test_path_rules_made_ready_open_what_they_name_and_nothing_else(anyone: str) -> None:
    if detect().landlock_abi < 1:
        pytest.skip("no Landlock on this host")

    def child() -> Any:
        be(anyone)
        prctl.set_no_new_privs()
        made = prepare(
            (s.Landlock(abi=1, handled_fs=READ_FILE, paths=(("/etc/passwd", READ_FILE),)),), Surround(0, 3, 4)
        )
        assert made is not None
        before = is_readable("/etc/passwd"), is_readable("/etc/group")
        refused = prepared.refused(made.calls)
        return before, refused, is_readable("/etc/passwd"), is_readable("/etc/group")

    assert in_child(child) == ((True, True), -1, True, False)


def is_readable(path: str) -> bool:
    try:
        return bool(Path(path).read_text())
    except PermissionError:
        return False
