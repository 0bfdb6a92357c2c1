"""Runs in: the test process. Every way in which a program and its modules are started: each finds its classes again in a zygote."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hosting import environment

pytestmark = pytest.mark.slow

CLASS = """
import os
import bunri

class Here(bunri.Compartment):
    def twice(self, n: int) -> int:
        return 2 * n
"""
MAIN = """
print("run as", __name__)
if __name__ == "__main__":
    with Here.start() as worker:
        print(worker.twice(21))
"""


def run(*arguments: str | Path, cwd: Path, stdin: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=60,
        input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
    )  # fmt: skip


def test_a_script_with_its_classes_in_it(folder: Path) -> None:
    """Its own part does not run again in the zygote: what it prints there would be in the log, under another name."""
    script = folder / "my script.py"
    script.write_text(CLASS + MAIN)
    for name, cwd in ((script, Path("/")), ("my script.py", folder)):
        done = run(name, cwd=cwd)
        assert done.stdout.splitlines() == ["run as __main__", "42"], done.stdout + done.stderr
    (folder / "command").write_text(CLASS + MAIN)
    assert run(folder / "command", cwd=Path("/")).stdout.splitlines()[-1] == "42", "a script is not always a .py"
    (folder / "link").symlink_to(script)
    assert run(folder / "link", cwd=Path("/")).stdout.splitlines()[-1] == "42"


def test_a_script_without_the_guard_is_told_of_it(folder: Path) -> None:
    script = folder / "noguard.py"
    script.write_text(CLASS + "with Here.start() as worker:\n    print(worker.twice(1))\n")
    done = run(script, cwd=folder)
    assert done.returncode == 1
    assert '\n    if __name__ == "__main__":\n        main()\n' in done.stderr


@pytest.mark.parametrize("way", ["-m cProfile", "-m trace --count -C ."])
def test_a_script_under_a_profiler_works_or_is_told_why_not(folder: Path, way: str) -> None:
    """Python's own run it in a namespace that is no module (before 3.13): a zygote would import the profiler."""
    script = folder / "profiled.py"
    script.write_text(CLASS + MAIN)
    done = run(*way.split(), script, cwd=folder)
    assert "\n42\n" in done.stdout or "a profiler or a debugger ran its file" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("way", ["-m package.app", "-m package", "-m single"])
def test_python_m(folder: Path, way: str) -> None:
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("FACTOR = 1\n")
    text = CLASS + "from package.other import FACTOR\n" + MAIN
    for name in ("app.py", "__main__.py"):
        (package / name).write_text(text)
    (package / "app.py").write_text(text.replace("from package.other", "from .other"))
    (folder / "single.py").write_text(text)
    done = run(*way.split(), cwd=folder)
    assert done.stdout.splitlines() == ["run as __main__", "42"], done.stdout + done.stderr


@pytest.mark.parametrize("way", ["-c", "stdin"])
def test_where_there_is_no_file_the_remedy_is_said(folder: Path, way: str) -> None:
    done = run("-c", CLASS + MAIN, cwd=folder) if way == "-c" else run("-", cwd=folder, stdin=CLASS + MAIN)
    assert done.returncode == 1
    assert "Move it to a module" in done.stderr, done.stderr


def test_a_class_in_the_main_part_of_a_zip_application_is_refused_with_the_remedy(folder: Path) -> None:
    archive = folder / "app.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", CLASS + MAIN)
        file.writestr("inside.py", CLASS)
    done = run(archive, cwd=folder)
    assert done.returncode == 1
    assert "a zip application" in done.stderr and "Move it to a module" in done.stderr, done.stderr
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", MAIN.replace("if __name__", "from inside import Here\nif __name__"))
        file.writestr("inside.py", CLASS)
    assert run(archive, cwd=folder).stdout.splitlines()[-1] == "42", "a module beside it is one that can be found"


def test_an_isolated_and_an_optimised_interpreter(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(CLASS + MAIN)
    for options in (["-O"], ["-B", "-W", "error"], ["-X", "dev"], ["-u"]):
        done = run(*options, script, cwd=folder)
        assert done.stdout.splitlines()[-1:] == ["42"], (options, done.stderr)
        assert "Warning" not in done.stderr, (options, done.stderr)


TEST = (
    CLASS
    + """
import helper

def test_own_class():
    with Here.start() as worker:
        assert worker.twice(2) == 4

def test_other_class():
    with helper.There.start() as worker:
        assert worker.thrice(2) == 6

def test_once_more():
    with Here.pool(2) as pool:
        assert [done.result() for done in bunri.map(pool.twice, range(6))] == [0, 2, 4, 6, 8, 10]
"""
)
HELPER = CLASS.replace("Here", "There").replace("twice", "thrice").replace("2 * n", "3 * n")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["flat", "package"])
@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_a_users_tests_in_every_import_mode(folder: Path, mode: str, layout: str) -> None:
    """With importlib the folder of the tests is not on sys.path: its modules are loaded from their files."""
    tests = folder / "project" / "tests"
    tests.mkdir(parents=True)
    (tests.parent / "helper.py").write_text(HELPER)
    (tests / "test_one.py").write_text(TEST)
    if layout == "package":
        (tests / "__init__.py").write_text("")
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "--import-mode", mode]
    done = run(
        "-m", "pytest", *options, "tests", cwd=tests.parent, PYTHONPATH=f"{environment()['PYTHONPATH']}:{tests.parent}"
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_users_tests_under_xdist(folder: Path) -> None:
    """Each of its processes runs tests on a thread of execnet's, and makes zygotes of its own."""
    for name in ("test_one.py", "test_two.py"):
        (folder / name).write_text(TEST)
    (folder / "helper.py").write_text(HELPER)
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "-n", "2"]
    done = run("-m", "pytest", *options, cwd=folder)
    assert "6 passed" in done.stdout, done.stdout + done.stderr
