"""Runs in: every process; values only. The words of `confine`."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Zygotes(Enum):
    """What becomes of the zygotes of a program that confines itself."""

    END = "end"
    DANGEROUS_KEEP = "keep"  # they have the rights that the program gives up, and serve whoever holds their socket


class HasDescriptor(Protocol):
    """A File, a socket, anything with a descriptor."""

    def fileno(self) -> int: ...
