"""A worker carries what workers need, and not what only a monitor does: every page of it is time at each start."""

from __future__ import annotations

import asyncio

import lean
import lean_looping

MONITORS = ("bunri.process.program", "bunri.process.pool", "bunri.process.spawn", "bunri.process.supervisor")


def test_a_worker_without_a_loop_carries_neither_asyncio_nor_the_monitors_part() -> None:
    with lean.Lean.start() as worker:
        loaded = worker.loaded()
    assert "bunri.process.worker" in loaded
    assert not {"asyncio", "ssl", *MONITORS} & {*loaded}


def test_a_worker_with_a_loop_has_asyncio_whether_its_module_imports_it_or_not() -> None:
    async def asked() -> list[str]:
        async with lean_looping.Looping.start() as worker:
            return await worker.loaded()

    loaded = asyncio.run(asked())
    assert "asyncio" in loaded
    assert not {*MONITORS} & {*loaded}


def test_a_worker_that_would_start_something_is_told_that_it_cannot() -> None:
    with lean.Lean.start() as worker:
        told = worker.refusals()
    assert len(told) == 4
    assert all("a worker was started while its module was being imported" in each for each in told)
