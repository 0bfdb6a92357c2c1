"""Runs in: zygotes and workers of the benchmark. A module that holds 100 MiB."""

from __future__ import annotations

from benchmarks.heavy import Heavy, ballast

BALLAST = ballast(100)


class Heavy100(Heavy):
    """Its workers share that memory."""
