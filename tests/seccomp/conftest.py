"""Runs in: the test process. What the tests of filters share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from filtered_child import MACHINE, Call, answers

from bunri.seccomp import Program, arches

sys.path.append(str(Path(__file__).parent.parent / "kernel"))  # `forked`


@pytest.fixture
def kernel() -> Callable[[Program, Sequence[Call]], list[int] | int]:
    """`answers`, where this machine can install a filter at all."""
    if MACHINE not in arches():
        pytest.skip(f"no system call table for {MACHINE}")
    if "Seccomp:" not in Path("/proc/self/status").read_text():
        pytest.skip("this kernel has no seccomp")
    return answers
