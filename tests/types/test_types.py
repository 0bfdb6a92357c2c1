"""Runs in: the test process. A user's program type-checks as it is written, and his mistakes do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bunri

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
LINE = re.compile(r"mistakes\.py:(\d+)(?::\d+)? ?[:-] error")


def check(checker: str, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / program).write_text((HERE / program).read_text())
    (folder / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "extraPaths": [str(SOURCE)],
                "pythonVersion": "3.11",
                "reportUnusedCoroutine": "error",
            }
        )
    )
    command = {
        "mypy": ["mypy", "--strict", "--cache-dir", str(folder / "cache"), program],
        "pyright": ["pyright", "--project", str(folder), "--pythonpath", sys.executable, str(folder / program)],
    }[checker]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "MYPYPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_program_with_every_public_name_is_accepted(checker: str, tmp_path: Path) -> None:
    done = check(checker, "user_program.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_every_mistake_is_reported_and_nothing_else(checker: str, tmp_path: Path) -> None:
    done = check(checker, "mistakes.py", tmp_path)
    lines = (HERE / "mistakes.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# wrong: " in line}
    assert {int(number) for number in LINE.findall(done.stdout)} == wrong, done.stdout + done.stderr


def test_the_program_has_every_public_name() -> None:
    text = (HERE / "user_program.py").read_text()
    missing = [name for name in bunri.__all__ if not re.search(rf"\b{name}\b", text.partition("# messages")[2])]
    assert not missing
