"""Runs in: zygotes and workers of `staged.py`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

import bunri


class Busy(bunri.Compartment):
    def spin(self) -> None:
        while True:
            pass

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def ping(self) -> int:
        return os.getpid()

    def ticks(self) -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1
            time.sleep(0.01)


class Waits(bunri.Compartment):
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
