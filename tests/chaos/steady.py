"""A compartment whose zygote nobody disturbs, and what leaks are looked for with."""

from __future__ import annotations

from collections.abc import Iterator

import bunri


class Steady(bunri.Compartment):
    """Computes; each answer depends on all before it."""

    def __init__(self) -> None:
        self._state = 1

    def step(self, number: int) -> int:
        self._state = (self._state * 6364136223846793005 + number) % (1 << 62)
        return self._state

    def size(self, file: bunri.File) -> int:
        with file, file.as_file() as stream:
            return len(stream.read())

    def rows(self, n: int) -> Iterator[int]:
        yield from range(n)
