"""Runs in: the test process, as monitor. Programs that know nothing of bunri, each under a policy of its own.

What a program must not do it tries, and the same without bunri is the control.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import bunri
from bunri import User, fs
from bunri.kernel import procfs

SHELL = bunri.Policy(files=[fs.system()], processes=16, threads=4, may_miss=[bunri.Promise.MEMORY])
ALONE = bunri.Policy(files=[fs.system()])


def output_of(argv: list[str], policy: bunri.Policy = SHELL, **options: object) -> tuple[str, bunri.Exit]:
    """What a program writes to both of its outputs, and how it ended."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        try:
            process = bunri.spawn(argv, policy, stdout=writer, stderr=writer, **options)  # type: ignore[arg-type]
        finally:
            os.close(writer)
        return pipe.read().decode(), process.wait()


def shell(script: str, policy: bunri.Policy = SHELL, **options: object) -> tuple[str, bunri.Exit]:
    return output_of(["sh", "-c", script], policy, **options)


def test_a_program_runs_and_its_exit_code_is_told() -> None:
    assert output_of(["echo", "one", "two words"]) == ("one two words\n", bunri.Exit(code=0))
    assert shell("exit 7")[1] == bunri.Exit(code=7)
    assert shell("kill -TERM $$")[1] == bunri.Exit(signal=signal.SIGTERM)


def test_it_sees_only_what_is_granted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    command = f"cat {tmp_path}/secret; ls /home /root; cat /etc/shadow"
    assert "s3cret" in subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False).stdout
    text, ended = shell(command)
    assert "s3cret" not in text and text.count("No such file or directory") == 4
    assert ended.code != 0


def test_it_may_write_where_that_is_granted_and_read_elsewhere(folders: tuple[Path, Path]) -> None:
    readable, writable = folders
    (readable / "in").write_text("content")
    policy = SHELL.with_(files=[fs.system(), fs.read(readable, at="/in"), fs.write(writable, at="/out")])
    text, ended = shell("cat /in/in > /out/copy && cat /out/copy; echo x > /in/other", policy)
    assert text.startswith("content") and "Read-only" in text
    assert ended.code != 0
    assert (writable / "copy").read_text() == "content"
    assert not (readable / "other").exists()


SETS_IDS = """
import ctypes, os, sys
os.chdir(sys.argv[1])
os.umask(0)
libc = ctypes.CDLL(None)
for bits in (0o4755, 0o2755):
    for name, make in {
        "chmod": lambda: os.chmod("plain", bits),
        "fchmod": lambda: os.fchmod(os.open("plain", os.O_RDONLY), bits),
        "fchmodat": lambda: os.chmod("plain", bits, dir_fd=os.open(".", os.O_RDONLY)),
        "fchmodat2": lambda: libc.syscall(452, -100, b"plain", bits, 0),
        "open": lambda: os.open("opened", os.O_CREAT | os.O_WRONLY, bits),
        "creat": lambda: libc.creat(b"created", bits),
        "tmpfile": lambda: os.link(f"/proc/self/fd/{os.open('.', os.O_TMPFILE | os.O_WRONLY, bits)}", "linked"),
        "mknod": lambda: os.mknod("made", 0o100000 | bits),
    }.items():
        open("plain", "w").close()
        try:
            make()
        except OSError:
            pass
        for file in os.listdir("."):
            if os.stat(file).st_mode & 0o6000:
                print(name, oct(bits))
            os.unlink(file)
os.close(os.open("plain", os.O_CREAT, 0o600))
os.chmod("plain", 0o755)
print("end", oct(os.stat("plain").st_mode))
"""


@pytest.mark.parametrize("syscalls", [(), ("chmod", "fchmod", "mknod", "@fattr")], ids=["", "granted"])
def test_it_leaves_no_file_behind_that_makes_others_act_as_its_user(
    folders: tuple[Path, Path], syscalls: tuple[str, ...]
) -> None:
    """Outside its own mount the bits would count: any user could execute that file as the one whom it ran as."""
    writable = folders[1]
    policy = SHELL.with_(files=[fs.system(), fs.write(writable)], user=User.same(), syscalls=syscalls)
    plain = subprocess.run([python(), "-c", SETS_IDS, writable], capture_output=True, text=True, check=True).stdout
    assert {"chmod 0o4755", "chmod 0o2755", "open 0o4755", "mknod 0o4755"} <= set(plain.splitlines())
    assert output_of([python(), "-c", SETS_IDS, str(writable)], policy)[0] == "end 0o100755\n"


def test_environment_and_folder_are_those_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    policy = SHELL.with_(env={"FROM_POLICY": "p"})
    text, _ = shell("env; pwd", policy, env={"FROM_CALL": "c"}, cwd="/usr/lib")
    words = text.split()
    assert {"FROM_POLICY=p", "FROM_CALL=c", "/usr/lib"} <= set(words)
    assert "s3cret" not in text


def test_names_that_are_no_text_go_through(folders: tuple[Path, Path]) -> None:
    """As Python has them from its own command line."""
    readable, _ = folders
    name = os.fsdecode(b"caf\xe9")
    (readable / name).mkdir()
    os.chmod(readable / name, 0o755)
    policy = SHELL.with_(files=[fs.system(), fs.read(readable, at="/in")])
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        command = ["sh", "-c", 'echo "$0" "$NAME"; pwd', name]
        process = bunri.spawn(command, policy, stdout=writer, env={"NAME": name}, cwd=f"/in/{name}")
        os.close(writer)
        assert pipe.read() == b"caf\xe9 caf\xe9\n/in/caf\xe9\n"
        assert process.wait().code == 0
    with pytest.raises(FileNotFoundError):
        bunri.spawn([f"/in/{name}/{name}"], policy)


def test_no_descriptor_of_ours_is_open_in_it() -> None:
    with open("/etc/passwd") as file:
        os.set_inheritable(file.fileno(), True)
        text, _ = shell("for n in 3 4 5 6 7 8 9; do (: <&$n) 2>/dev/null && echo $n; done; echo end")
    assert text == "end\n"


def test_one_that_may_have_no_processes_cannot_fork() -> None:
    program = "import os\ntry:\n    os.fork()\nexcept OSError as fault:\n    print(fault.errno)"
    text, ended = output_of([python(), "-c", program], ALONE)
    assert (text, ended) == ("1\n", bunri.Exit(code=0))
    assert output_of([python(), "-c", "import os\nif os.fork():\n    os.wait()\n    print('forked')"])[0] == "forked\n"


@pytest.mark.parametrize(
    "call", ["ptrace(0, 0, 0, 0)", "unshare(0x10000000)", "syscall(317, 1, 0, 0)", "mount(0, 0, 0, 0, 0)"]
)
def test_attack_shaped_calls_are_death(call: str) -> None:
    """317 is seccomp(2), which its launcher needed: the last filter takes it away."""
    if os.uname().machine != "x86_64" and "317" in call:
        pytest.skip("the number is x86-64's")
    program = f"import ctypes\nprint(ctypes.CDLL(None).{call})"
    plain = subprocess.run([python(), "-c", program], capture_output=True, text=True, check=False)
    assert plain.returncode == 0
    text, ended = output_of([python(), "-c", program], SHELL)
    assert (text, ended.signal) == ("", signal.SIGSYS)
    assert ended.cause is not None and "filter" in ended.cause


def test_it_has_no_network() -> None:
    program = "import socket\ntry:\n    socket.socket()\nexcept OSError as fault:\n    print(fault.errno)"
    assert output_of([python(), "-c", program])[0] == "1\n"


def test_what_it_leaves_behind_ends_with_it() -> None:
    process = bunri.spawn(["sh", "-c", "sleep 1000 & read until; exit 0"], SHELL, stdin=bunri.PIPE)
    assert process.stdin is not None
    until = time.monotonic() + 25
    while not (inside := procfs.children(process.pid)):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.stdin.close()
    assert process.wait() == bunri.Exit(code=0)
    while any(os.path.exists(f"/proc/{pid}") for pid in inside):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_pipes_and_signals() -> None:
    process = bunri.spawn(["cat"], ALONE, stdin=bunri.PIPE, stdout=bunri.PIPE)
    assert process.stdin is not None and process.stdout is not None and process.stderr is None
    os.write(process.stdin.fileno(), b"round trip")
    assert os.read(process.stdout.fileno(), 100) == b"round trip"
    process.signal(signal.SIGTERM)
    assert process.wait() == bunri.Exit(signal=signal.SIGTERM)
    process.signal(signal.SIGTERM)  # nothing to be told
    process.stdin.close()
    process.stdout.close()


def test_a_file_as_a_stream_keeps_its_offset(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        file.write(b"before\n")
        assert bunri.spawn(["echo", "inside"], ALONE, stdout=file).wait().code == 0
        file.write(b"after\n")
    assert (tmp_path / "log").read_text() == "before\ninside\nafter\n"


def test_a_terminal_of_its_own() -> None:
    script = "test -t 0 && test -t 2 && stty size; read line; echo got $line; exec cat"
    process = bunri.spawn(["sh", "-c", script], SHELL, tty=bunri.PIPE)
    assert process.tty is not None
    with process.tty as tty:
        os.write(tty.fileno(), b"words\n")
        seen = b""
        while b"got words" not in seen:
            seen += os.read(tty.fileno(), 1000)
        assert b"0 0" in seen
        os.write(tty.fileno(), b"again\n")
        while seen.count(b"again") < 2:  # the terminal's echo, and cat's: the shell, which may lose a signal, has gone
            seen += os.read(tty.fileno(), 1000)
        os.write(tty.fileno(), b"\x03")  # Ctrl-C, which the terminal makes a signal of
        assert process.wait().signal == signal.SIGINT


def test_what_types_on_the_terminal_dies() -> None:
    """TIOCSTI, by which a program types what its caller's shell would execute (THREATS 25)."""
    program = "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')"
    process = bunri.spawn([python(), "-c", program], ALONE, tty=bunri.PIPE)
    assert process.tty is not None
    with process.tty:
        assert process.wait().signal == signal.SIGSYS


def test_what_is_not_there_is_a_plain_error() -> None:
    with pytest.raises(FileNotFoundError, match="is not there, inside"):
        bunri.spawn(["no-such-program"], ALONE)
    with pytest.raises(PermissionError, match="cannot be executed"):
        bunri.spawn(["/usr/lib/os-release"], ALONE)
    with pytest.raises(FileNotFoundError, match="no folder"):
        bunri.spawn(["true"], ALONE, cwd="/nowhere")


@pytest.mark.parametrize(
    ("argv", "policy", "options", "said"),
    [
        ("ls", ALONE, {}, "list of words"),
        ([], ALONE, {}, "list of words"),
        (["a\0b"], ALONE, {}, "NUL"),
        (["", "x"], ALONE, {}, "names the program"),
        (["true"], bunri.Policy(), {}, "nothing that may be executed"),
        (["true"], bunri.Policy.compute(), {}, "compute"),
        (["true"], bunri.Policy(user=bunri.AT_START, files=[fs.system()]), {}, "open"),
        (["true"], ALONE.with_(open_files=8), {}, "at least 24"),
        (["true"], ALONE, {"env": {"A=B": "c"}}, "no '='"),
        (["true"], ALONE, {"env": {"": "c"}}, "no '='"),
        (["true"], ALONE, {"env": {"A": "b\0c"}}, "NUL"),
        (["true"], ALONE, {"cwd": "/a\0b"}, "NUL"),
        (["true"], ALONE, {"stdout": 9999}, "not open"),
        (["true"], ALONE, {"tty": 0}, "no terminal"),
    ],
)
def test_what_cannot_be_meant_is_said(
    argv: list[str], policy: bunri.Policy, options: dict[str, Any], said: str
) -> None:
    reader, writer = os.pipe()
    try:
        options = {name: reader if name == "tty" else value for name, value in options.items()}
        with pytest.raises(bunri.UsageError, match=said):
            bunri.spawn(argv, policy, **options)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_folder_is_no_stream(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(bunri.UsageError):
            bunri.spawn(["true"], ALONE, stdin=folder)
    finally:
        os.close(folder)


def test_wall_and_processor_time_end_it() -> None:
    ended = bunri.spawn(["sleep", "100"], ALONE.with_(wall="0.3s")).wait()
    assert ended.signal == signal.SIGKILL and ended.cause is not None and "wall" in ended.cause
    ended = bunri.spawn(["sh", "-c", "while :; do :; done"], ALONE.with_(cpu="0.3s")).wait()
    assert ended.signal == signal.SIGKILL and ended.cause is not None and "CPU" in ended.cause


def test_a_deadline_around_the_start_is_not_one_of_its_life() -> None:
    with bunri.deadline(20):
        process = bunri.spawn(["cat"], ALONE, stdin=bunri.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == bunri.Exit(code=0)


def test_many_at_once_and_nothing_left() -> None:
    before = len(os.listdir("/proc/self/fd"))
    found: list[bunri.Exit] = []

    def one() -> None:
        found.extend(bunri.spawn(["true"], ALONE).wait() for _ in range(3))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [bunri.Exit(code=0)] * 12
    until = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) > before + 8 and time.monotonic() < until:  # those of its zygotes stay
        time.sleep(0.02)
    assert len(os.listdir("/proc/self/fd")) <= before + 8


def test_waiting_on_a_loop() -> None:
    async def main() -> bunri.Exit:
        process = bunri.spawn(["sh", "-c", "read line; exit 4"], SHELL, stdin=bunri.PIPE)
        with pytest.raises(bunri.UsageError, match=r"await bunri\.call\(process\.wait"):
            process.wait()
        assert process.stdin is not None
        process.stdin.close()
        ended = await bunri.call(process.wait)
        assert process.wait() == ended, "it is known, and nobody is held up"
        return ended

    assert asyncio.run(main()) == bunri.Exit(code=4)


@pytest.mark.parametrize(
    "script",
    [
        "ls -l /usr/bin/env >/dev/null",
        "cp /usr/bin/env /w/y && cp -a /w/y /w/x",
        "cp /usr/bin/env /w/y && sed -i s/a/b/ /w/y",
    ],
)
def test_programs_that_ask_for_extended_attributes_go_on(script: str) -> None:
    """With EPERM they complain, or end; they are answered as by a file system that has none."""
    assert shell(script, SHELL.with_(files=[fs.system(), fs.scratch("/w", "4M")])) == ("", bunri.Exit(code=0))


def test_the_report_says_what_holds() -> None:
    process = bunri.spawn(["sleep", "100"], ALONE)
    layers = {layer.name: layer for layer in process.report.layers}
    assert layers["filter"].observed_by is bunri.Observer.MONITOR
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status
    process.signal(signal.SIGKILL)
    assert process.wait() == bunri.Exit(signal=signal.SIGKILL)


def python() -> str:
    """The distribution's interpreter, which fs.system() grants; the tests' own may lie anywhere."""
    found = "/usr/bin/python3"
    if not os.path.exists(found):
        pytest.skip(f"{sys.executable} is the only Python here, and it is not in /usr")
    return found


def test_memory_is_locked_by_no_program_that_is_confined_and_by_others_as_by_us() -> None:
    """Zygotes of root may pin more of it than their monitor (kernel/pinned.py)."""
    ours = subprocess.run(["sh", "-c", "ulimit -H -l"], capture_output=True, text=True, check=True).stdout
    assert shell("ulimit -H -l")[0] == "0\n"
    assert shell("ulimit -H -l", bunri.Policy.dangerous_unconfined())[0] == ours
