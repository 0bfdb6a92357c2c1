"""Runs in: a template. Memory that a fork copies at once. io_uring_register(2), Documentation/core-api/pin_user_pages.rst.

After a fork parent and child share each page until one of them writes to it: a fault, and then the copy. Memory that is
pinned for a device the kernel may not share so: the child has a copy of it when the fork returns, and the parent goes
on with its own. Where it is known what both will write to, that is half the work, for the one and for the other.

What pins it is the table of fixed buffers of an io_uring, and nothing else of it is used: the ring is made disabled and
is never enabled (IORING_SETUP_R_DISABLED), so that nothing can be submitted to it. A child has no use for the
descriptor, and closes it; what is pinned is its parent's memory. How much may be is a limit of the user's (RLIMIT_MEMLOCK).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from bunri.kernel._call import syscall
from bunri.kernel.prepared import words

_REGISTER_BUFFERS, _UNREGISTER_BUFFERS = 0, 1
_SETUP_R_DISABLED = 1 << 6
_FLAGS, _WORDS = 2, 30  # of struct io_uring_params, 32 bits each

Run = tuple[int, int]
"""Address and bytes."""


def open_ring() -> int:
    """A ring, disabled. EPERM where it is forbidden (io_uring_disabled) or refused by a container, ENOSYS where not built in."""
    parameters = (ctypes.c_uint32 * _WORDS)()
    parameters[_FLAGS] = _SETUP_R_DISABLED
    return syscall("io_uring_setup", 1, ctypes.byref(parameters))


class Pinned:
    """Memory of this process, held by a ring; by none (-1), nothing is ever held."""

    def __init__(self, ring: int) -> None:
        self.ring = ring
        self._held = False

    def hold(self, memory: Sequence[int]) -> list[int]:
        """Pin this memory, in place of what was pinned: address, bytes, address, bytes ... Returns what could not be.

        Before Linux 6.5 that is what was mapped from a file; everywhere, what is not this process's to write to.
        """
        if self._held:
            self._register(_UNREGISTER_BUFFERS, ())
            self._held = False
        runs = list(zip(memory[::2], memory[1::2], strict=True))
        pinned = self._hold_all(runs)
        return [word for run in runs if run not in pinned for word in run]

    def _hold_all(self, runs: Sequence[Run]) -> set[Run]:
        """Those that are held now."""
        if self.ring < 0 or not runs:
            return set()
        if not self._register(_REGISTER_BUFFERS, runs):
            runs = list(filter(self._would_hold, runs))
            if not runs or not self._register(_REGISTER_BUFFERS, runs):
                return set()
        self._held = True
        return set(runs)

    def _would_hold(self, run: Run) -> bool:
        """The table takes all or none, so what it refuses is found one by one."""
        return self._register(_REGISTER_BUFFERS, (run,)) and self._register(_UNREGISTER_BUFFERS, ())

    def _register(self, what: int, runs: Sequence[Run]) -> bool:
        vectors = words(*(word for run in runs for word in run)) if runs else None
        try:
            syscall("io_uring_register", self.ring, what, vectors, len(runs))
        except OSError:
            return False
        return True
