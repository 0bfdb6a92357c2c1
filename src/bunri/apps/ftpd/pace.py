"""Runs in: the monitor. How often a session is served: who asks for more than his share waits, and nobody else does."""

from __future__ import annotations

import asyncio


class Pace:
    """Each thing costs so many seconds, and is paid for by waiting; some seconds' worth is had at once."""

    def __init__(self, ahead: float) -> None:
        """`ahead`: seconds."""
        self._ahead = ahead
        self._due = 0.0

    def left(self, cost: float) -> float:
        """After something that costs so many seconds: how many are left to wait; 0 or less where none are."""
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - self._ahead) + cost
        return self._due - now
