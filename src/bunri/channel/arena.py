"""Runs in: monitor and worker. A shared mapping for large bytes (THREATS 20).

The monitor makes the memfd and seals its size before anybody else has it, so no one can make a reader fault by
shrinking it. One per worker, never reused for another. Each direction has its own half: a side writes only into its
own half, and only ever *copies out* of the other, so what is decoded cannot change under the decoder.

A half is handed out from front to back, and is free again when the receiver has said so, in order.
When it is full, bytes travel in the socket instead.
"""

from __future__ import annotations

import mmap
from collections import deque

from bunri.errors import ProtocolError

SIZE = 8 << 20  # bytes, both halves together; pages cost memory only once they are written
SMALLEST = 32 << 10  # bytes; below this a copy through the socket is cheaper


class Arena:
    """One side's view of the mapping."""

    def __init__(self, mapping: mmap.mmap, *, lower: range, upper: range) -> None:
        """`lower` is the range this side writes, `upper` the one it reads."""
        self._map = mapping
        self._view = memoryview(mapping)
        self._mine = lower
        self._theirs = upper
        self._next = lower.start
        self._in_use: deque[tuple[int, int]] = deque()  # (start, end) in order of handing out

    @classmethod
    def of_monitor(cls, mapping: mmap.mmap) -> Arena:
        half = len(mapping) // 2
        return cls(mapping, lower=range(0, half), upper=range(half, len(mapping)))

    @classmethod
    def of_worker(cls, mapping: mmap.mmap) -> Arena:
        half = len(mapping) // 2
        return cls(mapping, lower=range(half, len(mapping)), upper=range(0, half))

    def put(self, data: memoryview) -> int | None:
        """Copy `data` in; its offset, or None where there is no room."""
        start = self._room(len(data))
        if start is None:
            return None
        end = start + len(data)
        self._view[start:end] = data
        self._in_use.append((start, end))
        self._next = end
        return start

    def take(self, offset: int, length: int) -> bytes:
        """Copy what the other side says it has written. ProtocolError where that is not in its half."""
        if length < 0 or offset < self._theirs.start or offset + length > self._theirs.stop:
            raise ProtocolError(f"an arena block at {offset}+{length} lies outside of the sender's half")
        return bytes(self._view[offset : offset + length])

    def freed(self, blocks: int) -> None:
        """The receiver has copied the `blocks` oldest blocks out. ProtocolError for more than there are."""
        if not 1 <= blocks <= len(self._in_use):
            raise ProtocolError(f"{blocks} arena blocks given back, {len(self._in_use)} are out")
        for _ in range(blocks):
            self._in_use.popleft()
        if not self._in_use:
            self._next = self._mine.start

    def close(self) -> None:
        """Unmap. Nothing of it may be in use."""
        self._view.release()
        self._map.close()

    def _room(self, length: int) -> int | None:
        if not self._in_use:
            return self._mine.start if length <= len(self._mine) else None
        oldest = self._in_use[0][0]
        if self._next >= oldest:  # free: behind `_next`, and before the oldest
            if self._next + length <= self._mine.stop:
                return self._next
            return self._mine.start if self._mine.start + length < oldest else None
        return self._next if self._next + length < oldest else None
