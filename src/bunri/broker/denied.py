"""Runs in: a broker's process, in development mode. What of a refused call is told to the monitor.

The number and the registers are the kernel's word. What a path or an address said is the broker's, read once from the
caller's memory; where it cannot be read it is left out. A worker that is refused without end is told of so often a
second, and the rest is counted: its calls stand still meanwhile, so it holds up nobody but itself.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import Final

from bunri.broker.messages import Denied, Refuser
from bunri.kernel.notify import Notification
from bunri.seccomp import POINTERS, Kind, Program, name_of

PER_SECOND: Final = 100
DEATH: Final = 0  # in place of an errno: there is no answer
_CODES: Final = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
_NOT_GRANTED: Final = _CODES | {errno.ENOENT}  # of a broker, that has nothing there
_LENGTHS: Final = {"connect": 2, "bind": 2, "sendto": 5}  # which argument says how long the address is
_READ: Final = ("a path", "a name", "a socket address")

ReadText = Callable[[Notification, int, int | None], str]


class Denials:
    """What the filter would have answered, and so many a second of what is to be told."""

    def __init__(self, filter: bytes) -> None:
        self._arch = os.uname().machine
        self._filter = Program.from_bytes(filter, arch=self._arch)
        self._second = 0
        self._told = 0
        self._untold = 0

    def by_filter(self, called: Notification) -> int | None:
        """The errno that the worker's filter has for this call, or DEATH; None for what its broker is to decide."""
        action = self._filter.decide(self._arch, called.number, called.args)
        if action.kind is Kind.NOTIFY:
            return None
        return action.data if action.kind is Kind.ERRNO else DEATH

    def is_one(self, code: int, layer: Refuser) -> bool:
        """Whether an errno means that something was not granted."""
        return layer == "seccomp filter" or code in (_NOT_GRANTED if layer == "broker" else _CODES)

    def of(self, called: Notification, code: int, layer: Refuser, read: ReadText) -> Denied | None:
        """What is to be told of this one; None where it is one too many."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._told = second, 0
        self._told += 1
        if self._told > PER_SECOND and code != DEATH:
            self._untold += 1
            return None
        untold, self._untold = self._untold, 0
        texts = tuple(self._texts(called, read))
        a, b, c, d, e, f = called.args
        return Denied(called.number, (a, b, c, d, e, f), code, layer, code == DEATH, texts, untold)

    def _texts(self, called: Notification, read: ReadText) -> list[tuple[int, str]]:
        name = name_of(self._arch, called.number) or ""
        found: list[tuple[int, str]] = []
        for index, what in POINTERS.get(name, {}).items():
            if what not in _READ or not called.args[index]:
                continue
            at = _LENGTHS.get(name)
            try:
                found.append((index, read(called, called.args[index], called.args[at] if at is not None else None)))
            except OSError:
                continue  # the argument is a bad one: what is not known is not told
        return found
