"""Runs in: the test process. Ctrl-C and SIGTERM at every stage of a program: it ends at once, and nothing of it is left."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import pytest
from hosting import PROGRAMS, Host, alive, running, until

pytestmark = pytest.mark.slow

STAGES = ("detecting", "importing", "warming", "calling", "streaming", "idle", "pooled", "waiting", "starting")


def reach(host: Host, word: str = "reached") -> None:
    assert host.process.stdout is not None
    for line in host.process.stdout:
        if line.startswith(word):
            return
    pytest.fail("it ended too early")


def interrupt(host: Host, number: int) -> int:
    """Ctrl-C goes to everybody in the terminal's foreground group; SIGTERM to the one process. The exit code."""
    those = host.family()
    if number == signal.SIGINT:
        os.killpg(host.process.pid, number)
    else:
        host.process.send_signal(number)
    code = host.process.wait(10)
    until(lambda: not alive(those), 8, f"the end of {those}")
    return code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "number"),
    [*((stage, signal.SIGINT) for stage in STAGES), *((stage, signal.SIGTERM) for stage in ("importing", "pooled"))],
)
def test_an_interrupted_program_ends_with_all_of_its_processes(stage: str, number: int) -> None:
    with running(sys.executable, PROGRAMS / "staged.py", stage) as host:
        reach(host)
        time.sleep(0.05)
        assert interrupt(host, number) == -number
        assert host.process.stdout is not None
        text = host.process.stdout.read()
        if number == signal.SIGINT:
            assert text.rstrip().endswith("KeyboardInterrupt"), text
            assert text.count("Traceback") == 1 or "During handling" in text or "direct cause" in text, text
        else:
            assert not text


@pytest.mark.slow
def test_interrupted_at_any_moment(request: pytest.FixtureRequest) -> None:
    """Whatever it is at, from the interpreter's start on. BUNRI_MOMENTS=200 for a long run."""
    chance = random.Random(7)
    for _ in range(int(os.environ.get("BUNRI_MOMENTS", "4"))):
        with running(sys.executable, PROGRAMS / "staged.py", chance.choice(["starting", "pooled", "calling"])) as host:
            time.sleep(chance.uniform(0.05, 0.9))
            code = interrupt(host, chance.choice([signal.SIGINT, signal.SIGTERM]))
            assert code in (-signal.SIGINT, -signal.SIGTERM, 1), code


def test_a_program_that_survives_ctrl_c_goes_on() -> None:
    with running(sys.executable, PROGRAMS / "staged.py", "goes_on") as host:
        reach(host)
        time.sleep(0.05)
        os.killpg(host.process.pid, signal.SIGINT)
        assert host.process.stdout is not None
        lines = host.process.stdout.read().splitlines()
        assert lines == ["interrupted", "died: spin was cancelled", "another"], lines
        assert host.process.wait(10) == 0


def test_sigkill_takes_all_with_it() -> None:
    with running(sys.executable, PROGRAMS / "staged.py", "calling") as host:
        reach(host)
        assert host.end(signal.SIGKILL) == -signal.SIGKILL
