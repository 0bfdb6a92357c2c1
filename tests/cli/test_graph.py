"""Runs in: the test process. `bunri graph` as a user runs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from shell import bunri, bunri_on_terminal

MODULE = """
import bunri

class Files(bunri.Service):
    def open(self, name: str) -> bunri.File: ...

class Login(bunri.Service):
    @bunri.limit(calls=3, size="64K")
    def password(self, user: str, password: bunri.Secret) -> Files: ...

class PreLogin(bunri.Compartment):
    def __init__(self, login: Login) -> None: ...
    def talk(self) -> bytes: ...

class Shared(bunri.Compartment):
    reuse = bunri.Reuse.DANGEROUS_ACROSS_PRINCIPALS
    policy = bunri.Policy(memory="64M")
    def work(self, data: bytes) -> bytes: ...
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text(MODULE)
    (tmp_path / "nothing.py").write_text("")
    monkeypatch.chdir(tmp_path)


def test_every_role_with_what_it_may_call() -> None:
    found = {each["name"]: each for each in json.loads(bunri("graph", "program", "--json").stdout)}
    assert set(found) == {f"program:{name}" for name in ("PreLogin", "Shared", "Login", "Files")}
    pre = found["program:PreLogin"]
    assert set(pre["calls"]) == {"program:Login", "program:Files"}
    assert "file" in pre["handed"]
    assert found["program:Login"]["methods"] == ["password (calls=3, size=65536)"]
    assert found["program:Shared"]["dangers"]
    assert not pre["dangers"]


def test_danger_is_red_on_a_terminal() -> None:
    status, text = bunri_on_terminal("graph", "program")
    assert status == 0
    assert re.search(r"\x1b\[31m(\x1b\[22m)?its workers serve many principals", text)
    assert "\x1b[" not in bunri("graph", "program").stdout


def test_it_is_a_graph_for_graphviz() -> None:
    text = bunri("graph", "program", "--dot").stdout
    assert '"program:PreLogin" -> "program:Login";' in text
    dot = shutil.which("dot")
    if dot is None:
        pytest.skip("Graphviz is not installed")
    done = subprocess.run([dot, "-Tsvg"], input=text, capture_output=True, text=True, check=True)
    assert "program:Shared" in done.stdout


def test_two_ways_to_print_are_one_too_many() -> None:
    done = bunri("graph", "program", "--dot", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Take one" in done.stderr


@pytest.mark.parametrize(("name", "words"), [("nothing", "no compartment"), ("absent", "no module 'absent'")])
def test_a_mistake_is_one_message(name: str, words: str) -> None:
    done = bunri("graph", name)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
