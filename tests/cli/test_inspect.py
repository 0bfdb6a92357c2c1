"""Runs in: the test process. `bunri inspect` on real processes: bunri's own workers, vsftpd, Chromium, liars."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import SOURCE, bunri, bunri_on_terminal

from bunri.confine import detect
from bunri.observe import facts
from bunri.observe.subject import of_compartment

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import looked_at  # noqa: E402

IS_ROOT = os.getuid() == 0
NOBODY_HERE = 61173  # a uid without an account, below the dynamic ones


def told(*arguments: str) -> list[dict[str, Any]]:
    done = bunri("inspect", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


@pytest.fixture
def worker() -> Iterator[Any]:
    with looked_at.Quiet.start() as started:
        yield started


def test_a_worker_has_what_it_should(worker: Any) -> None:
    (found,) = told(str(worker.process.pid))
    assert not any(found["capabilities"].values())
    assert found["no_new_privs"]
    assert found["seccomp"] == "filter"
    assert found["seccomp_filters"] == 2
    readable = detect().reads_not_dumpable
    if readable:
        assert set(found["namespaces"].values()) == {"own"}
        assert found["root"] == "another"
        assert [d["number"] for d in found["descriptors"]] == [0, 1, 2, 3]
        assert found["memory"]["pss"] > 0
        assert [m["at"] for m in found["mounts"]] == ["/"]
    assert found["limits"]["NOFILE"] == [64, 64]
    text = bunri("inspect", str(worker.process.pid)).stdout
    for words in ("no_new_privs  yes", "effective    none", "securebits", "filter, 2 filters"):
        assert words in text, words


def test_what_is_read_is_what_a_process_knows_of_itself() -> None:
    it = facts.read(os.getpid())
    assert it.uids == (*os.getresuid(), os.geteuid())
    assert it.gids == (*os.getresgid(), os.getegid())
    assert set(it.groups) == set(os.getgroups())
    assert it.parent == os.getppid()
    assert it.namespaces is not None and set(it.namespaces.values()) == {"ours"}
    assert it.root == "ours"
    assert it.descriptors is not None
    assert {d.number for d in it.descriptors} >= {0, 1, 2}
    assert set(it.hidden) >= {"securebits", "Landlock"}


def test_a_process_against_its_own_policy_and_against_others(worker: Any) -> None:
    pid = str(worker.process.pid)
    path = {"PYTHONPATH": f"{SOURCE}:{HERE}"}
    done = bunri("inspect", pid, "--against", "looked_at:Quiet", **path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as the policy says" in done.stdout
    done = bunri("inspect", pid, "--against", "looked_at:Writer", **path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "limit NOFILE should be (99, 99) is (64, 64)" in " ".join(done.stdout.split())
    done = bunri("inspect", str(os.getpid()), "--against", "looked_at:Quiet", "--json", **path)
    assert done.returncode == 1
    (compared,) = json.loads(done.stdout)
    fields = {field for field, _, _ in compared["differences"]}
    assert {"no_new_privs", "seccomp_mode", "mounts", "limit NOFILE"} <= fields


@pytest.mark.skipif(not IS_ROOT, reason="reading a filter takes CAP_SYS_ADMIN in the first user namespace")
def test_filters_are_disassembled_and_the_process_goes_on(worker: Any) -> None:
    assert worker.ping() == 1
    (found,) = told(str(worker.process.pid), "--filters")
    if found["filters"] is None:
        pytest.skip(f"the kernel does not show filters: {found['hidden']['filters']}")
    subject = of_compartment(looked_at.Quiet, detect())
    planned = [program.listing() for program in subject.filters]
    assert [each["listing"] for each in found["filters"]] == planned
    assert worker.ping() == 1


@pytest.mark.skipif(IS_ROOT, reason="root may read them")
def test_what_may_not_be_read_is_said_to_be_hidden(worker: Any) -> None:
    (found,) = told(str(worker.process.pid), "--filters")
    assert found["filters"] is None
    assert found["hidden"]["filters"]
    (first,) = [each for each in told("1") if each["pid"] == 1]
    assert first["descriptors"] is None
    assert "denied" in first["hidden"]["descriptors"]


def test_a_whole_program_is_one_table(worker: Any) -> None:
    text = bunri("inspect", str(os.getpid())).stdout
    head, *rows = text.splitlines()
    assert head.split()[:3] == ["process", "name", "user"]
    depths = {row.split()[0]: len(row) - len(row.lstrip()) for row in rows}
    assert depths[str(os.getpid())] == 0
    assert depths[str(worker.process.pid)] == 2 * 4  # monitor, base, role, template, worker


def test_a_hostile_name_cannot_steer_the_terminal() -> None:
    """A process may call itself anything (THREATS 25)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(15, b"\x1b]0;own\x07\nroot", 0, 0, 0)
        os.write(writer, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(reader, 1)
        status, text = bunri_on_terminal("inspect", str(child))
        assert status == 0
        assert "\x1b]" not in text
        assert r"\x1b]0;own\x07\x0aroot" in text
        assert "\x1b" not in bunri("inspect", str(child), "--json").stdout
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["999999999"], "there is no process 999999999"),
        (["pyhton-of-nobody"], "no process is called"),
        ([], "PID|NAME"),
        (["2"], "there is no process 2"),
    ],
)
def test_a_mistake_is_one_message(arguments: list[str], words: str) -> None:
    done = bunri("inspect", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_means_all_processes_of_that_name() -> None:
    sleepers = [subprocess.Popen(["sleep", "97"]) for _ in range(2)]
    try:
        found = {each["pid"] for each in told("sleep")}
        assert {each.pid for each in sleepers} <= found
        assert "Did you mean 'sleep'?" in bunri("inspect", "sleeep").stderr
    finally:
        for each in sleepers:
            each.kill()
            each.wait()


@pytest.mark.slow
def test_a_real_vsftpd(tmp_path: Path) -> None:
    """Its monitor keeps root; its session, after login, is nobody in an empty root."""
    vsftpd = shutil.which("vsftpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if vsftpd is None:
        pytest.skip("vsftpd is not installed")
    if not IS_ROOT:
        pytest.skip("vsftpd separates its privileges only when started as root")
    home, empty = tmp_path / "ftp", tmp_path / "empty"
    for folder in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        folder.chmod(0o755)
    home.mkdir()
    empty.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = tmp_path / "vsftpd.conf"
    config.write_text(
        f"listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nanonymous_enable=YES\nlocal_enable=NO\n"
        f"anon_root={home}\nsecure_chroot_dir={empty}\nftp_username=daemon\nbackground=NO\nxferlog_enable=NO\n"
    )
    server = subprocess.Popen([vsftpd, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port))
        with socket.create_connection(("127.0.0.1", port), 10) as control, control.makefile("rwb") as lines:
            _say(lines, None, b"220")
            _say(lines, b"USER anonymous", b"331")
            _say(lines, b"PASS x", b"230")
            found = told(str(server.pid))
            assert found[0]["pid"] == server.pid
            assert found[0]["capabilities"]["effective"]
            sessions = [each for each in found[1:] if each["uids"][1] != 0]
            assert sessions, found
            assert all(not each["capabilities"]["effective"] for each in sessions)
            assert any(each["root"] not in ("ours", None) for each in sessions)
            assert "vsftpd" in bunri("inspect", "vsftpd").stdout
    finally:
        for each in told(str(server.pid))[1:]:
            os.kill(each["pid"], signal.SIGKILL)
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _say(lines: Any, what: bytes | None, answer: bytes) -> None:
    if what is not None:
        lines.write(what + b"\r\n")
        lines.flush()
    line = lines.readline()
    assert line.startswith(answer), line


@pytest.mark.slow
def test_a_real_chromium(tmp_path: Path) -> None:
    """Its renderer has no capability, a filter, and pid and network namespaces of its own."""
    chromium = shutil.which("chromium-headless-shell")
    if chromium is None:
        pytest.skip("chromium-headless-shell is not installed")
    if detect().user_namespaces.value != "full":
        pytest.skip("no user namespaces for Chromium's own sandbox")
    tmp_path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    who: dict[str, Any] = {}
    if IS_ROOT:
        for folder in (tmp_path.parent.parent, tmp_path.parent):
            folder.chmod(0o755)
        os.chown(home, NOBODY_HERE, NOBODY_HERE)
        who = {"user": NOBODY_HERE, "group": NOBODY_HERE, "extra_groups": []}
    browser = subprocess.Popen(
        [chromium, "--remote-debugging-port=0", "--no-first-run", "--disable-gpu", f"--user-data-dir={home}", "about:blank"],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, cwd=home, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who,
    )  # fmt: skip
    found: list[dict[str, Any]] = []
    try:

        def renderers() -> list[dict[str, Any]]:
            found[:] = told(str(browser.pid))
            return [each for each in found if "--type=renderer" in " ".join(each["command"])
                    and each["seccomp"] == "filter"]  # fmt: skip

        until(renderers, 40)
        (first, *_) = renderers()
        assert not first["capabilities"]["effective"]
        assert first["no_new_privs"]
        if first["namespaces"] is not None:
            assert {first["namespaces"][name] for name in ("pid", "net", "user")} == {"own"}
        top = found[0]
        assert top["seccomp"] == "none"
        if IS_ROOT:
            (filtered,) = [each for each in told(str(first["pid"]), "--filters") if each["pid"] == first["pid"]]
            if filtered["filters"] is not None:
                assert filtered["filters"][0]["instructions"] > 50
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
        until(lambda: not any(_is_alive(each["pid"]) for each in found))


def _is_alive(pid: int) -> bool:
    try:
        return facts.read(pid).command != ()
    except (OSError, ProcessLookupError):
        return False
