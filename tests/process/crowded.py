"""Compartments and a service that are handed many files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import bunri


class Taker(bunri.Service):
    async def take(self, file: bunri.File) -> int: ...

    async def size(self, data: bytes) -> int: ...

    def rows(self, count: int) -> AsyncIterator[int]: ...

    @bunri.limit(concurrent=256)
    async def hold(self, file: bunri.File) -> int: ...

    async def go_on(self) -> None: ...

    def note(self, data: bytes) -> None: ...


class Together(bunri.Compartment):
    """Holds what it is handed until it is told to go on, or for good."""

    def __init__(self) -> None:
        self._go = asyncio.Event()
        self._kept: list[bunri.File] = []

    async def hold(self, file: bunri.File) -> int:
        await self._go.wait()
        file.close()
        return 1

    async def stay(self) -> None:
        await self._go.wait()

    async def is_staying(self) -> bool:
        return not self._go.is_set()

    async def go_on(self) -> None:
        self._go.set()

    async def keep(self, file: bunri.File) -> int:
        self._kept.append(file)
        return len(self._kept)


class InTurn(bunri.Compartment):
    """The same, one after the other; and sends a file up many times."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._kept: list[bunri.File] = []

    def keep(self, file: bunri.File) -> int:
        self._kept.append(file)
        return len(self._kept)

    def send(self, file: bunri.File, times: int) -> int:
        return sum(call.result() for call in [bunri.call(self._taker.take, file) for _ in range(times)])

    def sizes(self, data: bytes, times: int) -> int:
        return sum(call.result() for call in [bunri.call(self._taker.size, data) for _ in range(times)])


class Asker(bunri.Compartment):
    """Asks for very much at one time."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker

    async def send(self, file: bunri.File, times: int) -> int:
        return sum(await asyncio.gather(*[self._taker.take(file) for _ in range(times)]))

    async def sizes(self, data: bytes, times: int) -> int:
        return sum(await asyncio.gather(*[self._taker.size(data) for _ in range(times)]))

    async def rows(self, count: int, times: int) -> int:
        async def all_of_one() -> int:
            return sum([row async for row in self._taker.rows(count)])

        return sum(await asyncio.gather(*[all_of_one() for _ in range(times)]))

    async def held_until_told(self, file: bunri.File, times: int) -> int:
        """What is held has an answer when the last call has come."""
        held = [bunri.call(self._taker.hold, file) for _ in range(times)]
        await self._taker.go_on()
        return sum(await asyncio.gather(*held))

    async def in_order(self, large: bytes, times: int) -> None:
        """Large and small ones of one method; and of a `def` method, which is answered on the way."""
        calls = [bunri.call(self._taker.size, large if n % 3 == 0 else b"x" * n) for n in range(times)]
        notes = [bunri.call(self._taker.note, large if n % 3 == 0 else b"x" * n) for n in range(times)]
        await asyncio.gather(*calls, *notes)

    async def size_of_the_first(self, times: int) -> int:
        """The others are cancelled before they have gone out, most of them."""
        calls = [bunri.call(self._taker.size, b"x") for _ in range(times)]
        for call in calls[1:]:
            call.cancel()
        return await calls[0]
