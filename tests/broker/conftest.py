"""Runs in: the test process. `reaching` and `serving` are importable by name, also for a zygote."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
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


@contextlib.contextmanager
def a_port() -> Iterator[int]:
    """A port of loopback where nobody listens, of those that the compartments know. Its UDP port says to a run of these
    tests beside this one that it is taken."""
    import brokered

    for each in brokered.PORTS:
        with socket.socket() as trial, socket.socket(type=socket.SOCK_DGRAM) as claim:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                claim.bind(("127.0.0.1", each))
                trial.bind(("127.0.0.1", each))
            except OSError:
                continue
            trial.close()
            yield each
            return
    pytest.skip("every port of the range is taken")


@pytest.fixture
def port() -> Iterator[int]:
    with a_port() as number:
        yield number


@pytest.fixture
def nobody() -> Iterator[int]:
    """Another one, where nobody will listen."""
    with a_port() as number:
        yield number


@pytest.fixture
def unix_path() -> Iterator[str]:
    """The path of a socket that is not there yet, in a folder of its own, of those that the compartments know."""
    import brokered

    for path in brokered.SOCKETS:
        folder = os.path.dirname(path)
        try:
            os.mkdir(folder, 0o755)
        except FileExistsError:
            continue
        os.chmod(folder, 0o755)
        try:
            yield path
        finally:
            shutil.rmtree(folder)
        return
    pytest.skip("every folder of the range is taken")
