"""Runs in: the test process. `bunri explain` and `bunri doctor` as a user runs them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from shell import COMMAND, bunri, bunri_on_terminal, environment

from bunri.plan import Host, hosts

MODULE = """
import bunri

class Decoder(bunri.Compartment):
    policy = bunri.Policy(files=[bunri.fs.read("/usr/share/zoneinfo")], memory="64M")

    def decode(self, data: bytes) -> str:
        return ""

class Later(bunri.Compartment):
    policy = bunri.Policy(files=bunri.AT_START, user=bunri.AT_START)

    async def serve(self) -> None: ...
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "program.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_everything_about_a_compartment_is_said() -> None:
    text = bunri("explain", "program:Decoder", "--listing").stdout
    for words in ("fs.read('/usr/share/zoneinfo')", "can be read, not executed", "kept by", "missing or weaker here",
                  "steps of the template", "no_new_privs()", "it controls another process from outside", "load arch"):  # fmt: skip
        assert words in text, words


def test_a_hole_is_named() -> None:
    text = bunri("explain", "program:Later").stdout
    assert "user, files: known only at the start" in text
    assert "an event loop" in text


def test_the_answers_and_what_decides() -> None:
    asked = [
        "--can",
        "open /etc/passwd read",
        "--can",
        "open /usr/share/zoneinfo/UTC",
        "--can",
        "ptrace",
        "--can",
        "connect 10.0.0.1:22",
    ]
    done = bunri("explain", "program:Decoder", *asked)
    assert done.returncode == 0
    heads = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [head.split(": ")[1].split()[0].strip(",") for head in heads] == ["no", "yes", "killed", "no"]
    found = json.loads(bunri("explain", "program:Decoder", *asked, "--json").stdout)
    assert [each["verdict"] for each in found] == ["no", "yes", "killed", "no"]
    assert "fs.read('/usr/share/zoneinfo')" in found[1]["why"]


def test_a_policy_file_on_another_host(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("version = 1\nfiles = [\"fs.read('/srv')\"]\n")
    (tmp_path / "docker.json").write_text(hosts.DOCKER_ORDINARY.to_json())
    done = bunri("explain", "policy.toml", "--host", "docker.json")
    assert done.returncode == 3
    assert "would not start" in done.stdout
    (tmp_path / "old.json").write_text(hosts.LINUX_5_10.to_json())
    done = bunri("explain", "policy.toml", "--host", "old.json", "--json")
    assert done.returncode == 0, done.stdout
    assert "Linux 5.10" in json.loads(done.stdout)["host"]


def test_what_the_doctor_finds_is_a_host_for_explain(tmp_path: Path) -> None:
    done = bunri("doctor", "--json")
    assert done.returncode in (0, 3)
    assert Host.from_json(done.stdout).landlock_abi >= 0
    (tmp_path / "here.json").write_text(done.stdout)
    assert "program:Decoder" in bunri("explain", "program:Decoder", "--host", "here.json").stdout


def test_the_doctor_says_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    from bunri.observe import doctor

    for host in hosts.HOSTS.values():
        for each in doctor.findings(host):
            assert each.works or each.remedy, each
    assert not [each for each in doctor.promises(hosts.ROOT) if not each.kept]
    lost = {each.promise.value: each.remedy for each in doctor.promises(hosts.UBUNTU_24_04) if not each.kept}
    assert "processes" in lost
    text = bunri("doctor").stdout
    assert "user namespaces" in text
    assert "what a worker under the default policy would have here" in text


def test_the_doctor_sees_that_too_few_descriptors_are_allowed() -> None:
    few = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *COMMAND, "doctor"]
    done = subprocess.run(few, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "at most 64" in done.stdout and "ulimit -n 4096" in done.stdout
    assert "descriptors  " not in bunri("doctor").stdout


def test_colour_only_on_a_terminal() -> None:
    assert "\x1b[" not in bunri("explain", "program:Decoder", "--can", "ptrace").stdout
    status, text = bunri_on_terminal("explain", "program:Decoder", "--can", "ptrace")
    assert status == 0
    assert "\x1b[31m" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "program:Decodr"], "Did you mean 'Decoder'?"),
        (["explain", "nothing:X"], "no module 'nothing'"),
        (["explain", "program"], "neither a policy file nor a compartment"),
        (["explain", "missing.toml"], "missing.toml"),
        (["explain", "program:Decoder", "--can", "opn /x"], "did you mean 'open'? Ask"),
        (["explain", "program:Decoder", "--host", "program.py"], "bunri doctor --json"),
        (["explain", "bad.toml"], "memory"),
        (["explain", "broken:X"], "importing broken failed"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('version = 1\nmemry = "1M"\n')
    (tmp_path / "broken.py").write_text("import nothing_of_the_kind\n")
    done = bunri(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
