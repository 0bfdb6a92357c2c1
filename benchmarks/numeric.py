"""Runs in: every process. The compartment with a large library; in a module of its own, since a role zygote loads what
its module names."""

from __future__ import annotations

import numpy as np

import bunri


class Numbers(bunri.Compartment):
    """Works with numpy."""

    preload = ("numpy",)

    def work(self, size: int) -> float:
        square = np.arange(size * size, dtype=np.float64).reshape(size, size)
        return float((square @ square).sum())
