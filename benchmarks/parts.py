"""Runs in: every process. The compartments of the benchmarks that load nothing but bunri."""

from __future__ import annotations

import bunri


class Null(bunri.Compartment):
    """Does nothing, so that all the time is bunri's."""

    def same(self, n: int) -> int:
        return n

    def echo(self, data: bytes) -> bytes:
        return data

    def count(self, numbers: list[int]) -> int:
        return len(numbers)
