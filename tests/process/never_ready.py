"""A module that a zygote cannot warm up."""

from __future__ import annotations

import bunri


class NeverReady(bunri.Compartment):
    @classmethod
    def warm_up(cls) -> None:
        raise ValueError("the table is missing")

    def ping(self) -> int:
        return 1
