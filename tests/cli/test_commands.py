"""Runs in: the test process. What all commands have in common: help, mistakes, quickness, completion."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from shell import COMMAND, bunri, bunri_on_terminal, environment

from bunri.cli.commands import COMMANDS, bunri_command

QUICK = 0.2  # seconds of CPU
# zsh's completion system only runs while somebody types: its last word, _describe, is ours, and says what it was told.
ZSH_ASKS = "compdef() {}; compadd() {}; _describe() { eval 'print -l -- ${'$3'%%:*}'; }"


def test_help_takes_less_than_a_fifth_of_a_second_of_cpu(tmp_path: Path) -> None:
    """With compiled code, as installed. The least of some runs: others use the machine too."""
    warm = {**environment(), "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    spent: list[float] = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], env=warm, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < QUICK, spent


def test_dump_does_not_wait_for_click() -> None:
    """It reads its options itself. All others are click's."""
    for command, loaded in (("dump", False), ("ftpd", True)):
        code = f"import sys\nsys.argv[1:] = ['{command}', '--version']\nfrom bunri.cli import main\ntry:\n    main()\n"
        code += "finally:\n    print('click' in sys.modules)\n"
        done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == str(loaded), done


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in sorted(COMMANDS))])
def test_help_loads_nothing_of_the_library(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom bunri.cli.commands import run\n"
        f"sys.argv[1:] = {arguments!r}\nstatus = run()\n"
        "heavy = {'bunri._public', 'bunri.process', 'asyncio', 'msgspec', 'numpy', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loads {heavy}' if heavy or status else 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_what_it_does_and_shows_how(name: str) -> None:
    text = bunri(name, "--help").stdout
    assert "Example" in text, f"bunri {name} --help has no example"
    command = bunri_command.get_command(click.Context(bunri_command), name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"bunri {name} {parameter.opts[0]} does not say what it is for"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command"),
        (["learn"], "There are completion, demo,"),
        (["dmo"], "Did you mean 'demo'?"),
        (["demo", "--worker", "2"], "--workers"),
        (["--versio"], "--version"),
        (["completion", "tcsh"], "'bash'"),
    ],
)
def test_a_mistake_is_one_message_with_the_nearest_name(arguments: list[str], words: str) -> None:
    done = bunri(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_hostile_word_cannot_steer_the_terminal() -> None:
    status, text = bunri_on_terminal("evil\x1b]0;owned\x07")
    assert status == 2
    assert "\x1b]" not in text
    assert r"\x1b]0;owned" in text


def test_a_reader_who_leaves_early_sees_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*COMMAND, "--help"], stdout=writer, stderr=subprocess.PIPE, env=environment(), text=True)
    finally:
        os.close(writer)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_commands(name: str, tmp_path: Path) -> None:
    """The shell itself is asked, where it is installed; what it would run is the command of this checkout."""
    shell = shutil.which(name)
    if shell is None:
        pytest.skip(f"{name} is not installed")
    script = tmp_path / "completion"
    script.write_text(bunri("completion", name).stdout)
    program = tmp_path / "bunri"
    program.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    ask = {
        "bash": f"source {script}; COMP_WORDS=(bunri de); COMP_CWORD=1; _bunri_completion bunri; echo ${{COMPREPLY[@]}}",
        "zsh": f"{ZSH_ASKS}; source {script}; words=(bunri de); CURRENT=2; _bunri_completion",
        "fish": f"source {script}; complete -C 'bunri de'",
    }[name]
    quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [shell, *quiet, "-c", ask], env=environment(PATH=path, HOME=str(tmp_path)), capture_output=True, text=True
    )
    assert done.stdout.split()[:1] == ["demo"], done.stderr


def test_an_interrupt_while_it_imports_ends_it_without_a_word() -> None:
    code = (
        "import os, signal, sys\n"
        "class Now:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'bunri.cli.commands':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Now())\n"
        "sys.argv[1:] = ['doctor']\n"
        "from bunri.cli import main\n"
    )
    asked = [sys.executable, "-P", "-c", f"{code}main()"]
    done = subprocess.run(asked, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    ignoring = [sys.executable, "-P", "-c", f"{code}signal.signal(signal.SIGINT, signal.SIG_IGN)\nmain()"]
    done = subprocess.run(ignoring, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 3) and "what was tried" in done.stdout, done.stderr


def test_a_module_that_ends_itself_when_it_is_imported_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    for arguments in (["explain", "ends:Worker"], ["graph", "ends"]):
        done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "bunri: importing ends failed: SystemExit: 3\n"


def test_a_current_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for arguments in (["graph", "app"], ["explain", "app:Worker"], ["run", "--read", ".", "true"]):
        gone.mkdir()
        script = ["sh", "-c", 'cd "$1" && rmdir "$1" && shift && exec "$@"', "sh", gone, *COMMAND, *arguments]
        done = subprocess.run(script, env=environment(), capture_output=True, text=True)
        assert done.returncode in (2, 125) and "the current folder is there no more" in done.stderr, done.stderr
