"""Runs in: the developer's machine. What of Python works under Policy.compute() and Policy.strict(), by trying it.

    python tools/strict_functions.py            print the table
    python tools/strict_functions.py --write    write it into docs/how-to/strict.md

Each function runs in a worker of its own.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import bz2
import csv
import datetime
import decimal
import email
import hashlib
import html.parser
import io
import json
import logging
import lzma
import os
import pickle
import random
import re
import socket
import sqlite3
import struct
import sys
import threading
import time
import traceback
import urllib.parse
import uuid
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import bunri

PAGE = Path(__file__).resolve().parent.parent / "docs/how-to/strict.md"
MARK = "<!-- from here on written by tools/strict_functions.py -->\n"
TEXT = json.dumps([{"name": f"n{i}", "value": i} for i in range(2000)])


def _picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (10, 20, 30)).save(out, "PNG")
    return out.getvalue()


PICTURE = _picture()


def _recurse(depth: int) -> int:
    return 0 if depth == 0 else 1 + _recurse(depth - 1)


def _raised() -> str:
    try:
        raise ValueError("x")
    except ValueError:
        return traceback.format_exc()


def _sqlite() -> object:
    with sqlite3.connect(":memory:") as base:
        base.execute("create table t (a)")
        base.executemany("insert into t values (?)", [(n,) for n in range(1000)])
        return base.execute("select sum(a) from t").fetchone()


FUNCTIONS: dict[str, Callable[[], object]] = {
    "json.loads": lambda: json.loads(TEXT),
    "zlib.compress": lambda: zlib.compress(TEXT.encode()),
    "struct.unpack": lambda: struct.unpack("<4I", bytes(16)),
    "re.findall": lambda: re.findall(r"n(\d+)", TEXT),
    "ElementTree.fromstring": lambda: ElementTree.fromstring("<a>" + "<b c='d'/>" * 1000 + "</a>"),
    "html.parser": lambda: html.parser.HTMLParser().feed("<p>" * 1000),
    "csv.reader": lambda: list(csv.reader(io.StringIO("a,b\n" * 1000))),
    "email.message_from_string": lambda: email.message_from_string("Subject: x\n\nbody"),
    "urllib.parse.urlsplit": lambda: urllib.parse.urlsplit("http://example.org/a?b#c"),
    "hashlib.sha256": lambda: hashlib.sha256(TEXT.encode()).hexdigest(),
    "base64.b64decode": lambda: base64.b64decode(base64.b64encode(TEXT.encode())),
    "pickle.loads": lambda: pickle.loads(pickle.dumps([1, 2, 3])),
    "ast.parse": lambda: ast.parse("x = [i for i in range(3)]"),
    "decimal": lambda: decimal.Decimal(1) / 7,
    "datetime.fromisoformat": lambda: datetime.datetime.fromisoformat("2026-01-01T00:00:00"),
    "sqlite3, in memory": _sqlite,
    "a million small objects": lambda: len([str(n) for n in range(1_000_000)]),
    "one object of 40 MiB": lambda: len(bytes(40 << 20)),
    "recursion, 900 deep": lambda: _recurse(900),
    "random.random": random.random,
    "an exception": lambda: int("x") if TEXT == "" else None,
    "lzma.compress": lambda: lzma.compress(b"x" * 1000),
    "bz2.compress": lambda: bz2.compress(b"x" * 1000),
    "threading.Lock": lambda: threading.Lock().acquire(),
    "time.time": time.time,
    "datetime.now": datetime.datetime.now,
    "logging.makeLogRecord": lambda: logging.makeLogRecord({}),
    "import of a module": lambda: __import__("wave"),
    "traceback.format_exc": _raised,
    "os.getpid": os.getpid,
    "os.urandom": lambda: os.urandom(8),
    "uuid.uuid4": uuid.uuid4,
    "open": lambda: open("/etc/hostname").close(),
    "socket.socket": lambda: socket.socket().close(),
    "threading.Thread": lambda: threading.Thread(target=int).start(),
    "asyncio.run": lambda: asyncio.run(asyncio.sleep(0)),
    "print": lambda: print("x", flush=True),
    "Pillow, PNG from bytes": lambda: Image.open(io.BytesIO(PICTURE)).resize((8, 8)).tobytes(),
}
COLD = ("import of a module", "threading.Thread", "asyncio.run", "print")


class Compute(bunri.Compartment):
    """The mode-2 twin."""

    policy = bunri.Policy.compute()

    @classmethod
    def warm_up(cls) -> None:
        """Each once: what is imported, or read from the system, at the first use."""
        for name, function in FUNCTIONS.items():
            if name not in COLD:
                function()

    def work(self, name: str) -> str:
        """The type of what it gave."""
        return type(FUNCTIONS[name]()).__name__


class Strict(Compute):
    """Mode 1."""

    policy = bunri.Policy.strict()


def outcome(compartment: type[Compute], name: str) -> str:
    """How one function ends there, in a few words."""
    try:
        with compartment.start() as worker:
            worker.work(name)
    except bunri.WorkerDied as died:
        return str(died.exit).partition(":")[0]
    except bunri.PeerError as fault:
        found = re.findall(r"\b(\w*(?:Error|Exception))\b", str(fault))
        return found[-1] if found else type(fault).__name__
    return "works"


def table() -> str:
    lines = [
        f"Python {sys.version.split()[0]}, {datetime.date.today().isoformat()}. Each was called once in the zygote (`warm_up`).",
        "",
        "| | `Policy.compute()` | `Policy.strict()` |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {outcome(Compute, name)} | {outcome(Strict, name)} |" for name in FUNCTIONS]
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    text = table()
    if words == ["--write"]:
        before = PAGE.read_text().partition(MARK)[0]
        PAGE.write_text(before + MARK + "\n" + text)
    else:
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
