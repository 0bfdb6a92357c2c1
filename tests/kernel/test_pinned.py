"""Runs in: children of the test process. Memory that a fork copies at once."""

from __future__ import annotations

import ctypes
import errno
import mmap
import resource
from collections.abc import Iterator

import pytest
from forked import become_ordinary, errno_of, in_child

from bunri.kernel import prctl, procfs
from bunri.kernel._call import syscall_raw
from bunri.kernel.pinned import Pinned, open_ring

PAGE = mmap.PAGESIZE
PAGES = 8
IO_URING_ENTER = 426


class Memory:
    """A few pages, written to, that a fork shares."""

    def __init__(self, rights: int = mmap.PROT_READ | mmap.PROT_WRITE) -> None:
        self._map = mmap.mmap(-1, PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.write(b"x" * len(self._map))
        self._view = (ctypes.c_char * len(self._map)).from_buffer(self._map)
        self.start = ctypes.addressof(self._view)
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(self.start), ctypes.c_size_t(PAGES * PAGE), rights)

    def runs(self, *pages: int) -> list[int]:
        return [word for page in pages for word in (self.start + page * PAGE, PAGE)]

    def own_pages(self) -> set[int]:
        """Those that no other process has."""
        found = procfs.private_pages(procfs.open_process("self"), 1 << 24)
        return {(address - self.start) // PAGE for address, own in found if own} & set(range(PAGES))

    def close(self) -> None:
        del self._view
        self._map.close()


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def _has_rings() -> None:
    if in_child(errno_of, open_ring) != 0:
        pytest.skip("this host has no io_uring, or lets us have none")


def of_a_child(memory: Memory) -> set[int]:
    return in_child(memory.own_pages)  # type: ignore[no-any-return]


def test_a_fork_copies_what_is_pinned_and_shares_the_rest(memory: Memory) -> None:
    """And what is not pinned is shared, until one of them writes to it."""

    def parent() -> tuple[set[int], list[int], set[int]]:
        before = of_a_child(memory)
        return before, Pinned(open_ring()).hold(memory.runs(0, 3, 6)), of_a_child(memory)

    assert in_child(parent) == (set(), [], {0, 3, 6})


def test_the_copies_are_apart(memory: Memory) -> None:
    def parent() -> tuple[bytes, bytes]:
        Pinned(open_ring()).hold(memory.runs(1))

        def child() -> bytes:
            seen = ctypes.string_at(memory.start + PAGE, 1)
            ctypes.memset(memory.start + PAGE, ord("c"), 1)
            return seen

        ctypes.memset(memory.start + PAGE, ord("p"), 1)
        return in_child(child), ctypes.string_at(memory.start + PAGE, 1)

    assert in_child(parent) == (b"p", b"p")


def test_what_is_held_takes_the_place_of_what_was(memory: Memory) -> None:
    def parent() -> list[set[int]]:
        held, seen = Pinned(open_ring()), []
        for pages in ((0, 1, 2), (2, 7), ()):
            assert held.hold(memory.runs(*pages)) == []
            seen.append(of_a_child(memory))
        return seen

    assert in_child(parent) == [{0, 1, 2}, {2, 7}, set()]


def test_what_cannot_be_pinned_is_named_and_the_rest_is_held(memory: Memory) -> None:
    """The table takes all or none: one run that may not be written to would else leave the worker all its copies."""

    def parent() -> tuple[bool, set[int]]:
        fixed = Memory(mmap.PROT_READ)
        left = Pinned(open_ring()).hold([*memory.runs(0, 1), *fixed.runs(4), *memory.runs(5)])
        return left == fixed.runs(4), of_a_child(memory)

    assert in_child(parent) == (True, {0, 1, 5})


def test_a_limit_holds(memory: Memory) -> None:
    """An ordinary user pins no more than RLIMIT_MEMLOCK: then nothing is held, and all of it is named."""

    def parent(most: int | None) -> tuple[bool, set[int]]:
        become_ordinary()
        held = Pinned(open_ring())
        if most is not None:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
        return held.hold(memory.runs(2, 4)) == memory.runs(2, 4), of_a_child(memory)

    assert in_child(parent, 0) == (True, set())
    assert in_child(parent, None) == (False, {2, 4})


def test_nothing_can_be_submitted_to_the_ring() -> None:
    """It was made disabled: not even its owner has any I/O done by it."""

    def parent() -> int:
        answer = syscall_raw(IO_URING_ENTER, open_ring(), 1, 0, 0, None, 0)
        return ctypes.get_errno() if answer < 0 else 0

    assert in_child(parent) == errno.EBADFD


def test_without_a_ring_nothing_is_pinned(memory: Memory) -> None:
    def parent() -> tuple[bool, set[int]]:
        return Pinned(-1).hold(memory.runs(0)) == memory.runs(0), of_a_child(memory)

    assert in_child(parent) == (True, set())


def test_small_pages_are_for_the_template_alone() -> None:
    """What is pinned of a huge page has a fork copy all of it, so a template has none; its workers may."""

    def parent() -> tuple[bool, bool]:
        prctl.set_small_pages()
        return prctl.small_pages(), in_child(back)

    def back() -> bool:
        prctl.prctl(prctl.SET_THP_DISABLE, "PR_SET_THP_DISABLE", 0)
        return prctl.small_pages()

    assert in_child(parent) == (True, False)
