"""Runs in: the monitor, on the program's loop. Turns of that loop (THREATS 23).

A worker sends one packet, and the loop may have to make thousands of objects of it, or of calls. Every worker has a turn
when it has something to say. One whose turn was long is then read no more by itself: it stands in a line until it has
nothing more to say, and of that line one has a turn each time that the loop goes round. Of those that come together from
elsewhere one has a long turn, and the others wait until the loop has gone round. So many greedy workers hold up the
others no longer than two do.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

LONGEST: Final = 0.002  # seconds; what is begun is ended, however long that takes


class _Round:
    """One loop, going round."""

    def __init__(self) -> None:
        self.is_full = False
        self.line: deque[Callable[[], None]] = deque()

    def begin(self) -> None:
        self.is_full = False


_rounds: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Round] = weakref.WeakKeyDictionary()


def is_full(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether somebody who stood in no line had a long turn, and the loop has not gone round since."""
    this = _rounds.get(loop)
    return this is not None and this.is_full


def fill(loop: asyncio.AbstractEventLoop) -> None:
    """On the loop: somebody who stood in no line had a long turn."""
    this = _rounds.setdefault(loop, _Round())
    this.is_full = True
    loop.call_soon(this.begin)  # before the loop looks who else has come


def wait_in_line(loop: asyncio.AbstractEventLoop, turn: Callable[[], None]) -> None:
    """On the loop: `turn` is called when those that stand there have had theirs."""
    line = _rounds.setdefault(loop, _Round()).line
    line.append(turn)
    if len(line) == 1:
        loop.call_soon(_next, loop)


def _next(loop: asyncio.AbstractEventLoop) -> None:
    line = _rounds[loop].line
    turn = line.popleft()
    if line:
        loop.call_soon(_next, loop)
    turn()
