# pyright: basic, reportMissingTypeStubs=false, reportMissingModuleSource=false
"""Runs in: the session's zygote. The one place that loads pyftpdlib, and not what it would load for others.

It imports the standard library's compression, the database of passwords and the colours of a terminal, for features that
no session has; both go on without where they are not there. What is loaded here is in every session: nine libraries of
C that an owner of one would find there, and their mappings, which each fork copies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

_NOT_WANTED = ("bz2", "crypt", "curses", "lzma", "spwd", "zlib")


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """What is imported in the block finds none of these modules. Those that are loaded already stay."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = cast(Any, None)  # to import it is an ImportError then (language reference, 5.3.1)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


with _without(*_NOT_WANTED):
    from pyftpdlib.exceptions import FilesystemError, _FileReadWriteError
    from pyftpdlib.filesystems import AbstractedFS
    from pyftpdlib.handlers import DTPHandler, FTPHandler, ThrottledDTPHandler
    from pyftpdlib.handlers.ftp.producers import BufferedIteratorProducer
    from pyftpdlib.ioloop import AsyncChat, IOLoop, _RetryError

FileReadWriteError, RetryError = _FileReadWriteError, _RetryError

__all__ = [
    "AbstractedFS", "AsyncChat", "BufferedIteratorProducer", "DTPHandler", "FTPHandler", "FileReadWriteError", "FilesystemError",
    "IOLoop", "RetryError", "ThrottledDTPHandler",
]  # fmt: skip
