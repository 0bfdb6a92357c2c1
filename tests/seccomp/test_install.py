"""Runs in: the test process; filters are installed in forked children. Installing: which threads, which rights, what is read back."""

from __future__ import annotations

import errno
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from forked import become_ordinary, errno_of, in_child

from bunri import filters
from bunri.errors import HostError, UsageError
from bunri.kernel import seccomp as kernel
from bunri.seccomp import MOST_INSTRUCTIONS, Action, Instruction, Program, arches, compile, deny

MACHINE = platform.machine()
pytestmark = pytest.mark.skipif(MACHINE not in arches(), reason=f"no system call table for {MACHINE}")

REFUSED = 93  # EPROTONOSUPPORT: no answer of these calls


def without(*calls: str) -> Program:
    rule = deny(*calls, with_=Action.errno(REFUSED), reason="tried")
    return compile([rule], arch=MACHINE, default=Action.ALLOW, unknown=Action.ALLOW)


def refused() -> bool:
    """Whether getpgid is, in the calling thread."""
    return errno_of(os.getpgid, 0) == REFUSED


class Other:
    """A thread that lives already, and looks when it is told to."""

    def __init__(self, first: Callable[[], object] = int) -> None:
        self._ready, self._go, self._saw = threading.Event(), threading.Event(), False
        self._first = first
        self.thread = threading.Thread(target=self._run, name="the-other", daemon=True)
        self.thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        self._first()
        self._ready.set()
        self._go.wait(10)
        self._saw = refused()

    def is_refused(self) -> bool:
        self._go.set()
        self.thread.join(10)
        return self._saw


def states() -> dict[str, tuple[str, str]]:
    """For each thread of this process, by name: no_new_privs and the seccomp mode."""
    found: dict[str, tuple[str, str]] = {}
    for task in Path("/proc/self/task").iterdir():
        text = (task / "status").read_text()
        fields = dict(re.findall(r"^(NoNewPrivs|Seccomp):\t(\d)$", text, re.MULTILINE))
        found["main" if task.name == str(os.getpid()) else "other"] = (fields["NoNewPrivs"], fields["Seccomp"])
    return found


def test_every_living_thread_is_filtered() -> None:
    def child() -> Any:
        become_ordinary()
        other = Other()
        before = states(), refused()
        filters.install(without("getpgid"))
        return before, states(), refused(), other.is_refused()

    before, after, here, there = in_child(child)
    assert before == ({"main": ("0", "0"), "other": ("0", "0")}, False)
    assert after == {"main": ("1", "2"), "other": ("1", "2")}
    assert here and there


def test_one_that_is_asked_for_this_thread_leaves_the_others_free() -> None:
    """The control: without TSYNC a thread that lives already keeps every call."""

    def child() -> Any:
        become_ordinary()
        other = Other()
        filters.install(without("getpgid"), threads=filters.Threads.DANGEROUS_ONLY_THIS)
        return states(), refused(), other.is_refused()

    after, here, there = in_child(child)
    assert after == {"main": ("1", "2"), "other": ("0", "0")}
    assert here and not there


def test_a_thread_that_cannot_follow_is_named_and_nobody_is_filtered() -> None:
    def child() -> Any:
        become_ordinary()
        own = filters.Threads.DANGEROUS_ONLY_THIS
        other = Other(lambda: filters.install(without("getsid"), threads=own))
        try:
            filters.install(without("getpgid"))
        except UsageError as fault:
            return str(fault), other.thread.native_id, refused(), other.is_refused()
        return None

    said, number, here, there = in_child(child)
    assert f"thread {number} (the-other) has a filter" in said
    assert not here and not there


def test_a_thread_made_later_inherits_the_filter() -> None:
    def child() -> Any:
        become_ordinary()
        filters.install(without("getpgid"))
        return Other().is_refused()

    assert in_child(child)


def test_it_needs_no_root_since_it_sets_no_new_privs() -> None:
    program = without("getpgid")

    def by_hand() -> int:
        become_ordinary()
        return errno_of(kernel.set_filter, program.to_bytes())

    def installed() -> bool:
        become_ordinary()
        filters.install(program)
        return refused()

    assert in_child(by_hand) == errno.EACCES
    assert in_child(installed)


def test_a_filter_of_another_architecture_is_refused_before_it_kills() -> None:
    other = next(arch for arch in arches() if arch != MACHINE)
    with pytest.raises(UsageError, match=f"arch='{MACHINE}'"):
        filters.install(compile([], arch=other, default=Action.ALLOW))


def test_more_instructions_than_the_kernel_takes_are_refused_with_the_remedy() -> None:
    longest = Program(MACHINE, (Instruction(0x06, 0, 0, Action.ALLOW.value),) * MOST_INSTRUCTIONS)

    def child() -> Any:
        become_ordinary()
        for count in range(20):
            try:
                filters.install(longest)
            except HostError as fault:
                return count, fault.errno, str(fault)
        return None

    count, number, said = in_child(child)
    assert count >= 1
    assert number == errno.ENOMEM
    assert "never taken off" in said


def test_the_bytes_of_equal_rules_are_made_once() -> None:
    assert without("getpgid", "getsid").to_bytes() is without("getpgid", "getsid").to_bytes()
    assert without("getpgid").to_bytes() != without("getsid").to_bytes()


# read back


@contextmanager
def filtered(*programs: Program) -> Generator[int]:
    """A process under these filters, in this order."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            for program in programs:
                filters.install(program)
            os.write(writer, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x"
        yield pid
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_was_installed_is_read_back() -> None:
    made = (without("getpgid"), without("getsid", "getpriority"), compile([], arch=MACHINE, default=Action.ALLOW))
    with filtered(*made) as pid:
        try:
            found = filters.installed(pid)
        except HostError as fault:
            if os.getuid() != 0 or fault.errno in (errno.EINVAL, errno.EACCES):
                pytest.skip(str(fault))
            raise
        assert found == made
        assert [program.decide(MACHINE, "getsid") for program in found] == [
            Action.ALLOW,
            Action.errno(REFUSED),
            Action.ALLOW,
        ]
        assert Path(f"/proc/{pid}/status").read_text().count("State:\tT") == 0  # it is not left standing still


def test_a_process_without_filters_has_none() -> None:
    with filtered() as pid:
        assert filters.installed(pid) == ()


def test_who_may_not_read_them_is_told() -> None:
    with filtered(without("getpgid")) as pid:

        def child() -> Any:
            become_ordinary()
            try:
                return filters.installed(pid)
            except HostError as fault:
                return fault.errno, str(fault)

        number, said = in_child(child)
        assert number in (errno.EPERM, errno.EACCES)
        assert "as root" in said
    with pytest.raises(ProcessLookupError):
        filters.installed(pid)
    with pytest.raises(UsageError, match="from another"):
        filters.installed(os.getpid())


def test_a_program_that_is_executed_later_is_filtered_too() -> None:
    def child() -> Any:
        filters.install(without("getpgid"))
        code = "import os\ntry: os.getpgid(0)\nexcept OSError as fault: raise SystemExit(fault.errno)"
        return subprocess.run([sys.executable, "-I", "-S", "-c", code], timeout=20).returncode

    assert in_child(child) == REFUSED
