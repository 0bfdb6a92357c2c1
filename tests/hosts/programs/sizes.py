"""Runs in: a host's process, zygotes and workers. What all the programs here confine: reading the size out of a GIF's header."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

import bunri


class Sizes(bunri.Compartment):
    """Trusts nothing it is given; `DIE` and `SLEEP` are what an attacker has made of it."""

    def size(self, image: bytes) -> tuple[int, int]:
        if image[:3] == b"DIE":
            os._exit(9)
        if image[:5] == b"SLEEP":
            time.sleep(60)
        if image[:4] != b"GIF8":
            raise ValueError("no GIF")
        return int.from_bytes(image[6:8], "little"), int.from_bytes(image[8:10], "little")

    def reads(self, path: str) -> int:
        with open(path, "rb") as file:
            return len(file.read())

    def pid(self) -> int:
        return os.getpid()

    def counts(self) -> Iterator[int]:
        yield from range(1000)


class SlowSizes(bunri.Compartment):
    """The same on a loop."""

    async def size(self, image: bytes, pause: float = 0.0) -> tuple[int, int]:
        await asyncio.sleep(pause)
        return int.from_bytes(image[6:8], "little"), int.from_bytes(image[8:10], "little")

    async def pid(self) -> int:
        return os.getpid()


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes(20)
