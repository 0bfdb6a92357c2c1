"""The compartments of these tests."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import bunri


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class NotFound(Exception):
    name: str


@dataclass
class Late(Exception):
    seconds: int
    why: str = field(kw_only=True)


class Plain(bunri.Compartment):
    """`def` methods."""

    def __init__(self, start: int = 0) -> None:
        self._n = start

    def add(self, n: int) -> int:
        self._n += n
        return self._n

    def echo(self, data: bytes) -> bytes:
        return data

    def moved(self, p: Point, *, dx: int = 1) -> Point:
        return Point(p.x + dx, p.y)

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def fail_by_name(self, *, text: str) -> None:
        raise ValueError(text)

    @bunri.raises(NotFound)
    def find(self, name: str) -> int:
        raise NotFound(name)

    @bunri.raises(KeyError)
    def look_up(self, name: str) -> int:
        raise KeyError(name)

    @bunri.raises(Late)
    def be_late(self, seconds: int, why: str) -> None:
        raise Late(seconds, why=why)

    def where(self, name: str) -> tuple[str, str]:
        return os.getcwd(), os.path.abspath(name)

    def zeros(self, n: int) -> bytes:
        return bytes(n)

    def zeros_twice(self, n: int) -> list[bytes]:
        return [bytes(n)] * 2

    def start_thread(self) -> None:
        threading.Thread(target=print).start()

    def ids(self) -> tuple[int, int, int]:
        return os.getpid(), os.getuid(), os.getgid()

    def say(self, text: str) -> None:
        print(text)
        print(text, file=sys.stderr)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def write_everywhere(self) -> None:
        gc.unfreeze()
        self._everything = gc.get_objects()  # which counts a reference to each

    def burn(self) -> None:
        while True:
            pass

    def die(self) -> None:
        os._exit(7)

    def rows(self, n: int) -> Iterator[int]:
        yield from range(n)

    def heard(self, pipe: bunri.File) -> Iterator[bytes]:
        """What is written to a pipe, as it comes."""
        while data := os.read(pipe.fileno(), 100):
            yield data

    def read_file(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()


class Fails(bunri.Compartment):
    """Its `__init__` raises."""

    def __init__(self) -> None:
        raise RuntimeError("no")

    def ping(self) -> int:
        return 1


class Choosy(bunri.Compartment):
    """`__init__` raises for some."""

    def __init__(self, wanted: str) -> None:
        if wanted != "me":
            raise ValueError("somebody else")

    def ping(self) -> int:
        return 1


class Wide(bunri.Compartment):
    """May have much memory, and has it, but for what is in it."""

    policy = bunri.Policy(memory="16G")

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def grow(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Dies(bunri.Compartment):
    """Is started, and dies by itself soon after."""

    policy = bunri.Policy(threads=1)

    def __init__(self) -> None:
        threading.Timer(0.05, os._exit, (3,)).start()

    def ping(self) -> int:
        time.sleep(1)
        return 1


class Async(bunri.Compartment):
    """`async def` methods."""

    async def wait(self, seconds: float, value: int) -> int:
        await asyncio.sleep(seconds)
        return value

    def now(self, value: int) -> int:
        return value

    async def ticks(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i


class Unbounded(bunri.Compartment):
    """No clock ends its calls."""

    policy = bunri.Policy(cpu=None)

    async def wait(self, seconds: float, value: int) -> int:
        await asyncio.sleep(seconds)
        return value


class Counter(bunri.Service):
    def count(self, by: int) -> int: ...


class Caller(bunri.Compartment):
    """Is handed a service."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def count_twice(self, by: int) -> int:
        self._counter.count(by)
        return self._counter.count(by)


class AsyncCounter(bunri.Service):
    async def count(self, by: int) -> int: ...


class AsyncCaller(bunri.Compartment):
    """Is handed a service, and has a loop."""

    def __init__(self, counter: AsyncCounter) -> None:
        self._counter = counter

    async def count_twice(self, by: int) -> int:
        await self._counter.count(by)
        return await self._counter.count(by)


class Noter(bunri.Compartment):
    """Asks a service in the middle of each call."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen: list[int] = []

    def note(self, n: int) -> int:
        self._seen.append(n)
        return self._counter.count(n)

    def seen(self) -> list[int]:
        return self._seen


class Handed(bunri.Compartment):
    """Is handed descriptors."""

    def read(self, file: bunri.File) -> bytes:
        with file, file.as_file() as stream:
            return stream.read()

    def greet(self, peer: socket.socket) -> None:
        peer.sendall(b"hello")
        peer.close()


class Feed(bunri.Service):
    def lines(self, n: int) -> AsyncIterator[bytes]: ...


class Taker(bunri.Compartment):
    """Takes a service's stream."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def take(self, n: int) -> int:
        seen = 0
        async for line in self._feed.lines(n):
            assert line[:4] == seen.to_bytes(4, "big")
            seen += 1
        return seen

    def now(self, value: int) -> int:
        return value


class Mapping(bunri.Compartment):
    """Was handed memory, and a file to compare with."""

    def __init__(self, memory: bunri.Mapped, file: bunri.File) -> None:
        self._memory = memory.buffer
        self._file = file

    def read(self) -> bytes:
        return bytes(self._memory)

    def held(self) -> list[int]:
        """The inodes of all its descriptors."""
        found: list[int] = []
        for number in range(256):
            try:
                found.append(os.fstat(number).st_ino)
            except OSError:
                continue
        return found
