"""Runs in: the test process. Whether a descriptor was left open."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path


class Mark:
    """A file that nobody else has open: its descriptors here can be counted."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"mark")
        self.path = path

    def still_open(self) -> int:
        """How many descriptors of this process lead to it, once what is garbage is collected."""
        gc.collect()
        found = 0
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found += os.readlink(f"/proc/self/fd/{number}") == str(self.path)
        return found
