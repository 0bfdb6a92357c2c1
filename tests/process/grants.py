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
