"""Runs in: monitor and worker. Streams: items with credit, counted in items and in bytes (THREATS 23).

The giving side may have `WINDOW` items and `WINDOW_BYTES` bytes out that the taking side has not consumed; one item
may always be out, however large. The taking side gives credit back in order, and counts too: more than the window is
a ProtocolError.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from bunri.errors import ProtocolError

WINDOW = 16  # items
WINDOW_BYTES = 1 << 20
_OWED = 8  # credit is given back in portions


class Inflow:
    """The taking end of a stream."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.wake: Callable[[], None] | None = None  # set by whoever waits on a loop
        self._owed = 0
        self._sizes: deque[int] = deque()  # of what came, and was not given back yet
        self._bytes = 0

    def expect(self, size: int) -> None:
        """An item of so many bytes has come. ProtocolError where there is no credit for it."""
        if len(self._sizes) >= WINDOW:
            raise ProtocolError(f"a stream sent more than {WINDOW} items ahead")
        if self._bytes >= WINDOW_BYTES:
            raise ProtocolError(f"a stream sent {self._bytes} bytes ahead, and went on")
        self._sizes.append(size)
        self._bytes += size

    def put(self, item: Any) -> None:
        """The item itself."""
        self.items.append(item)
        self._tell()

    def take(self) -> tuple[Any, int]:
        """The next item, and the credit to give back now (0: not yet)."""
        item = self.items.popleft()
        self._owed += 1
        if self._owed < _OWED and self.items:
            return item, 0
        credit, self._owed = self._owed, 0
        for _ in range(credit):
            self._bytes -= self._sizes.popleft()
        return item, credit

    def end(self, error: BaseException | None) -> None:
        """No more items will come."""
        self.ended = True
        self.error = error
        self._tell()

    def _tell(self) -> None:
        if self.wake is not None:
            self.wake()


class Outflow:
    """The giving end of a stream."""

    def __init__(self) -> None:
        self.closed = False
        self.wake: Callable[[], None] | None = None
        self._sizes: deque[int] = deque()
        self._bytes = 0

    @property
    def may_send(self) -> bool:
        """Whether another item may go out now."""
        return not self._sizes or (len(self._sizes) < WINDOW and self._bytes < WINDOW_BYTES)

    def sent(self, size: int) -> None:
        self._sizes.append(size)
        self._bytes += size

    def credit(self, items: int) -> None:
        """The taking side has consumed `items`, the oldest."""
        if not 1 <= items <= len(self._sizes):
            raise ProtocolError(f"credit for {items} items, {len(self._sizes)} are out")
        for _ in range(items):
            self._bytes -= self._sizes.popleft()
        self._tell()

    def close(self) -> None:
        """The taking side wants no more."""
        self.closed = True
        self._tell()

    def _tell(self) -> None:
        if self.wake is not None:
            self.wake()
