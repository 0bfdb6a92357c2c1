"""Compartments whose calls of services wait, are cancelled, and cross other calls; and one that belongs to an attacker."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

import bunri
from bunri.channel.target import target_of
from bunri.wire import contract_of
from bunri.wire.frames import BLOCKING, FrameKind, pack


class Leaf(bunri.Service):
    async def touch(self) -> int: ...


class Desk(bunri.Service):
    async def think(self, number: int) -> int: ...

    async def add(self, number: int) -> int: ...

    @bunri.limit(concurrent=100)
    async def hold(self, file: bunri.File) -> int: ...

    @bunri.limit(concurrent=100)
    async def give_back(self, file: bunri.File) -> bunri.File: ...

    def ones(self, count: int) -> AsyncIterator[int]: ...

    async def leaf(self) -> Leaf: ...

    async def keep(self, data: bytes, files: list[bunri.File]) -> int: ...


class Asker(bunri.Compartment):
    """Asks, and is asked meanwhile."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def block_once(self) -> int:
        """A task that waits for a service in a blocking way, and then for long."""
        await asyncio.sleep(0)
        found = bunri.call(self._desk.think, 1).result()
        await asyncio.sleep(60)
        return found

    async def think_once(self) -> int:
        return await self._desk.think(1)

    async def wait(self) -> None:
        await asyncio.sleep(60)

    def now(self) -> int:
        return 7

    def rows(self, count: int) -> Iterator[int]:
        yield from range(count)

    async def cancel_the_second(self) -> int:
        """Both are in the monitor when it is cancelled."""
        first, second = bunri.call(self._desk.think, 1), bunri.call(self._desk.think, 2)
        await asyncio.sleep(0.05)
        second.cancel()
        return await first + await self._desk.think(3)

    async def cancel_at_once(self) -> int:
        """The call and its cancellation travel in one packet."""
        target = target_of(self._desk)
        think = next(each for each in contract_of(Desk).methods if each.name == "think")
        out = target.side.begin(target.number, think, (1,))
        target.side.post(FrameKind.CANCEL, call=out.number)
        return await self._desk.think(3)

    async def cancel_the_one_in_front(self, file: bunri.File) -> int:
        """Behind those that wait for a word: one more that finds no room, and the word."""
        holding = [bunri.call(self._desk.hold, file) for _ in range(8)]
        in_front = bunri.call(self._desk.hold, file)
        word = bunri.call(self._desk.add, 1)
        await asyncio.sleep(0.05)
        in_front.cancel()
        return await word + sum(await asyncio.gather(*holding))

    async def have_back(self, file: bunri.File, times: int) -> int:
        """So many files under way at one time, in both directions."""

        async def one() -> int:
            (await self._desk.give_back(file)).close()
            return 1

        return sum(await asyncio.gather(*[one() for _ in range(times)]))

    async def keep_beside(self, size: int, files: list[bunri.File]) -> int:
        """Beside a stream that lasts, one call of that size, or with so many files; and beside that a word, without which it
        does not end."""
        stream = self._desk.ones(1000)
        async for _ in stream:
            keeping = bunri.call(self._desk.keep, bytes(size), files)
            await asyncio.sleep(0.05)
            return await self._desk.add(1) + await keeping
        return 0

    async def sum_up(self, count: int) -> int:
        """A call for each item of a stream."""
        return sum([await self._desk.add(each) async for each in self._desk.ones(count)])

    async def sum_up_together(self, count: int, times: int) -> int:
        async def one() -> int:
            return sum([each async for each in self._desk.ones(count)])

        return sum(await asyncio.gather(*[one() for _ in range(times)]))

    async def leave_the_second(self, count: int) -> int:
        """Of three streams of one method, which are given one after the other."""
        first = self._desk.ones(count)
        found = await anext(first)
        second = asyncio.ensure_future(anext(self._desk.ones(count)))
        await asyncio.sleep(0.05)
        second.cancel()
        return found + sum([each async for each in first]) + sum([each async for each in self._desk.ones(count)])

    async def touch_leaves(self, count: int) -> int:
        return sum([await (await self._desk.leaf()).touch() for _ in range(count)])


class Rows(bunri.Service):
    def rows(self) -> Iterator[int]: ...


class Owned(bunri.Compartment):
    """An attacker's."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def ask_for_rows(self, numbers: list[int]) -> None:
        """Of which it takes none, but for an end of the last one; then it dies."""
        for number in numbers:
            os.write(3, pack(FrameKind.CALL, b"\x90", flags=BLOCKING, obj=1, call=number))
            time.sleep(0.1)
        os.write(3, pack(FrameKind.CLOSE, call=numbers[-1]))
        time.sleep(0.1)
        os._exit(1)
