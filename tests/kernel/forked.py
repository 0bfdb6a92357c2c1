"""Runs in: the test process and its children. Does a thing in a forked child and brings its answer back.

What confines a process cannot be undone, so each test gives up a child. A child that hangs is ended by its own alarm.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from bunri.kernel import clone, prctl

ORDINARY = 64_990  # an id that nobody has; used where the tests run as root


@dataclass(frozen=True)
class Died:
    """The child was killed by a signal."""

    signal: int


class Failed(AssertionError):
    """The child raised."""


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns in a forked child; Died where a signal ended it; Failed with its traceback where it
    raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(writer, function, arguments)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return Died(os.WTERMSIG(status))
    good, value = pickle.loads(text)
    if not good:
        raise Failed(value)
    return value


def answer_descriptor() -> int:
    """In a child: by which descriptor it answers, for tests that close the others."""
    return _answers[-1]


_answers: list[int] = []


def _answer(writer: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> NoReturn:
    _answers.append(writer)
    signal.alarm(60)
    try:
        answer = (True, function(*arguments))
    except BaseException:
        answer = (False, traceback.format_exc())
    os.write(writer, pickle.dumps(answer))
    os._exit(0)


def errno_of(function: Callable[..., Any], *arguments: Any) -> int:
    """0, or the errno of the OSError that the call raised."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def become_ordinary() -> None:
    """Give up root, as setpriv does; nothing where the tests run as an ordinary user already."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(ORDINARY, ORDINARY, ORDINARY)
        os.setresuid(ORDINARY, ORDINARY, ORDINARY)
        prctl.set_dumpable(1)


def enter_user_namespace() -> None:
    """A user namespace of one's own in which we are 0, with all capabilities over it."""
    uid, gid = os.getuid(), os.getgid()
    clone.unshare(clone.CLONE_NEWUSER)
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def be(who: str) -> None:
    """Take the place that a test is about: "root", "ordinary user", or "root of a user namespace"."""
    if who != "root":
        become_ordinary()
    if who == "root of a user namespace":
        enter_user_namespace()


def _start_interpreter() -> int:
    become_ordinary()
    return subprocess.run([sys.executable, "-I", "-S", "-c", ""], cwd="/", capture_output=True).returncode


def need_reachable_interpreter() -> None:
    """Skip where the ordinary user that root's tests become may not execute this interpreter (under a home of
    root's)."""
    try:
        code = in_child(_start_interpreter)
    except Failed:
        code = -1
    if code:
        pytest.skip(f"uid {ORDINARY} may not execute {sys.executable}")


def _try_namespaces(who: str) -> int:
    be(who)
    return errno_of(clone.unshare, clone.CLONE_NEWNS)


def skip_unless(who: str) -> None:
    """Skip where this host does not let us be that."""
    if who == "root" and os.getuid() != 0:
        pytest.skip("the tests run as an ordinary user")
    if who != "ordinary user":
        try:
            answer = in_child(_try_namespaces, who)
        except Failed:
            pytest.skip("this host gives ordinary users no user namespaces")
        if answer:
            pytest.skip(f"{who} cannot make namespaces here: {os.strerror(answer)}")
