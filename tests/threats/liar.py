"""A module whose import makes the zygote lie: it takes the confinement out of the worker's code."""

from __future__ import annotations

import bunri
from bunri.process import here


class Liar(bunri.Compartment):
    @classmethod
    def warm_up(cls) -> None:
        from bunri.process import worker

        if here.kind() is here.Kind.ZYGOTE:
            worker.carry_out = lambda steps, context: None  # type: ignore[assignment]
            do = worker.prepared.refused
            places = 5  # the calls at most by which it takes its places; the others are steps
            worker.prepared.refused = lambda calls: do(calls) if len(calls) <= places else -1

    def uid(self) -> int:
        import os

        return os.getuid()
