"""Runs in: the test process; forked children confine themselves."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from forked import (
    ORDINARY,
    answer_descriptor,
    become_ordinary,
    errno_of,
    in_child,
    need_reachable_interpreter,
    skip_unless,
)

import bunri
from bunri.confine import Zygotes, _hooks
from bunri.confine import self as this
from bunri.errors import HostError, InternalError, Observer, Promise, UsageError
from bunri.kernel import capability, prctl, rlimit
from bunri.plan import steps as s
from bunri.plan.report import Layer, Report, State
from bunri.plan.value import Clone, Expected, Plan
from bunri.policy import Policy, User
from bunri.process import doors


def plan_of(*steps: s.AnyStep, clone: Clone | None = None) -> Plan:
    layers = (
        Layer(Promise.SYSCALLS, "seccomp filter", State.IN_FORCE, None),
        Layer(Promise.FILES, "mount namespace", State.MISSING, None),
    )
    return Plan(template=steps, clone=clone or Clone(), worker=(), layers=layers, expected=Expected())


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the plan that confine gets, and tells what it asked for."""
    asked: dict[str, Any] = {}

    def set_(plan: Plan) -> dict[str, Any]:
        def give(policy: object, host: object, needs: object, **rest: object) -> Plan:
            asked.update(rest, policy=policy, host=host, needs=needs)
            return plan

        monkeypatch.setattr("bunri.plan.plan", give)
        return asked

    return set_


def confine_in_child(**options: Any) -> Report:
    """The report of a child that has confined itself, keeping what it needs to answer."""

    def child() -> Report:
        keep = (*options.pop("keep", (0, 1, 2)), answer_descriptor())
        return this.confine(options.pop("policy", Policy(user=User.same())), keep=keep, **options)

    found = in_child(child)
    assert isinstance(found, Report)
    return found


def test_what_is_not_kept_is_closed_and_what_is_kept_is_listed(planned: Any) -> None:
    planned(plan_of())

    def child() -> Any:
        a, b = socket.socketpair()
        closed = os.open("/etc/passwd", os.O_RDONLY)
        report = this.confine(Policy(user=User.same()), keep=(a, answer_descriptor()))
        return errno_of(os.fstat, closed), errno_of(os.fstat, b.detach()), os.fstat(a.fileno()) is not None, report

    closed, other, open_, report = in_child(child)
    assert (closed, other, open_) == (errno.EBADF, errno.EBADF, True)
    note = next(note for note in report.notes if note.startswith("stayed open"))
    assert "(socket, rw)" in note
    assert "(pipe, w)" in note
    assert "(file" not in note


def test_a_descriptor_that_is_not_open_cannot_be_kept(planned: Any) -> None:
    planned(plan_of())

    def child() -> str:
        with pytest.raises(UsageError) as caught:
            this.confine(Policy(user=User.same()), keep=(answer_descriptor(), 999))
        return str(caught.value)

    assert "999" in in_child(child)


def test_a_process_confines_itself_once(planned: Any) -> None:
    planned(plan_of())

    def child() -> str:
        this.confine(Policy(user=User.same()), keep=(answer_descriptor(),))
        with pytest.raises(UsageError) as caught:
            this.confine(Policy(user=User.same(), memory="64M"), keep=(answer_descriptor(),))
        return str(caught.value)

    assert "does so once" in in_child(child)


def test_a_running_loop_is_not_deprived_of_what_it_waits_with(planned: Any) -> None:
    planned(plan_of(s.NoNewPrivs()))

    def child() -> Any:
        async def main() -> str:
            with pytest.raises(UsageError) as caught:
                this.confine(Policy(user=User.same()), keep=(answer_descriptor(),))
            await asyncio.sleep(0.01)
            return str(caught.value)

        return asyncio.run(main()), prctl.no_new_privs()

    text, confined = in_child(child)
    assert "an event loop runs on this thread" in text
    assert confined is False


def test_what_a_profile_cannot_keep_open_is_said_in_the_words_of_who_confines_himself() -> None:
    def child(path: str) -> str:
        with open(path) as file, pytest.raises(UsageError) as caught:
            this.confine(Policy.compute().with_(user=User.same()), keep=(answer_descriptor(), file))
        return str(caught.value)

    assert in_child(child, __file__).startswith("among what stays open are handles")


def test_a_second_thread_is_refused_by_name(planned: Any) -> None:
    planned(plan_of(s.NoNewPrivs()))

    def child() -> Any:
        go = threading.Event()
        thread = threading.Thread(target=go.wait, name="the-second", daemon=True)
        thread.start()
        with pytest.raises(UsageError) as caught:
            this.confine(Policy(user=User.same()))
        go.set()
        return str(caught.value), prctl.no_new_privs()

    text, confined = in_child(child)
    assert "the-second" in text
    assert confined is False


def test_a_thread_that_has_ended_is_none() -> None:
    """Joined in Python, it may be listed by the kernel for a moment."""

    def child() -> int:
        for _ in range(300):
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            this._refuse_threads()
        return 300

    assert in_child(child) == 300


def test_without_the_refusal_a_second_thread_would_keep_its_rights() -> None:
    """The control: no_new_privs of one thread says nothing of the other."""

    def child() -> Any:
        go, done, seen = threading.Event(), threading.Event(), []

        def second() -> None:
            go.wait()
            seen.append(prctl.no_new_privs())
            done.set()

        threading.Thread(target=second, daemon=True).start()
        prctl.set_no_new_privs()
        go.set()
        done.wait()
        return prctl.no_new_privs(), seen

    assert in_child(child) == (True, [False])


def test_the_zygotes_are_ended_first_unless_the_danger_is_spelled(planned: Any) -> None:
    planned(plan_of())

    def child(zygotes: Zygotes) -> Any:
        ended: list[str] = []
        _hooks.register(_hooks.Hooks(lambda: ended.append("ended"), lambda: (0, 0), lambda: ended.append("noted")))
        report = this.confine(Policy(user=User.same()), keep=(answer_descriptor(),), zygotes=zygotes)
        return ended, [note for note in report.notes if "zygotes" in note]

    assert in_child(child, Zygotes.END) == (["ended", "noted"], [])
    ended, notes = in_child(child, Zygotes.DANGEROUS_KEEP)
    assert ended == []
    assert len(notes) == 1


def test_what_takes_a_clone_is_left_out_and_said(planned: Any) -> None:
    planned(plan_of(s.NewSession(), s.ParentDeath(), s.Checkpoint(), s.NoNewPrivs(), clone=Clone(("pid",))))
    report = confine_in_child()
    left = [note for note in report.notes if note.startswith("left out")]
    assert len(left) == 4
    assert any("pid" in note for note in left)


def test_the_report_has_the_kernels_word_for_what_is_in_force(planned: Any) -> None:
    planned(plan_of())
    report = confine_in_child()
    assert report.layer("seccomp filter").observed_by is Observer.KERNEL
    assert report.layer("mount namespace").observed_by is None


def test_what_stays_open_decides_what_stays_allowed(planned: Any, folder: Path) -> None:
    asked = planned(plan_of())

    def child() -> Any:
        listener = socket.create_server(("127.0.0.1", 0))
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        file = os.open(folder, os.O_TMPFILE | os.O_RDWR)
        this.confine(Policy(user=User.same()), keep=(listener, datagram, file, answer_descriptor()))
        needs = asked["needs"]
        return (
            needs.shape.value,
            needs.listening_sockets,
            needs.datagram_sockets,
            needs.stream_sockets,
            needs.files,
            needs.writable_files,
            needs.asynchronous,
        )

    assert in_child(child) == ("self", True, True, False, True, True, False)


def test_a_step_that_fails_ends_in_a_host_error_that_says_what_is_lost(planned: Any) -> None:
    planned(plan_of(s.NoNewPrivs(), s.Unshare(namespaces=("moon",))))

    def child() -> Any:
        with pytest.raises(HostError) as caught:
            this.confine(Policy(user=User.same()), keep=(answer_descriptor(),))
        return caught.value.layer, caught.value.errno, "End this process" in str(caught.value)

    assert in_child(child) == ("unshare", errno.EINVAL, True)


def test_root_becomes_a_dynamic_user_whose_reservation_stays_open(planned: Any, folder: Path) -> None:
    skip_unless("root")
    planned(plan_of(s.SetIds(), s.SetCapabilities()))

    def child() -> Any:
        reserved = os.open(folder, os.O_RDONLY)
        _hooks.register(_hooks.Hooks(lambda: None, lambda: (61_300, reserved), lambda: None))
        this.confine(Policy(), keep=(answer_descriptor(),))
        return os.getresuid(), tuple(capability.get()), errno_of(os.fstat, reserved), errno_of(os.setuid, 0)

    assert in_child(child) == ((61_300,) * 3, (0, 0, 0), 0, errno.EPERM)


def test_a_dynamic_user_needs_somebody_who_hands_out_uids(planned: Any) -> None:
    skip_unless("root")
    planned(plan_of())

    def child() -> bool:
        _hooks._registered.clear()
        with pytest.raises(InternalError):
            this.confine(Policy(), keep=(answer_descriptor(),))
        return True

    assert in_child(child)


def test_a_user_that_does_not_exist_is_a_usage_error(planned: Any) -> None:
    skip_unless("root")
    planned(plan_of())

    def child() -> str:
        with pytest.raises(UsageError) as caught:
            this.confine(Policy(user="no-such-user-here"), keep=(answer_descriptor(),))
        return str(caught.value)

    assert "no-such-user-here" in in_child(child)


def test_an_ordinary_user_stays_who_he_is(planned: Any) -> None:
    need_reachable_interpreter()
    asked = planned(plan_of(s.NoNewPrivs()))

    def child() -> Any:
        become_ordinary()
        this.confine(Policy(), keep=(answer_descriptor(),))
        return asked["account"].uid, os.getuid(), prctl.no_new_privs()

    wanted, uid, confined = in_child(child)
    assert wanted == uid
    assert uid == (ORDINARY if os.getuid() == 0 else os.getuid())
    assert confined


def test_a_program_that_has_worked_long_before_gets_its_budget_from_then_on(planned: Any) -> None:
    planned(plan_of(s.Limits(values={"CPU": 3}, reason="the test's")))

    def child() -> tuple[int, int, tuple[int, int]]:
        while time.process_time() < 1.1:
            pass
        before = int(time.process_time())
        this.confine(Policy(user=User.same()), keep=(0, 1, 2, answer_descriptor()))
        return before, int(time.process_time()), rlimit.get("CPU")

    before, after, (soft, hard) = in_child(child)
    assert before + 3 <= soft == hard <= after + 3
    assert before == 1


def test_the_public_name_is_the_function_whatever_was_imported_first() -> None:
    """The package that does the work has the same name."""
    assert bunri.confine is doors.confine
