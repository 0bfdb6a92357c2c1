"""Runs in: a process that confines itself. What `confine` needs of bunri.process, which stands above it.

bunri.process registers itself when it is imported; a process that never did has no zygotes to end.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bunri.errors import InternalError


class Hooks(msgspec.Struct, frozen=True):
    """`end_zygotes` ends all zygotes, workers and bunri's own thread, and waits for them.

    `take_user` gives a dynamic uid and the descriptor that reserves it, which stays open for the life of the process.
    `note_confined` is told when all is given up: nothing can be started from here any more.
    """

    end_zygotes: Callable[[], None]
    take_user: Callable[[], tuple[int, int]]
    note_confined: Callable[[], None]


_registered: list[Hooks] = []


def register(hooks: Hooks) -> None:
    """Put these in the place of what was registered before."""
    _registered[:] = [hooks]


def end_zygotes() -> None:
    for hooks in _registered:
        hooks.end_zygotes()


def note_confined() -> None:
    for hooks in _registered:
        hooks.note_confined()


def take_user() -> tuple[int, int]:
    """A dynamic uid, and the descriptor that holds it."""
    for hooks in _registered:
        return hooks.take_user()
    raise InternalError("nobody hands out dynamic uids: bunri.process was never imported")
