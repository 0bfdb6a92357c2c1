"""Runs in: the test process. What no checker has looked at is refused in a sentence, and nothing of it is taken for something else."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import parts
import pytest

import bunri
from bunri import fs

HERE = Path(__file__).parent
SYSTEM = bunri.Policy(files=[fs.system()])
ANY: Any = bunri  # as somebody who runs no checker sees it

WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "a deadline that is text": (lambda: ANY.deadline("2").__enter__(), r"deadline\('2'\)"),
    "a deadline that is None": (lambda: ANY.deadline(None).__enter__(), r"deadline\(None\)"),
    "a deadline that is a bool": (lambda: ANY.deadline(True).__enter__(), r"deadline\(True\)"),
    "a deadline that is not a number": (lambda: bunri.deadline(math.nan).__enter__(), r"deadline\(nan\)"),
    "a secret that is a number": (lambda: ANY.Secret(5), "takes bytes or a str, not a int"),
    "a file that is a path": (lambda: ANY.File("/etc/passwd"), r"File\.open"),
    "a file that is a bool": (lambda: ANY.File(True), "number of a descriptor"),
    "a file that is no descriptor": (lambda: bunri.File(-1), "number of a descriptor"),
    "a mapping of a path": (lambda: ANY.Mapped("x", 10), "number of a descriptor"),
    "a mapping of text": (lambda: ANY.Mapped(0, "10"), "at least one byte"),
    "a map over no method": (lambda: ANY.map(5, [1]), "takes a method of a stub"),
    "a call of an ordinary object": (lambda: bunri.call(parts.Plain().add, 1), "takes a method of a stub"),
    "prepare of a number": (lambda: ANY.prepare(5), "takes classes of compartments"),
    "prepare of an object": (lambda: ANY.prepare(parts.Plain()), "takes classes of compartments"),
    "prepare of a service": (lambda: ANY.prepare(parts.Counter), "takes classes of compartments"),
    "prepare of the base": (lambda: bunri.prepare(bunri.Compartment), "takes classes of compartments"),
    "start with too much": (lambda: parts.Plain.start(1, 2), r"Plain\.__init__\(.*\): too many"),  # type: ignore[call-arg]
    "spawn without a policy": (lambda: ANY.spawn(["true"], None), "takes a Policy second"),
    "spawn with a stream of text": (lambda: ANY.spawn(["true"], SYSTEM, stdin="x"), "is no stream"),
    "spawn with a stream of bool": (lambda: ANY.spawn(["true"], SYSTEM, stdin=True), "is no stream"),
    "spawn with an environment of text": (lambda: ANY.spawn(["true"], SYSTEM, env="A=1"), "a dict of strings"),
    "spawn in a number": (lambda: ANY.spawn(["true"], SYSTEM, cwd=5), "a path is a str"),
    "spawn in a relative folder": (lambda: bunri.spawn(["true"], SYSTEM, cwd="etc"), "is relative"),
    "confine without a policy": (lambda: ANY.confine(None), "takes a Policy first"),
    "confine with a bool": (lambda: ANY.confine(bunri.Policy(), zygotes=False), r"Zygotes\.END"),
    "confine that keeps a number": (lambda: ANY.confine(bunri.Policy(), keep=1), "a list is needed"),
    "confine that keeps text": (lambda: ANY.confine(bunri.Policy(), keep=["x"]), "neither a descriptor"),
    "confine that keeps a bool": (lambda: ANY.confine(bunri.Policy(), keep=[True]), "neither a descriptor"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_cannot_be_meant_is_said(what: str) -> None:
    wrong, said = WRONG[what]
    with pytest.raises(bunri.UsageError, match=said):
        wrong()
    os.fstat(1)  # nobody took it for a file, and closed it


@pytest.mark.parametrize("seconds", [5, 5.5, Fraction(11, 2), math.inf])
def test_any_real_number_is_a_deadline(seconds: Any) -> None:
    with parts.Plain.start() as worker, bunri.deadline(seconds):
        assert worker.add(1) == 1


def test_a_stream_that_is_closed_is_none() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    file = bunri.File(reader)
    file.close()
    with pytest.raises(bunri.UsageError, match="is not open"):
        bunri.spawn(["true"], SYSTEM, stdin=file)


def test_a_process_that_has_confined_itself_says_that_it_starts_nothing() -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import bunri, parts
bunri.confine(bunri.Policy(user=bunri.User.same(), may_miss=list(bunri.Promise)))
for start in (parts.Plain.start, lambda: parts.Plain.pool(2), lambda: bunri.prepare(parts.Plain), lambda: bunri.spawn(["true"], bunri.Policy())):
    try:
        start()
    except bunri.UsageError as fault:
        print(fault)
"""
    done = subprocess.run([sys.executable, "-c", code, str(HERE)], capture_output=True, text=True, timeout=60)
    said = done.stdout.splitlines()
    assert len(said) == 4, done.stdout + done.stderr
    assert all(line.startswith("this process has confined itself") for line in said), said
