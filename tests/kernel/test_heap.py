"""Runs in: the test process and its children. The heap of a worker that can ask the kernel for no memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from forked import Died, in_child

from bunri import filters
from bunri.kernel import heap
from bunri.seccomp import Action, compile, kill

NONE_IS_ASKED_FOR = compile(
    [kill("mmap", "mremap", "brk", reason="memory from the kernel")],
    arch=os.uname().machine,
    default=Action.ALLOW,
    unknown=Action.ALLOW,
)


def objects(prepare: Callable[[], None]) -> Any:
    """How many objects a child makes three times over, where asking the kernel for memory is death."""

    def child() -> int:
        heap.grow(96 << 20)
        prepare()
        filters.install(NONE_IS_ASKED_FOR)
        return [len([str(n) for n in range(300_000)]) for _ in range(3)][-1]

    return in_child(child)


@pytest.mark.parametrize("prepare", [heap.take_arenas_from_heap, heap.have_no_arenas])
def test_small_objects_come_from_the_heap(prepare: Callable[[], None]) -> None:
    assert objects(prepare) == 300_000


def test_without_that_the_interpreter_asks_for_arenas() -> None:
    """The control. Where mmap is refused and not death, each object would be a call in vain."""
    assert objects(lambda: None) == Died(signal.SIGSYS)


def test_what_is_free_is_given_back() -> None:
    """Behind something that stays, where the C library by itself gives nothing back."""

    def child() -> tuple[int, int]:
        held = [bytes(3000) for _ in range(3000)]
        last = bytes(3000)
        held.clear()
        before = resident()
        heap.trim()
        return before - resident(), len(last)

    given_back, _ = in_child(child)
    assert given_back > 4 << 20


def resident() -> int:
    """Bytes (proc_pid_statm(5))."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
