"""Runs in: the monitor. The one place where a start may be told to confine nothing: `bunri.testing` sets it, for the
time of a block in a test run.

In a program it stays None. It is set by nothing that comes from outside: no environment variable, no file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from bunri.compartment import Compartment
    from bunri.policy import Policy
    from bunri.process.behind import Behind


class Factory(Protocol):
    """Makes what stands behind a stub, instead of a worker."""

    def make(self, cls: type[Compartment], policy: Policy, loop: asyncio.AbstractEventLoop | None) -> Behind: ...

    def prepare(self, cls: type[Compartment]) -> None: ...


factory: Factory | None = None


def exchange(new: Factory | None) -> Factory | None:
    """Put one in place, and return the one before."""
    global factory
    old, factory = factory, new
    return old
