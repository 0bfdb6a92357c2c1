"""Runs in: zygotes and workers of the benchmark. What a module that holds much memory is for."""

from __future__ import annotations

import bunri


def ballast(mebibytes: int) -> bytearray:
    """Memory that is really there."""
    return bytearray(b"\1") * (mebibytes << 20)


class Heavy(bunri.Compartment):
    """Answers; its module has loaded something large."""

    def same(self, n: int) -> int:
        return n
