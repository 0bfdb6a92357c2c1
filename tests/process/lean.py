"""A compartment whose module imports next to nothing."""

from __future__ import annotations

import dis
import sys

import bunri
from bunri.channel.serving import WorkerSide


class Lean(bunri.Compartment):
    """Without a loop."""

    def loaded(self) -> list[str]:
        return sorted(sys.modules)

    def specialised(self) -> int:
        """Of the instructions that have begun it, those that CPython has specialised."""
        plain, now = (dis.get_instructions(WorkerSide._start, adaptive=adaptive) for adaptive in (False, True))
        return sum(one.opname != other.opname for one, other in zip(plain, now, strict=True))

    def refusals(self) -> list[str]:
        """What it is told that tries to do as a monitor does."""
        starts = (Lean.start, lambda: Lean.pool(1), lambda: bunri.prepare(Lean), self._spawn)
        told: list[str] = []
        for start in starts:
            try:
                start()
            except bunri.UsageError as fault:
                told.append(str(fault))
        return told

    def confined(self) -> str:
        """What it is told that tries to confine itself further."""
        try:
            bunri.confine(bunri.Policy(user=bunri.User.same()))
        except bunri.UsageError as fault:
            return str(fault)
        return ""

    def _spawn(self) -> None:
        bunri.spawn(["true"], bunri.Policy())
