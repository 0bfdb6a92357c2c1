"""Runs in: the test process. Folders that other users can read, and `ftp_served` importable by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
if importlib.util.find_spec("pyftpdlib") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pyftpdlib stands on asyncore
        importlib.import_module("bunri.apps.ftpd.session")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bunri-ftpd-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def pub() -> Iterator[Path]:
    """What is served to anonymous, to read."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bunri-ftpd-") as above:
        os.chmod(above, 0o755)
        folder = Path(above) / "pub"
        folder.mkdir()
        (folder / "hello").write_bytes(b"hello\n")
        (folder / "large").write_bytes(bytes(range(256)) * 4096)
        (folder / "inner").mkdir()
        (folder / "inner" / "deep").write_bytes(b"deep\n")
        yield folder
