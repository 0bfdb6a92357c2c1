"""Runs in: the test process. The man pages say what the commands say, and man can show them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from shell import bunri

from bunri.cli.commands import COMMANDS


@pytest.fixture
def pages(tmp_path: Path) -> list[Path]:
    done = bunri("manpages", tmp_path / "man")
    assert done.returncode == 0, done.stderr
    return sorted((tmp_path / "man/man1").iterdir())


def test_every_command_has_a_page_with_its_options_and_examples(pages: list[Path]) -> None:
    assert {page.name for page in pages} == {"bunri.1", *(f"bunri-{name}.1" for name in COMMANDS)}
    text = next(page for page in pages if page.name == "bunri-inspect.1").read_text().replace("\\-", "-")
    for words in ("--against POLICY|MODULE:COMPARTMENT", "bunri inspect 4711 --details", ".SH SEE ALSO\nbunri(1)"):
        assert words in text, words


def test_a_formatter_has_nothing_to_complain_of(pages: list[Path]) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    for page in pages:
        done = subprocess.run(
            [groff, "-man", "-Tascii", "-ww", str(page)], capture_output=True, text=True, check=True,
            env={**os.environ, "GROFF_NO_SGR": "1"},
        )  # fmt: skip
        assert not done.stderr, (page.name, done.stderr)
        assert "SYNOPSIS" in re.sub(".\b", "", done.stdout)
