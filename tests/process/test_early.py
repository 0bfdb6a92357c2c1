"""Runs in: the test process, and programs of their own. What is begun early is used once, or it goes with the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bunri import early

HERE = Path(__file__).parent
ROOT = os.geteuid() == 0


def said(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_a_start_uses_what_was_begun() -> None:
    out = said("""
from bunri import early
early.begin()
probe, zygote = early._begun.probe, early._begun.zygote
import parts
from bunri.process import program
with parts.Plain.start() as worker:
    assert worker.add(2) == 2
assert probe.returncode == 0
print(zygote is None or zygote.process is program.current()._bases[0]._process, early._begun.probe, early._begun.zygote)
""")
    assert out == "True None None"


def test_what_nobody_asked_for_goes_with_the_program() -> None:
    pids = said("""
from bunri import early
early.begin()
early.begin()
print(*[each.pid for each in (early._begun.probe, early._begun.zygote and early._begun.zygote.process) if each])
""").split()
    assert len(pids) == (2 if ROOT else 1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_forked_child_has_none_of_it() -> None:
    out = said("""
import os
from bunri import early
early.begin()
if os.fork() == 0:
    os._exit(early._begun.probe is not None or early._begun.zygote is not None)
print(os.waitstatus_to_exitcode(os.wait()[1]), early._begun.probe.poll())
""")
    assert out == "0 None"


@pytest.mark.skipif(not ROOT, reason="of an ordinary user's zygote nothing is begun")
def test_a_zygote_in_other_namespaces_than_the_host_wants_is_ended() -> None:
    early.begin()
    begun = early._begun.zygote
    assert begun is not None
    other = early.zygote(own_namespace=True)
    try:
        assert begun.process.returncode is not None
        assert other.process.pid != begun.process.pid
        assert other.own_namespace
    finally:
        other.close()
        early._end()


def test_where_no_interpreter_can_be_started_it_is_said_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    early.begin()
    with pytest.raises(FileNotFoundError, match="/no/such/python"):
        early.probe()


FIRST = """
import sys
import time
from bunri import early
if {early}:
    early.begin()
    time.sleep(2)
import lean
with lean.Lean.start() as worker:
    print(worker.specialised(), "bunri.process.rehearsal" in worker.loaded())
"""


@pytest.mark.skipif(not ROOT, reason="of an ordinary user's zygote nothing is begun")
def test_a_zygote_that_has_time_rehearses_and_one_that_is_waited_for_does_not() -> None:
    specialised, has = said(FIRST.format(early=True)).split()
    assert (int(specialised) > 20, has) == (True, "True")
    specialised, has = said(FIRST.format(early=False)).split()
    assert (int(specialised) < 10, has) == (True, "False")


def test_a_rehearsal_leaves_nothing_open_and_ends_when_somebody_waits() -> None:
    out = said("""
import os
from bunri.process import here, rehearsal
here.become_zygote()
def opened():
    return sorted(os.listdir("/proc/self/fd"))
before, asked = opened(), []
rehearsal.rehearse(lambda: asked.append(1) or len(asked) < 3)
print(len(asked), opened() == before)
""")
    assert out == "3 True"


def test_ctrl_c_waits_until_the_public_names_are_there() -> None:
    """msgspec crashes where it comes while a decoder is made: one of fifty programs that were interrupted did."""
    out = said("""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "bunri.broker.messages":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
import bunri
try:
    bunri.Policy
except KeyboardInterrupt:
    print("interrupted", hasattr(sys.modules.get("bunri._public"), "Policy"))
print(bunri.Policy.__name__, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
""")
    assert out.splitlines() == ["interrupted True", "Policy set()"]
