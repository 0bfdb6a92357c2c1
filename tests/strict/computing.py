"""The compartments of these tests."""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import sqlite3
import struct
import threading
import time
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

import bunri

PICTURE = io.BytesIO()
Image.new("RGB", (64, 48), (10, 20, 30)).save(PICTURE, "PNG")


@dataclass
class Point:
    x: int
    y: int = 0


class Oracle(bunri.Service):
    """Something to ask."""

    def answer(self, question: str) -> int: ...


class Compute(bunri.Compartment):
    """The mode-2 twin."""

    policy = bunri.Policy.compute()

    @classmethod
    def warm_up(cls) -> None:
        for name in ("zlib", "sqlite", "picture"):
            _WORK[name]()

    def __init__(self, oracle: Oracle | None = None) -> None:
        self._oracle = oracle
        self._total = 0

    def add(self, number: int) -> int:
        self._total += number
        return self._total

    def moved(self, point: Point, *, by: int = 1) -> Point:
        return Point(point.x + by, point.y)

    def echo(self, data: bytes) -> bytes:
        return data

    def count(self, to: int) -> Iterator[int]:
        yield from range(to)

    def fail(self) -> None:
        raise ValueError("no good")

    def ask(self, question: str) -> int:
        assert self._oracle is not None
        return self._oracle.answer(question)

    def work(self, name: str) -> str:
        return str(_WORK[name]())

    def objects(self, count: int) -> int:
        return len([str(n) for n in range(count)])

    def call(self, number: int) -> int:
        """Any system call, without arguments that mean anything."""
        return int(ctypes.CDLL(None, use_errno=True).syscall(number, 0, 0, 0, 0, 0))


class Strict(Compute):
    """Mode 1."""

    policy = bunri.Policy.strict()


class Ordinary(Compute):
    """The control: the same under the default policy."""

    policy = bunri.Policy()


def _sqlite() -> int:
    with sqlite3.connect(":memory:") as base:
        base.execute("create table t (a)")
        base.executemany("insert into t values (?)", [(n,) for n in range(100)])
        return int(base.execute("select sum(a) from t").fetchone()[0])


def _deep(depth: int) -> int:
    return 0 if depth == 0 else 1 + _deep(depth - 1)


def _too_deep() -> str:
    try:
        return str(_deep(100_000))
    except RecursionError as fault:
        return type(fault).__name__


def _deep_often() -> int:
    """Each time through every piece of the stack of frames."""
    return sum(_deep(400) for _ in range(5_000))


_WORK = {
    "deep": lambda: _deep(900),
    "too deep": _too_deep,
    "deep, often": _deep_often,
    "json": lambda: json.loads("[1, 2, 3]"),
    "zlib": lambda: len(zlib.decompress(zlib.compress(bytes(100_000)))),
    "struct": lambda: struct.unpack("<I", b"\1\0\0\0"),
    "regex": lambda: re.findall("a+", "aa b aaa"),
    "xml": lambda: ElementTree.fromstring("<a><b c='d'/></a>").tag,
    "sqlite": _sqlite,
    "picture": lambda: Image.open(io.BytesIO(PICTURE.getvalue())).resize((8, 8)).getpixel((0, 0)),
    "clock": time.time,
    "lock": lambda: threading.Lock().acquire(),
    "pid": os.getpid,
    "open": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "import": lambda: __import__("wave"),
    "memory": lambda: len(bytearray(512 << 20)),
}
