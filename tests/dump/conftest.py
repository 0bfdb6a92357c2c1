"""Runs in: the test process. The modules of this folder are importable by name; the command, in two ways."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from packets import ENVIRONMENT, Dump

from bunri.apps.dump.command import main


@pytest.fixture(scope="session")
def shell() -> Dump:
    """`bunri dump ARGUMENTS` as a user runs it, with bytes as its standard input."""

    def run(*arguments: str | Path, data: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "bunri", "dump", *map(str, arguments)],
            input=data.decode("latin-1"), capture_output=True, encoding="latin-1", env=ENVIRONMENT, timeout=120, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def dump(capfd: pytest.CaptureFixture[str], utc: None) -> Dump:
    """The same from here: this process is the monitor, its workers are confined all the same."""

    def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        found = main([*map(str, arguments)])
        sys.stdout.flush()
        said = capfd.readouterr()
        assert found == code, said.out + said.err
        return subprocess.CompletedProcess(arguments, found, said.out, said.err)

    return run


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone that tcpdump is run with."""
    monkeypatch.setenv("TZ", ENVIRONMENT["TZ"])
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
