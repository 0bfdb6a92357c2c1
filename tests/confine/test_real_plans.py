"""Runs in: the test process, which is the monitor; a forked template and its cloned workers carry real plans out."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from forked import (
    answer_descriptor,
    become_ordinary,
    enter_user_namespace,
    errno_of,
    in_child,
    need_reachable_interpreter,
    skip_unless,
)

from bunri.confine import Context, Look, Part, Sight, StepFailed, carry_out, detect, look, report, reporting, self
from bunri.errors import Observer, Promise
from bunri.kernel import clone
from bunri.plan import Needs, Plan, Shape, State, plan
from bunri.plan.steps import Checkpoint, Chroot, Filter, ParentDeath
from bunri.policy import Policy, User, fs

UID = 61_250
CHANNEL = 3
SCOPES = 6  # the Landlock ABI that has them


@dataclass(frozen=True)
class Seen:
    """What the monitor saw of one worker, and what the worker answered."""

    early: Look
    late: Look
    plan: Plan
    answer: bytes


def start(policy: Policy, do: Callable[[], object], who: str, **options: Any) -> Seen | str:
    """A worker under `policy`, made as bunri makes it: template, clone, steps, look, then `do`. Its trace where it
    failed."""

    def monitor() -> Seen | str:
        if who != "root":
            become_ordinary()
        made = plan(policy, detect(), Needs(), **options)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            ours.close()
            _template(made, theirs, do, who)
        theirs.close()
        try:
            return _watch(made, ours, who, pid)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    found = in_child(monitor)
    assert isinstance(found, Seen | str)
    return found


def _watch(made: Plan, ours: socket.socket, who: str, template: int) -> Seen | str:
    ids = (UID, UID, ()) if who == "root" else (None, None, None)
    sight = Sight(*ids, template=template, descriptors={0: "pipe r", 1: "pipe w", 2: "pipe w", CHANNEL: "socket rw"})
    heard = ours.recv(60_000), ours.recv(60_000)  # the template's word and the worker's, in any order
    told = next((text for text in heard if text.startswith(b"pid ")), None)
    if told is None or b"ready" not in heard:
        return b"\n".join(heard).decode()
    worker = int(told[4:])
    early = look(worker, made.expected, Part.EARLY, sight)
    late = look(worker, made.expected, Part.LATE, sight)
    ours.send(b"go")
    return Seen(early, late, made, ours.recv(60_000))


def _template(made: Plan, channel: socket.socket, do: Callable[[], object], who: str) -> None:
    try:
        if who != "root":
            enter_user_namespace()
        reader, writer = os.pipe()
        for number, target in ((channel.fileno(), CHANNEL), (reader, 0), (writer, 1), (writer, 2)):
            os.dup2(number, target, inheritable=False)
        carry_out(made.template, Context(keep=(0, 1, 2, CHANNEL)))
        flags = clone.flags_of((*made.clone.namespaces, *(("user",) if made.clone.user else ())))
        pid, _ = clone.clone_process(flags)
        if pid == 0:
            _worker(made, do)
        os.write(CHANNEL, f"pid {pid}".encode())
        os.waitpid(pid, 0)
    except BaseException:
        os.write(CHANNEL, traceback.format_exc().encode()[:50_000])
    os._exit(0)


def _parent_alive() -> bool:
    poll = select.poll()
    poll.register(CHANNEL, 0)
    return not poll.poll(0)


def _worker(made: Plan, do: Callable[[], object]) -> None:
    try:
        context = Context(uid=UID, gid=UID, keep=(0, 1, 2, CHANNEL), parent_alive=_parent_alive, image=1 << 30)
        carry_out(made.worker, context)
    except StepFailed as failed:
        os.write(CHANNEL, f"failed: {failed}".encode())
        os._exit(1)
    os.write(CHANNEL, b"ready")
    os.read(CHANNEL, 10)
    try:
        answer = repr(do())
    except BaseException as error:
        answer = repr(error)
    os.write(CHANNEL, answer.encode()[:1000])
    os._exit(0)


@pytest.fixture(params=["root", "ordinary user"])
def monitor(request: pytest.FixtureRequest) -> str:
    if request.param == "root":
        skip_unless("root")
    else:
        skip_unless("root of a user namespace")
        need_reachable_interpreter()
    return str(request.param)


def good(found: Seen | str, who: str) -> Seen:
    """No difference; and as root nothing hidden either.

    As an ordinary user the template would have to be *executed* in its user namespace to be seen from outside, as
    bunri's zygotes are; here it is forked only, and what is hidden must be said to be so.
    """
    assert isinstance(found, Seen), found
    for one in (found.early, found.late):
        assert [str(each) for each in one.differences] == []
        if who == "root":
            assert [str(each) for each in one.unreadable] == []
    return found


def test_the_default_policy_is_carried_out_and_seen_from_outside(monitor: str) -> None:
    found = good(start(Policy(), lambda: errno_of(os.open, "/etc/passwd", os.O_RDONLY), monitor), monitor)
    assert found.answer in (b"1", b"2", b"13")  # refused by the filter, absent, or refused by Landlock
    seen = {each.name: each.observed_by for each in report(found.plan, [found.early, found.late]).layers}
    shown = ["filter", "capabilities", "no_new_privs", "bounding set"]
    shown += ["mount namespace", "pid namespace", "descriptors"] if monitor == "root" else []
    for name in shown:
        assert seen[name] is Observer.MONITOR, name


def test_a_granted_folder_is_there_and_nothing_else(monitor: str, folder: Path) -> None:
    (folder / "file").write_text("content")

    def look_around() -> Any:
        with open("/data/file") as file:
            return file.read(), errno_of(os.open, "/data/new", os.O_CREAT | os.O_WRONLY) != 0

    policy = Policy(files=[fs.read(str(folder), at="/data")])
    found = good(start(policy, look_around, monitor), monitor)
    assert found.answer == b"('content', True)"


def test_every_layer_that_a_report_looks_for_is_one_of_the_plans() -> None:
    table = reporting._SHOWN_BY
    host = detect()
    names = {layer.name for layer in plan(Policy(), host, Needs()).layers}
    assert set(table) <= names


def test_a_host_without_namespaces_is_served_by_chroot_for_root() -> None:
    skip_unless("root")
    if detect().landlock_abi < SCOPES:
        pytest.skip("without namespaces it is Landlock's signal scope that is needed, of Linux 6.12")
    bare = msgspec.structs.replace(detect(), namespaces=(), pivot_root=False)
    steps = plan(Policy(), bare, Needs()).template
    assert any(isinstance(step, Chroot) for step in steps)

    def child() -> int:
        carry_out([step for step in steps if not isinstance(step, Filter)], Context())
        return errno_of(os.stat, "/etc")

    assert in_child(child) == errno.ENOENT


def test_a_process_confines_itself(monitor: str, folder: Path) -> None:
    """As tcpdump does: it opens, then gives everything up."""
    policy = Policy(user=User.ids(UID, UID)) if monitor == "root" else Policy()
    policy = policy.with_(may_miss=[] if detect().landlock_abi >= SCOPES else [Promise.PROCESSES])
    (folder / "file").write_text("content")

    def child() -> Any:
        if monitor != "root":
            become_ordinary()
        confine = self.confine
        opened = os.open(folder / "file", os.O_RDONLY)
        lost = os.open(folder / "file", os.O_RDONLY)
        os.listdir("/etc")
        result = confine(policy, keep=(0, 1, 2, opened, answer_descriptor()))
        return (
            os.read(opened, 100),
            errno_of(os.fstat, lost) != 0,
            errno_of(os.open, "/etc/passwd", os.O_RDONLY) != 0,
            errno_of(socket.socket) != 0,
            result,
        )

    content, closed, hidden, no_socket, result = in_child(child)
    assert (content, closed, hidden, no_socket) == (b"content", True, True, True)
    assert any("file, r" in note for note in result.notes)
    assert result.keeps(Promise.SYSCALLS)
    assert result.layer("filter").observed_by is Observer.KERNEL
    assert result.layer("pid namespace").state is State.MISSING


def test_the_self_plan_has_nothing_that_takes_a_clone() -> None:
    policy = Policy(user=User.same(), may_miss=[Promise.PROCESSES, Promise.FILES])  # old kernels have nothing for them
    made = plan(policy, detect(), Needs(shape=Shape.SELF))
    assert made.clone.namespaces == ()
    assert not any(isinstance(step, ParentDeath | Checkpoint) for step in (*made.template, *made.worker))
