"""The compartments of the tests of grants."""

from __future__ import annotations

import os
import threading

import bunri
from bunri import AT_START, fs


class Reader(bunri.Compartment):
    """Is granted one folder to read, and a scratch of its own."""

    policy = bunri.Policy(files=[fs.read("/usr/share/zoneinfo"), fs.scratch("/scratch", "4M")])

    def read(self, path: str) -> int:
        with open(path, "rb") as file:
            return len(file.read())

    def listed(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def write(self, path: str, size: int) -> int:
        with open(path, "wb") as file:
            return file.write(b"x" * size)


class Home(bunri.Compartment):
    """Whose home, and as whom, is known when somebody has logged in."""

    policy = bunri.Policy(user=AT_START, files=AT_START)

    def uid(self) -> int:
        return os.getuid()

    def write(self, path: str, size: int) -> int:
        with open(path, "wb") as file:
            return file.write(b"x" * size)

    def move(self, path: str, to: str) -> None:
        os.makedirs(os.path.dirname(to), exist_ok=True)
        os.rename(path, to)

    def listed(self, path: str) -> list[str]:
        return sorted(os.listdir(path))


class Lazy(bunri.Compartment):
    """May import at any time."""

    policy = bunri.Policy(files=[fs.python()])

    def late(self) -> str:
        import wave

        return wave.__name__


class Computes(bunri.Compartment):
    """Has read and write, and nothing else."""

    policy = bunri.Policy.compute()

    def twice(self, number: int) -> int:
        return number * 2


class Threads(bunri.Compartment):
    """May have a thread beside its own."""

    policy = bunri.Policy(threads=1)

    def count(self) -> int:
        done: list[int] = []
        thread = threading.Thread(target=done.append, args=(1,))
        thread.start()
        thread.join()
        return len(done)


class ManyThreads(bunri.Compartment):
    """May have as many threads as fit into what it may have by default."""

    policy = bunri.Policy(threads=48)

    def at_once(self, count: int) -> int:
        """How many of `count` can live at the same time, each with something in memory."""
        enough = threading.Event()
        kept: list[bytes] = []

        def live() -> None:
            kept.append(bytes(100_000))
            enough.wait()

        threads: list[threading.Thread] = []
        try:
            for _ in range(count):
                threads.append(threading.Thread(target=live))
                threads[-1].start()
        except RuntimeError:
            threads.pop()
        finally:
            enough.set()
            for thread in threads:
                thread.join()
        return len(threads)
