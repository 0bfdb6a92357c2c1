"""Runs in: children of the test process. Calls made ready before a fork."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest
from forked import in_child

from bunri.kernel import prepared, procfs

PAGE = mmap.PAGESIZE
PAGES = 8


def kernel() -> tuple[int, ...]:
    return tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))


@pytest.mark.parametrize("how", ["in one call", "one by one", "not at all"])
def test_copies_are_made_before_anything_is_written(how: str) -> None:
    """Every other page, of memory that is its parent's until it is written to. Where the kernel knows no such vectors, each run has
    a call of its own."""
    if how != "not at all" and kernel() < (5, 14):
        pytest.skip("this kernel has no MADV_POPULATE_WRITE")
    with mmap.mmap(-1, PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as shared:
        shared.write(b"x" * len(shared))
        view = (ctypes.c_char * len(shared)).from_buffer(shared)
        start = ctypes.addressof(view)
        wanted = {start + number * PAGE for number in range(0, PAGES, 2)}
        copies = prepared.Copies([word for address in sorted(wanted) for word in (address, PAGE)])
        if how == "one by one":
            copies._at_once[0][0][1] = -1  # no such process

        def own() -> set[int]:
            if how != "not at all":
                copies.make()
            directory = procfs.open_process("self")
            every = range(start, start + len(shared))
            return {address for address, mine in procfs.private_pages(directory, 1 << 24) if mine and address in every}

        try:
            assert in_child(own) == (wanted if how != "not at all" else set())
        finally:
            del view


def test_the_one_call_is_taken_where_the_kernel_has_it() -> None:
    """So that it is not always the second way which is tested: Linux 6.15."""
    if kernel() < (6, 15):
        pytest.skip("this kernel has no PIDFD_SELF")
    with mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        view = (ctypes.c_char * PAGE).from_buffer(memory)
        try:
            assert prepared.refused(prepared.Copies((ctypes.addressof(view), PAGE))._at_once) == -1
        finally:
            del view
