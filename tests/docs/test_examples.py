"""Runs in: the test process. The programs of the documentation do what their pages say; the pages are whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = TOP / "docs/examples"
SNIPPET = re.compile(r'^--8<-- "([\w.]+)(?::(\d+):(\d+))?"$', re.MULTILINE)
BLOCK = re.compile(r"^```python\n((?:import|from) .*?)^```$", re.MULTILINE | re.DOTALL)


def run(name: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_worker_adds_and_reads_nothing() -> None:
    assert run("first.py") == "sum: 6\nrefused: Violation\n"


def test_a_damaged_image_fails_alone(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image.new("RGB", (640, 480), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    image.new("RGB", (64, 48), "blue").save(tmp_path / "c.png")
    lines = run("thumbnails.py", *(tmp_path / name for name in ("a.png", "b.png", "c.png"))).splitlines()
    assert re.fullmatch(r"a\.png \d+ bytes", lines[0])
    assert any(line.startswith("b.png refused:") for line in lines)
    assert re.fullmatch(r"c\.png \d+ bytes", lines[-1])


def test_three_guesses_are_three() -> None:
    assert run("guesses.py") == "a letter\nended: more than three guesses\n"


def test_a_program_that_gave_up_its_rights_cannot_open_its_input_again(tmp_path: Path) -> None:
    source = tmp_path / "lines"
    source.write_text("one\ntwo\n")
    first, second = run("give_up.py", source).splitlines()
    assert first == "lines: 2"
    assert second.startswith("again: ")


def test_a_filter_is_asked_and_installed_as_its_page_shows() -> None:
    page = (TOP / "docs/how-to/filters.md").read_text()
    shown = re.search(r"^It prints\n\n((?:    .*\n)+)", page, re.MULTILINE)
    assert shown is not None
    assert run("guard.py") == shown[1].replace("\n    ", "\n").removeprefix("    ")


@pytest.mark.parametrize("page", sorted((TOP / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_a_part_of_an_example_starts_and_ends_with_code(page: Path) -> None:
    """The pages show lines by number; an edit of the example must not cut them in the middle of something."""
    for name, first, last in SNIPPET.findall(page.read_text()):
        lines = (EXAMPLES / name).read_text().splitlines()
        if first:
            assert lines[int(first) - 1].startswith(("class ", "def ", "    with "))
            assert lines[int(last) - 1].strip()
            assert len(lines) == int(last) or not lines[int(last)].strip()


def test_every_number_that_the_tests_cite_is_in_the_table_of_threats() -> None:
    listed = {
        int(number) for number in re.findall(r"^\| (\d+) \|", (TOP / "docs/THREATS.md").read_text(), re.MULTILINE)
    }
    assert listed == set(range(1, 36))


@pytest.mark.slow
def test_what_the_pages_show_passes_both_type_checkers(tmp_path: Path) -> None:
    """Every block that starts with an import is a program of its own; none needs an ignore."""
    programs: list[Path] = []
    for page in [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]:
        for number, block in enumerate(BLOCK.findall(page.read_text()), 1):
            program = tmp_path / f"{page.stem.replace('-', '_').lower()}_{number}.py"
            program.write_text(block)
            programs.append(program)
    assert programs
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MYPYPATH": str(TOP / "src")}
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "extraPaths": [str(TOP / "src")], "pythonVersion": "3.11"})
    )
    mypy = ["mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *map(str, programs)]
    pyright = ["pyright", "--project", str(tmp_path), "--pythonpath", sys.executable]
    for checker in (mypy, pyright):
        done = subprocess.run(
            [sys.executable, "-m", *checker], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
