"""Runs in: zygotes of `staged.py`, for long: its import there does not end in time."""

from __future__ import annotations

import time

import bunri
from bunri.process import here

if here.kind() is here.Kind.ZYGOTE:
    time.sleep(30)


class SlowImport(bunri.Compartment):
    def ping(self) -> int:
        return 1
