"""Runs in: the test process. `reaching` and `serving` are importable by name, also for a zygote."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def granted() -> Iterator[Path]:
    """A folder that everybody can reach, with a file, a folder, and a secret beside it."""
    top = Path(tempfile.mkdtemp(dir="/tmp", prefix="bunri-test-"))
    os.chmod(top, 0o755)
    folder = top / "granted"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text("granted\n")
    (folder / "inner" / "file").write_text("inner\n")
    (top / "secret").write_text("secret\n")
    for path in (folder, folder / "inner", folder / "file", folder / "inner" / "file", top / "secret"):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
    try:
        yield folder
    finally:
        shutil.rmtree(top)
