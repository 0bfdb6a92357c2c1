"""Runs in: the test process, zygotes and workers. A module that sets uvloop's policy for whoever imports it, as some programs do."""

from __future__ import annotations

import asyncio
import warnings

import uvloop

import bunri

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # uvloop's own choice, and Python's opinion of it
    uvloop.install()


class Under(bunri.Compartment):
    async def pause(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds
