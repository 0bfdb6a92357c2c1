"""Runs in: the tests' workers, after confinement. Compartments that belong to an attacker, who speaks the wire by hand."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import bunri
from bunri.wire.frames import FrameKind, pack

SPACE = {"os": os, "signal": signal, "socket": socket, "time": time, "pack": pack, "K": FrameKind}


class Bell(bunri.Service):
    def ring(self, by: int) -> int: ...


@dataclass(frozen=True)
class Page:
    """A record with bytes in it."""

    text: bytes
    number: int


class Evil(bunri.Compartment):
    """Can send no descriptor: its signature gives it none to send."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell

    def speak(self, code: str) -> str:
        space: dict[str, object] = {**SPACE, "bell": self._bell}
        exec(code, space)
        return str(space.get("result"))

    def page(self, code: str) -> Page:
        exec(code, dict(SPACE))
        return Page(bytes(1 << 20), 7)

    def rows(self, code: str) -> Iterator[int]:
        exec(code, dict(SPACE))
        yield 1


class Sender(bunri.Compartment):
    """May return a file, so its filter lets it send descriptors."""

    def __init__(self, mark: bunri.File) -> None:
        self._mark = mark

    def speak(self, code: str) -> str:
        space: dict[str, object] = {**SPACE, "mark": self._mark.fileno()}
        exec(code, space)
        return str(space.get("result"))

    def give(self) -> bunri.File:
        return self._mark

    def large(self, data: bytes) -> int:
        """For its sake there is an arena."""
        return len(data)
