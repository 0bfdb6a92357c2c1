"""Runs in: the monitor. What the services of this package need of bunri.process, which stands above it.

bunri.process registers itself when it is imported; in a process that never did there is nobody to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from bunri.broker.messages import Answer, Ask
from bunri.calls import Call
from bunri.errors import InternalError
from bunri.policy import User


class Wish(msgspec.Struct, frozen=True):
    """What a service wants a broker for: one thing. The process fills in numbers and addresses."""

    tree: str = ""
    writable: bool = False
    connect: tuple[str, int] | None = None
    listen: int = 0
    socket: str = ""
    looks_up: bool = False
    user: User | None = None  # None: the owner of the tree, or a uid of its own


class Agent(Protocol):
    """A broker's process, as a service sees it."""

    def ask(self, make: Callable[[int], Ask]) -> Call[tuple[Answer, int]]:
        """Ask it; `make` gets the number of the request. The answer, and the descriptor beside it or -1."""
        ...

    def drop(self) -> None:
        """Let it go."""
        ...


_registered: list[Callable[[Wish], Agent]] = []


def register(start: Callable[[Wish], Agent]) -> None:
    """Put this in the place of what was registered before."""
    _registered[:] = [start]


def start(wish: Wish) -> Agent:
    """A broker for this one wish."""
    for each in _registered:
        return each(wish)
    raise InternalError("nobody starts brokers: bunri.process was never imported")
