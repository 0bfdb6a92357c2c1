"""Runs in: the test process, which is the monitor here; the looked-at are forked children."""

from __future__ import annotations

import errno
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from forked import ORDINARY, be, become_ordinary, in_child, skip_unless
from msgspec import structs
from msgspec.structs import replace

from bunri.confine import Context, Difference, Look, Part, Sight, Unreadable, carry_out, detect, look, report
from bunri.errors import HostError, Observer, Promise
from bunri.kernel import capability, clone, mount, prctl
from bunri.plan import steps as s
from bunri.plan.report import Layer, State
from bunri.plan.value import Clone, Expected, ExpectedMount, Plan


def wanting(**fields: Any) -> Expected:
    """An Expected in which nothing is looked at, but for what a test names."""
    nothing = dict.fromkeys(
        ("effective", "permitted", "inheritable", "bounding", "ambient", "no_new_privs", "seccomp_mode")
    )
    return Expected(**{**nothing, **fields})


@contextmanager
def living(prepare: Callable[[], None], flags: int = 0) -> Iterator[int]:
    """The pid of a child that has done `prepare` and waits to be looked at."""
    ready, told = os.pipe()
    pid, pidfd = clone.clone_process(flags)
    if pid == 0:
        signal.alarm(20)
        try:
            os.dup2(told, TOLD)
            prepare()
            os.write(TOLD, b"r")
            signal.pause()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"r", "the child could not be prepared"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def do(*steps: s.AnyStep, keep: tuple[int, ...] = (0, 1, 2)) -> Callable[[], None]:
    return lambda: carry_out(steps, Context(keep=keep))


def need_root() -> None:
    if os.getuid() != 0:
        pytest.skip("the tests run as an ordinary user")


TOLD = 60  # by which descriptor a child tells that it is ready
ALLOW_ALL = b"\x06\0\0\0\0\0\xff\x7f"


def test_what_is_as_planned_is_found_right() -> None:
    uid, gid = os.getuid(), os.getgid()
    steps = s.NoNewPrivs(), s.Limits(values={"CORE": 1, "NOFILE": 30}), s.Filter(program=ALLOW_ALL)
    wanted = wanting(
        uid=uid,
        gid=gid,
        groups=tuple(os.getgroups()),
        effective=capability.get().effective,
        bounding=capability.bounding(),
        ambient=0,
        no_new_privs=True,
        seccomp_mode=2,
        filters=1,
        limits={"CORE": 1, "NOFILE": 30},
    )
    with living(do(*steps)) as pid:
        found = look(pid, wanted, Part.LATE)
    assert found.differences == ()
    assert found.unreadable == ()
    assert {"uid", "gid", "effective", "no_new_privs", "seccomp_mode", "limit CORE"} <= set(found.right)
    assert found.fault() is None


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (wanting(uid=1), "uid"),
        (wanting(gid=1), "gid"),
        (wanting(groups=(1, 2, 3)), "groups"),
        (wanting(effective=1 << 62), "effective"),
        (wanting(permitted=1 << 62), "permitted"),
        (wanting(inheritable=1), "inheritable"),
        (wanting(bounding=1), "bounding"),
        (wanting(ambient=1), "ambient"),
        (wanting(no_new_privs=True), "no_new_privs"),
        (wanting(seccomp_mode=2), "seccomp_mode"),
        (wanting(filters=1), "filters"),
        (wanting(limits={"CORE": 7}), "limit CORE"),
        (wanting(mounts=()), "mounts"),
        (wanting(descriptors=(0,)), "descriptors"),
        (wanting(oom_score=777), "oom_score"),
        (wanting(above_image=1 << 50), "limit AS"),
    ],
)
def test_each_difference_is_found_and_is_a_fault(wanted: Expected, name: str) -> None:
    with living(lambda: None) as pid:
        found = look(pid, wanted, Part.LATE)
    assert {each.field for each in found.differences} == {name}
    fault = found.fault(may_miss=tuple(Promise))  # a difference is never forgiven
    assert isinstance(fault, HostError)
    assert name in str(fault)


def test_capabilities_left_by_locked_securebits_are_seen() -> None:
    """The hole that only the look from outside showed when the prototype was made."""
    need_root()
    steps = s.Securebits(), s.SetIds(uid=ORDINARY, gid=ORDINARY)
    wanted = wanting(uid=ORDINARY, gid=ORDINARY, groups=(), effective=0)
    with living(do(*steps)) as pid:
        assert [each.field for each in look(pid, wanted, Part.LATE).differences] == ["effective"]
    with living(do(*steps, s.SetCapabilities())) as pid:
        assert look(pid, wanted, Part.LATE).differences == ()


def test_the_ids_of_the_request_count_where_there_are_some() -> None:
    need_root()
    sight = Sight(uid=61_210, gid=61_210, groups=())
    with living(do(s.SetIds(uid=61_210, gid=61_210))) as pid:
        assert look(pid, wanting(uid=1, gid=1), Part.LATE, sight).differences == ()


def test_namespaces_are_told_apart() -> None:
    skip_unless("root")
    wanted = wanting(namespaces={"uts": "own", "ipc": "monitor", "net": "monitor"})
    with living(lambda: None, clone.CLONE_NEWUTS) as pid:
        assert look(pid, wanted, Part.EARLY).differences == ()
        wrong = look(pid, structs.replace(wanted, namespaces={"uts": "monitor", "ipc": "own"}), Part.EARLY)
        assert [str(each) for each in wrong.differences] == [
            "namespace uts is own, and should be monitor",
            "namespace ipc is monitor, and should be own",
        ]
        sibling = look(pid, wanting(namespaces={"uts": "own"}), Part.EARLY, Sight(template=pid))
        assert [each.seen for each in sibling.differences] == ["template"]
        shared = look(pid, wanting(namespaces={"uts": "template"}), Part.EARLY, Sight(template=pid))
        assert shared.differences == ()


def test_a_template_that_cannot_be_read_proves_nothing() -> None:
    with living(lambda: None) as pid:
        found = look(pid, wanting(namespaces={"uts": "own"}), Part.EARLY, Sight(template=1 << 22))
    assert found.unreadable == (Unreadable("namespace uts", errno.EACCES),)
    assert isinstance(found.fault(), HostError)


def test_the_mounts_are_compared_with_their_attributes(folder: Path) -> None:
    skip_unless("root")
    if not detect().mount_setattr:
        pytest.skip("this kernel has no mount_setattr to weaken a mount with")
    data = s.Mount(kind="bind", at="/data", source=str(folder))
    line = ExpectedMount("/data")
    root = s.Unshare(namespaces=("mnt",)), s.NewRoot(mounts=(data,))
    with living(do(*root)) as pid:
        assert look(pid, wanting(mounts=(line,)), Part.LATE).right == ("mounts",)
        missing = look(pid, wanting(mounts=(line, ExpectedMount("/other"))), Part.LATE)
        assert [each.seen for each in missing.differences] == ["/other is not mounted"]
        extra = look(pid, wanting(mounts=()), Part.LATE)
        assert [each.seen for each in extra.differences] == ["/data is mounted, and was not asked for"]

    def weaken() -> None:
        do(*root)()
        mount.set_attributes(os.open("/data", os.O_PATH), 0, clear=mount.ATTR_RDONLY | mount.ATTR_NOSUID)

    with living(weaken) as pid:
        found = look(pid, wanting(mounts=(line,)), Part.LATE)
        assert [each.seen for each in found.differences] == ["/data is mounted without ro, nosuid"]


def test_a_descriptor_too_many_is_seen() -> None:
    three = {0: "pipe r", 1: "pipe w", 2: "socket"}

    def arrange() -> None:
        import socket

        reader, writer = os.pipe()
        a, _ = socket.socketpair()
        os.dup2(reader, 0)
        os.dup2(writer, 1)
        os.dup2(a.fileno(), 2)

    def exact() -> None:
        arrange()
        carry_out([s.CloseDescriptors()], Context(keep=(0, 1, 2, TOLD)))

    def one_more() -> None:
        arrange()
        extra = os.open("/etc/passwd", os.O_RDONLY)
        carry_out([s.CloseDescriptors()], Context(keep=(0, 1, 2, TOLD, extra)))

    table = {**three, TOLD: "pipe w"}
    with living(exact) as pid:
        assert look(pid, wanting(descriptors=(0, 1, 2, TOLD)), Part.LATE).right == ("descriptors",)
        assert look(pid, wanting(), Part.LATE, Sight(descriptors=table)).right == ("descriptors",)
        assert look(pid, wanting(), Part.LATE, Sight(descriptors=three)).differences != ()
        assert look(pid, wanting(), Part.LATE, Sight(descriptors=table | {0: "pipe w"})).differences != ()
        assert look(pid, wanting(), Part.LATE, Sight(descriptors=table | {0: "socket"})).differences != ()
    with living(one_more) as pid:
        assert "file" in look(pid, wanting(), Part.LATE, Sight(descriptors=table)).differences[0].seen
        assert look(pid, wanting(descriptors=(0, 1, 2, TOLD)), Part.LATE).differences != ()


def test_the_kinds_of_descriptors_are_told() -> None:
    def arrange() -> None:  # at numbers that nothing else of this process has
        import select

        os.dup2(os.open("/", os.O_RDONLY), 540)
        os.dup2(os.open("/dev/null", os.O_RDWR), 541)
        poll = select.epoll()
        os.dup2(poll.fileno(), 542)
        os.dup2(os.eventfd(0), 543)
        os.dup2(os.open("/etc/passwd", os.O_PATH), 544)
        os.dup2(os.memfd_create("x"), 545)

    with living(arrange) as pid:
        seen = look(pid, wanting(), Part.LATE, Sight(descriptors={544: "file path"})).differences[0].seen
    for text in (
        "540: 'directory'",
        "541: 'device'",
        "542: 'eventpoll'",
        "543: 'eventfd'",
        "544: 'file path'",
        "545: 'file'",
    ):
        assert text in seen


def test_memory_is_bounded_above_the_image() -> None:
    steps = (s.Limits(values={}, above_image=1 << 30),)

    def bounded() -> None:
        carry_out(steps, Context(image=1 << 30))

    wanted = wanting(above_image=1 << 30)
    with living(bounded) as pid:
        assert look(pid, wanted, Part.LATE).right == ("limit AS",)
        assert look(pid, wanted, Part.LATE, Sight(image=1 << 30)).right == ("limit AS",)
        assert look(pid, wanted, Part.LATE, Sight(image=1 << 29)).differences != ()


def test_a_process_that_is_gone_is_never_fine() -> None:
    found = look(1 << 22, wanting(uid=0), Part.LATE)
    assert found.right == ()
    assert found.unreadable == (Unreadable("process", errno.ENOENT),)
    assert found.fault() is not None


def test_a_zombie_is_never_fine() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found = look(pid, wanting(namespaces={"mnt": "monitor"}, descriptors=(0,)), Part.EARLY)
    late = look(pid, wanting(descriptors=(0,)), Part.LATE)
    os.waitpid(pid, 0)
    assert found.fault() is not None
    assert late.fault() is not None


def test_what_may_not_be_read_is_said_to_be_hidden() -> None:
    """A monitor without ptrace rights looks at a process that is not dumpable."""
    result = _look_as_ordinary(wanting(no_new_privs=False, descriptors=(0,)), Part.LATE)
    assert result.right == ("no_new_privs",)
    assert result.unreadable == (Unreadable("descriptors", errno.EACCES),)
    fault = result.fault()
    assert isinstance(fault, HostError)
    assert fault.errno == errno.EACCES
    assert result.fault(may_miss=(Promise.FILES,)) is None
    early = _look_as_ordinary(wanting(namespaces={"mnt": "monitor"}), Part.EARLY)
    assert early.unreadable == (Unreadable("namespace mnt", errno.EACCES),)


def _look_as_ordinary(wanted: Expected, part: Part) -> Look:
    from forked import in_child

    def watch() -> Look:
        become_ordinary()
        with living(do(s.NotDumpable())) as pid:
            return look(pid, wanted, part)

    found = in_child(watch)
    assert isinstance(found, Look)
    return found


def test_an_ordinary_monitor_sees_into_a_namespace_of_its_own_that_was_executed_in() -> None:
    from bunri.confine import detect

    if not detect().reads_not_dumpable:
        pytest.skip("this host hides processes that are not dumpable from their monitor")
    assert detect().reads_not_dumpable is True


def test_the_look_is_quick() -> None:
    """About 100 microseconds; here only that nobody made it a hundred times slower."""
    wanted = wanting(
        uid=os.getuid(), no_new_privs=False, seccomp_mode=0, limits={"CORE": 1}, mounts=None, descriptors=(0,)
    )
    with living(lambda: None) as pid:
        look(pid, wanted, Part.LATE)
        spent = []
        for _ in range(20):
            begin = time.perf_counter()
            look(pid, wanted, Part.LATE)
            spent.append(time.perf_counter() - begin)
    assert min(spent) < 0.01


def planned(*layers: Layer) -> Plan:
    return Plan(template=(), clone=Clone(), worker=(), layers=layers, expected=wanting())


def test_the_report_says_who_saw_each_layer() -> None:
    def layer(name: str, state: State = State.IN_FORCE) -> Layer:
        return Layer(None, name, state, None)

    plan = planned(
        layer("uid"),
        layer("Landlock files"),
        layer("filter"),
        layer("network namespace"),
        layer("mount namespace", State.MISSING),
        layer("address space"),
        layer("clocks"),
    )
    early = Look(Part.EARLY, (), (), (Unreadable("namespace net", errno.EACCES),))
    late = Look(Part.LATE, ("uid", "gid", "seccomp_mode", "filters", "limit AS"))
    found = report(plan, [early, late])
    seen = {each.name: each.observed_by for each in found.layers}
    assert seen == {
        "uid": Observer.MONITOR,
        "Landlock files": Observer.WORKER,
        "filter": Observer.MONITOR,
        "network namespace": Observer.WORKER,
        "mount namespace": None,
        "address space": Observer.MONITOR,
        "clocks": Observer.MONITOR,
    }
    assert "not to be read from outside" in found.layer("network namespace").detail
    assert any("namespace net" in note for note in found.notes)


def test_a_field_that_one_look_found_wrong_shows_nothing() -> None:
    plan = planned(Layer(None, "uid", State.IN_FORCE, None))
    looks = [Look(Part.LATE, ("uid", "gid")), Look(Part.LATE, (), (Difference("uid", "1", "0"),))]
    assert report(plan, looks).layers[0].observed_by is Observer.WORKER


def test_filters_of_the_template_and_of_the_worker_are_counted() -> None:
    twice = s.NoNewPrivs(), s.Filter(program=ALLOW_ALL), s.Filter(program=ALLOW_ALL)
    with living(do(*twice)) as pid:
        assert look(pid, wanting(filters=2), Part.LATE).differences == ()
        assert look(pid, wanting(filters=3), Part.LATE).differences != ()


def test_a_worker_in_a_user_namespace_of_its_own_shows_the_monitors_uid() -> None:
    skip_unless("root of a user namespace")

    def inside() -> Look:
        be("ordinary user")
        uid = os.getuid()
        with living(lambda: None, clone.CLONE_NEWUSER | clone.CLONE_NEWPID) as pid:
            wanted = wanting(uid=uid, namespaces={"user": "own", "pid": "own", "net": "monitor"})
            late = look(pid, wanted, Part.LATE)
            early = look(pid, wanted, Part.EARLY)
            return replace(late, right=late.right + early.right, differences=late.differences + early.differences)

    from forked import in_child

    found = in_child(inside)
    assert found.differences == ()
    assert set(found.right) == {"uid", "namespace user", "namespace pid", "namespace net"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can look with another's ids")
def test_a_root_without_ptrace_looks_with_the_workers_ids() -> None:
    """As in a container. The control is the same look with root's own ids."""
    expected = wanting(namespaces={"mnt": "monitor"})

    def looked(pid: int, *, as_worker: bool) -> Look:
        return look(pid, expected, Part.HELD, Sight(uid=ORDINARY, gid=ORDINARY, as_worker=as_worker))

    def fields(pid: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, int, int]]:
        mask = capability.get().effective & ~(1 << capability.SYS_PTRACE)
        capability.set_(capability.Sets(mask, mask, 0))
        hidden = tuple(each.field for each in looked(pid, as_worker=False).unreadable)
        right = looked(pid, as_worker=True).right
        return hidden, right, (os.geteuid(), prctl.dumpable(), capability.get().effective == mask)

    def at_its_checkpoint() -> None:
        become_ordinary()
        prctl.set_dumpable(1)

    with living(at_its_checkpoint) as pid:
        assert in_child(fields, pid) == (("namespace mnt",), ("namespace mnt",), (0, 1, True))
