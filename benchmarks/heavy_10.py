"""Runs in: zygotes and workers of the benchmark. A module that holds 10 MiB."""

from __future__ import annotations

from benchmarks.heavy import Heavy, ballast

BALLAST = ballast(10)


class Heavy10(Heavy):
    """Its workers share that memory."""
