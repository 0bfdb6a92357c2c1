"""Runs in: zygotes and workers of the benchmark. A module that holds 300 MiB."""

from __future__ import annotations

from benchmarks.heavy import Heavy, ballast

BALLAST = ballast(300)


class Heavy300(Heavy):
    """Its workers share that memory."""
