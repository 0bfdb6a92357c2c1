"""Runs in: the test process. Shares the helpers of the tests of bunri.kernel."""

from __future__ import annotations

import sys
from pathlib import Path

_KERNEL = str(Path(__file__).parent.parent / "kernel")
if _KERNEL not in sys.path:
    sys.path.insert(0, _KERNEL)

import shutil  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
from forked import skip_unless  # noqa: E402

from bunri.process import program  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """bunri's own is ended: in a raw clone, which has this thread only, the interpreter's lock would be given to one that
    waited for it, for ever."""
    program.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, mode 755, under a path that everyone can pass."""
    made = Path(tempfile.mkdtemp(prefix="bunri-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=["root", "root of a user namespace"])
def who(request: pytest.FixtureRequest) -> str:
    """Each of those who can make namespaces."""
    skip_unless(request.param)
    return str(request.param)


@pytest.fixture(params=["root", "ordinary user"])
def anyone(request: pytest.FixtureRequest) -> str:
    """Root, and an ordinary user without namespaces."""
    skip_unless(request.param)
    return str(request.param)
