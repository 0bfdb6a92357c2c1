"""Runs in: the test process. Policies as files: what is written is read again, and nothing in it is ever evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_samples import POLICIES

from bunri import seccomp
from bunri.errors import UsageError
from bunri.policy import Policy, User, from_toml, fs, to_toml


@pytest.mark.parametrize("policy", [*POLICIES, Policy(user=User.named("AT_START"))], ids=repr)
def test_what_is_written_is_read_again(policy: Policy) -> None:
    assert from_toml(to_toml(policy)) == policy


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.text(max_size=20))
def test_any_path_and_any_variable_survive(tail: str, value: str) -> None:
    if ".." in tail.split("/") or "\0" in value or not value.isprintable():
        return
    policy = Policy(files=[fs.read(f"/srv/{tail}")], env={"A": value})
    assert from_toml(to_toml(policy)) == policy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "version = 1"),
        ("version = 2", "version = 1"),
        ("version = true", "version = 1"),
        ("version = 1\nmemroy = '3'", "no such key. Did you mean 'memory'? (line 2)"),
        ("version = 1\n\ncpu = '5x'", "(line 3)"),
        ("version = 1\nprofile = 'complete'", "'compute'"),
        ("version = 1\nprofile = ['compute']", "$.profile"),
        ("version = 1\nfiles = 'x'", "a list of strings"),
        ("version = 1\nfiles = [3]", "$.files[0]"),
        ("version = 1\nfiles = [\"fs.raed('/x')\"]", "Did you mean 'fs.read'?"),
        ("version = 1\nfiles = [\"fs.read('/x') + 1\"]", "not understood"),
        ("version = 1\nfiles = [\"fs.read('/x') fs\"]", "behind it"),
        ("version = 1\nfiles = [\"fs.read('/x'\"]", "')' is expected"),
        ("version = 1\nfiles = ['fs.read(__import__(\"os\"))']", "no value"),
        ("version = 1\nfiles = ['os.system(\"id\")']", "no grant"),
        ("version = 1\nfiles = ['fs.read.__globals__']", "no grant"),
        ("version = 1\nfiles = [\"fs.read('/x', '/y', '/z')\"]", "takes"),
        ("version = 1\nfiles = [\"fs.read('/x', path='/y')\"]", "multiple values"),
        ("version = 1\nfiles = [\"fs.read('\\\\q')\"]", "escape"),
        ("version = 1\nnetwork = [\"fs.read('/x')\"]", "files="),
        ("version = 1\nsyscalls = ['ptrace']", "dangerous_ptrace"),
        ("version = 1\nmemory = ", "no TOML"),
    ],
)
def test_what_is_unclear_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_toml(text)
    assert words in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_in_a_grant_does_anything_but_parse_or_be_refused(text: str) -> None:
    import json

    try:
        document = f"version = 1\nfiles = [{json.dumps(text, ensure_ascii=True)}]"
        from_toml(document)
    except UsageError:
        pass


def test_a_rule_has_no_spelling_in_a_file() -> None:
    rule = seccomp.allow("flock", reason="a test")
    with pytest.raises(UsageError, match=r"\$\.syscalls"):
        to_toml(Policy(syscalls=[rule]))
