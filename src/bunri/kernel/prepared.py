"""Runs in: a template, which makes system calls ready, and its workers, which do them. It decides nothing.

After a fork every page that a process touches is copied, and for CPython touching is as little as naming an object. A
worker that went through our modules step by step took some six hundred page faults until it was ready. So what can be
known before the clone is made before it: numbers, structs, addresses. The worker runs one loop over one list.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from bunri.kernel._call import NUMBERS, syscall_keeping_gil_raw

ANY = (1 << 63) - 1
_PIDFD_SELF, _MADV_POPULATE_WRITE = -10000, 23

Call = tuple[list[Any], int]
"""Number and six arguments, which may still be changed; the largest answer that is none of a failure."""


def call(name: str, *arguments: Any, most: int = ANY) -> Call:
    """A system call by name, to be done later. KeyError on an architecture that bunri does not know."""
    return [NUMBERS[name], *(*arguments, 0, 0, 0, 0, 0, 0)[:6]], most


def words(*values: int) -> ctypes.Array[ctypes.c_uint64]:
    """Memory that a call points to: 64 bits each, as struct rlimit has them. Keep it for as long as the call."""
    return (ctypes.c_uint64 * len(values))(*(value & 0xFFFFFFFFFFFFFFFF for value in values))


def ids(*values: int) -> ctypes.Array[ctypes.c_uint32]:
    """The same with 32 bits each, as setgroups(2) takes them."""
    return (ctypes.c_uint32 * len(values))(*values)


def refused(calls: Sequence[Call]) -> int:
    """Do them in order. -1, or the place of the first that was refused: nothing after it was done, and
    `ctypes.get_errno()` says why.

    The interpreter's lock is kept: for a process with one thread.
    """
    for index, (arguments, most) in enumerate(calls):
        if not 0 <= syscall_keeping_gil_raw(*arguments) <= most:
            return index
    return -1


class Copies:
    """The calls that copy memory which a process shares with the one it was forked from."""

    def __init__(self, memory: Sequence[int] = ()) -> None:
        """`memory`: address, bytes, address, bytes ..., as an array of struct iovec is."""
        pairs = list(zip(memory[::2], memory[1::2], strict=True))
        self._at_once = [call("process_madvise", _PIDFD_SELF, words(*memory), len(pairs), _MADV_POPULATE_WRITE)]
        self._one_by_one = [call("madvise", address, size, _MADV_POPULATE_WRITE) for address, size in pairs]

    def make(self) -> None:
        """In one call, which takes half the time (Linux 6.15), or in one for each. Before 5.14 those are refused as well, and the
        kernel copies each page when it is written to."""
        if self._one_by_one and refused(self._at_once) >= 0:
            refused(self._one_by_one)
