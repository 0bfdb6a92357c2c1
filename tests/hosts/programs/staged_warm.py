"""Runs in: zygotes of `staged.py`, for long: its `warm_up` does not end in time."""

from __future__ import annotations

import time

import bunri


class SlowWarmUp(bunri.Compartment):
    @classmethod
    def warm_up(cls) -> None:
        time.sleep(30)

    def ping(self) -> int:
        return 1
