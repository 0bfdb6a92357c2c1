"""Runs in: every process. Which kind of process of bunri this one is."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What the running process is."""

    MONITOR = "monitor"
    ZYGOTE = "zygote"
    WORKER = "worker"


_kind = Kind.MONITOR


def kind() -> Kind:
    return _kind


def become_zygote() -> None:
    global _kind
    _kind = Kind.ZYGOTE


def become_worker() -> None:
    global _kind
    _kind = Kind.WORKER
