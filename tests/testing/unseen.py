"""Runs in: threads of the test process, and confined workers. Compartments as a user's program has them."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import bunri

warmed: list[str] = []


@dataclass
class NotThere(Exception):
    name: str


class Log(bunri.Service):
    def note(self, text: str) -> int: ...

    @bunri.limit(calls=2)
    def guess(self, text: str) -> bool: ...

    async def slow(self, text: str) -> str: ...


class Everything(bunri.Compartment):
    preload = ("colorsys",)

    def __init__(self, start: int = 0, log: Log | None = None) -> None:
        self._n = start
        self._log = log

    @classmethod
    def warm_up(cls) -> None:
        warmed.append(cls.__name__)

    def add(self, n: int) -> int:
        self._n += n
        return self._n

    def where(self) -> tuple[int, str]:
        return os.getpid(), threading.current_thread().name

    def echo(self, data: bytes) -> bytes:
        return data

    def stop_here(self, image: str) -> str:
        breakpoint()
        return image.upper()

    def fail(self, text: str) -> None:
        raise ValueError(text)

    @bunri.raises(NotThere)
    def find(self, name: str) -> int:
        raise NotThere(name)

    def lies(self) -> int:
        return "no number"  # type: ignore[return-value]  # on purpose

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def rows(self, n: int) -> Iterator[int]:
        yield from range(n)

    def read(self, file: bunri.File) -> bytes:
        with file, file.as_file() as stream:
            return stream.read()

    def greet(self, peer: socket.socket) -> None:
        peer.sendall(b"hello")
        peer.close()

    def note(self, text: str) -> int:
        assert self._log is not None
        return self._log.note(text)

    def guess(self, times: int) -> list[bool]:
        assert self._log is not None
        return [self._log.guess("x") for _ in range(times)]

    def start_another(self) -> int:
        with Everything.start() as other:
            return other.add(1)


class Loop(bunri.Compartment):
    def __init__(self, log: Log | None = None) -> None:
        self._log = log
        self.cancelled = 0

    async def wait(self, seconds: float, value: int) -> int:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return value

    def was_cancelled(self) -> int:
        return self.cancelled

    async def ticks(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def ask(self, text: str) -> str:
        assert self._log is not None
        return await self._log.slow(text)


class Fails(bunri.Compartment):
    def __init__(self) -> None:
        raise RuntimeError("no")

    def ping(self) -> int:
        return 1


class Holes(bunri.Compartment):
    policy = bunri.Policy(files=bunri.AT_START)

    def ping(self) -> int:
        return 1


class Caller(bunri.Compartment):
    """Makes any system call; ctypes is loaded before there is a filter."""

    preload = ("ctypes",)
    policy = bunri.Policy()

    def make(self, number: int) -> int:
        """The errno, 0 for none."""
        import ctypes

        ctypes.set_errno(0)
        return ctypes.get_errno() if ctypes.CDLL(None, use_errno=True).syscall(number, 7, 7, 7, 7, 7, 7) == -1 else 0
