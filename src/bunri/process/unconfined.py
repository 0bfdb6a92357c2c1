"""Runs in: a test process, or one in development mode. Compartments as threads of this process, for debugging.

Same wire, same checks, no kernel: pdb, coverage and profilers work, and nothing is confined. The report says so.
"""

from __future__ import annotations

from typing import Any

from bunri.compartment import Compartment
from bunri.policy import Policy
from bunri.wire import Contract

active = 0  # depth of bunri.testing.unconfined() blocks


def unconfined_start(cls: type[Compartment], policy: Policy, contract: Contract, bound: tuple[Any, ...]) -> Any:
    """The target of a stub whose object lives in a thread; None where compartments are confined."""
    if not active:
        return None
    from bunri.testing._thread import InThread

    return InThread(cls, policy, contract, bound)
