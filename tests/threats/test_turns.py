"""THREATS 23: greedy workers have turns of the program's loop, one after the other, and the others theirs between them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import pytest
from asking import Asking, Slow

import bunri
from bunri.process import turns

GREEDY = 8
ON_AND_ON = "body = lists(20_000)\nfor n in range(1, 10_000): ask('lists', body, n)"
IN_STEP = "body = lists(20_000)\nfor n in range(1, 10_000): time.sleep(1 - time.time() % 1); ask('lists', body, n)"
ROOMY = Asking.policy.with_(memory="64M")


class Counted(Slow):
    """Counts what is served."""

    def __init__(self) -> None:
        self.served = 0

    async def lists(self, lists: list[list[int]]) -> int:
        self.served += 1
        return len(lists)


@pytest.fixture(autouse=True)
def _every_turn_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the quickest machine too those of the greedy are."""
    monkeypatch.setattr(turns, "LONGEST", 0.0005)


@contextlib.asynccontextmanager
async def _workers(*codes: str) -> AsyncGenerator[Counted]:
    counted = Counted()
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(Asking.start_under(ROOMY, counted)) for _ in codes]
        calls = [bunri.call(each.run_code, code) for each, code in zip(workers, codes, strict=True)]
        while counted.served < 2 * GREEDY:
            await asyncio.sleep(0.01)
        yield counted
        for call in calls:
            call.cancel()


async def _busy_while_they_come() -> None:
    """Over the second at which those that are in step say something: all are found at one time."""
    await asyncio.sleep((1.9 - time.time()) % 1)
    time.sleep(0.3)


async def _in_one_round(code: str) -> int:
    """How many calls of the greedy are served at the most while the loop goes round once: what everybody waits for."""
    most = 0
    async with _workers(*[code] * GREEDY) as counted:
        for _ in range(2):
            await _busy_while_they_come()
            for _ in range(5):
                before = counted.served
                await asyncio.sleep(0)
                most = max(most, counted.served - before)
    return most


@pytest.mark.parametrize("code", [ON_AND_ON, IN_STEP])
def test_threat_23_greedy_workers_wait_for_each_other_and_nobody_for_them_all(code: str) -> None:
    assert asyncio.run(_in_one_round(code)) <= 2


@pytest.mark.parametrize(
    ("missing", "code"), [("wait_in_line", ON_AND_ON), ("fill", IN_STEP)], ids=["no line", "no round"]
)
def test_threat_23_control_everybody_waits_for_them_all(
    missing: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the line; and, of those that nobody knows yet, where each has a long turn at once."""
    if missing == "wait_in_line":
        monkeypatch.setattr(turns, "LONGEST", 1000.0)
    else:
        monkeypatch.setattr(turns, "fill", lambda loop: None)
    assert asyncio.run(_in_one_round(code)) >= GREEDY / 2
