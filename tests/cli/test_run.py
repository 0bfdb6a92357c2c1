"""Runs in: the test process. `bunri run` as a user runs it: real programs with small policies, and what they may not do."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import COMMAND, bunri, bunri_on_terminal, environment

from bunri import seccomp

pytestmark = pytest.mark.slow  # each starts a command, an interpreter and a zygote


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may read and write, wherever pytest's own are hidden."""
    made = Path(tempfile.mkdtemp(prefix="bunri-"))
    os.chmod(made, 0o777)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def need(program: str) -> str:
    """Its path, if it is one that fs.system() grants."""
    found = shutil.which(program, path="/usr/bin:/usr/local/bin:/bin")
    if found is None:
        pytest.skip(f"{program} is not installed in /usr")
    return found


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    os.chmod(path, 0o755)
    return path


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -KILL $$"], 128 + 9),
        (["no-such-command"], 127),
        (["/usr/lib/os-release"], 126),
    ],
)
def test_the_exit_status_is_the_commands(command: list[str], status: int) -> None:
    assert bunri("run", "--", *command).returncode == status


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nonsense", "true"], "--nonsense"),
        (["--memory", "much", "true"], "memory"),
        (["--allow", "no_such_call", "true"], "no_such_call"),
        (["--connect", "somewhere", "true"], "HOST:PORT"),
        (["--env", "NO_SUCH_VARIABLE", "true"], "NO_SUCH_VARIABLE"),
        (["--may-miss", "hope", "true"], "files"),
        (["--read", "/no/such/path", "true"], "/no/such/path"),
        (["--read", "", "true"], "there is no path"),
        (["--write", ":/data", "true"], "there is no path"),
        ([""], "names the program"),
        (["--bare", "true"], "fs.system()"),
        (["--cwd", "/no/such/folder", "true"], "/no/such/folder"),
        ([], "COMMAND"),
    ],
)
def test_what_cannot_be_started_is_125_and_says_why(options: list[str], said: str) -> None:
    done = bunri("run", *options)
    assert (done.returncode, done.stdout) == (125, "")
    assert said in done.stderr and "Traceback" not in done.stderr


def test_streams_go_through_and_nothing_is_added(folder: Path) -> None:
    (folder / "in").write_text("b\na\n")
    with (folder / "in").open() as source:
        done = subprocess.run(
            [*COMMAND, "run", "--", "sort"],
            stdin=source,
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nb\n", "")


@pytest.mark.parametrize(("closed", "empty"), [("<&-", [0]), (">&-", [1]), ("2>&-", [2]), ("<&- >&- 2>&-", [0, 1, 2])])
def test_a_stream_that_is_closed_is_no_descriptor_of_ours(closed: str, empty: list[int]) -> None:
    """The first that bunri opens would else have its number: with --explain, what its own thread waits with."""
    need("python3")
    look = "import os, stat; os._exit(sum(2 ** n for n in (0, 1, 2) if stat.S_ISCHR(os.fstat(n).st_mode)))"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "run", "--explain", "--", "python3", "-c", look]
    done = subprocess.run(
        command, stdin=subprocess.PIPE, capture_output=True, env=environment(), timeout=60, check=False
    )
    assert done.returncode == sum(2**number for number in empty), done


def test_it_sees_the_system_and_what_is_granted_and_nothing_else(folder: Path) -> None:
    (folder / "granted").write_text("seen")
    (folder / "other").write_text("s3cret")
    look = f"cat {folder}/granted; cat {folder}/other; cat /etc/shadow /etc/passwd; ls -a /root /home; env"
    plain = subprocess.run(["sh", "-c", look], capture_output=True, text=True, check=False)
    assert "s3cret" in plain.stdout and "root:" in plain.stdout
    done = bunri("run", "--read", folder / "granted", "--", "sh", "-c", look, SECRET_TOKEN="s3cret")
    assert done.stdout.startswith("seen") and "s3cret" not in done.stdout and "root:" not in done.stdout


def test_the_current_folder_is_kept_where_it_is_granted(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    os.chmod(inner, 0o755)

    def where(*options: str) -> str:
        command = [*COMMAND, "run", *options, "--", "pwd"]
        return subprocess.run(command, cwd=inner, capture_output=True, text=True, env=environment(), check=True).stdout

    assert where("--read", "..") == f"{inner}\n"
    assert where("--read", "..:/data") == "/data/inner\n"
    assert where() == "/\n"


def test_a_current_folder_that_is_not_there_inside_is_no_mistake(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    libraries = filter(os.path.exists, ("/usr/bin", "/usr/lib", "/lib", "/lib64"))
    bare = ["--bare", *(word for path in libraries for word in ("--execute", path))]
    cases = (
        (f"cd {gone}; rmdir {gone}", [], "/"),
        ("cd /usr/share", bare, "/"),
        ("cd /usr/share", [], "/usr/share"),
    )
    for script, options, where in cases:
        command = ["sh", "-c", f'{script}; exec "$@"', "sh", *COMMAND, "run", *options, "--", "/usr/bin/env", "pwd"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, f"{where}\n"), done


def test_a_policy_file_is_what_it_starts_from(folder: Path) -> None:
    file = folder / "policy.toml"
    file.write_text('version = 1\nfiles = ["fs.system()"]\nmemory = "512M"\n[env]\nGREETING = "hello"\n')
    assert bunri("run", "--policy", file, "--", "printenv", "GREETING").stdout == "hello\n"
    forks = bunri("run", "--policy", file, "--", "sh", "-c", "ls & wait")
    assert forks.returncode != 0  # it grants no processes
    file.write_text('version = 1\nmemry = "512M"\n')
    done = bunri("run", "--policy", file, "--", "true")
    assert done.returncode == 125 and "'memory'" in done.stderr
    assert done.stderr.startswith(f"bunri run: {file}: $.memry"), done.stderr


def test_a_compiler_and_what_it_made(folder: Path) -> None:
    need("gcc")
    script(folder, "hello.c", '#include <stdio.h>\nint main(void) { puts("compiled"); }\n')
    made = folder / "made"
    made.mkdir()
    os.chmod(made, 0o777)
    options = ["--read", f"{folder}/hello.c:/hello.c", "--write", f"{made}:/made", "--scratch", "/tmp"]
    done = bunri("run", *options, "--", "gcc", "-o", "/made/hello", "/hello.c")
    assert done.returncode == 0, done.stderr
    assert bunri("run", "--write", f"{made}:/made", "--", "/made/hello").returncode == 126  # what is writable is noexec
    assert (made / "hello").exists()


def test_a_drawing_that_includes_other_peoples_pictures(folder: Path) -> None:
    """ImageMagick reads what a drawing names; so the sender of one gets a picture of his victim's into the output."""
    convert = need("convert")
    private, drawing, out = folder / "private.png", folder / "drawing.mvg", folder / "out"
    out.mkdir()
    os.chmod(out, 0o777)
    subprocess.run([convert, "-size", "8x8", "xc:red", private], check=True)
    os.chmod(private, 0o644)
    drawing.write_text(f"viewbox 0 0 16 16\nfill blue\nrectangle 0,0 16,16\nimage over 0,0 8,8 '{private}'\n")
    os.chmod(drawing, 0o644)

    def pixel(picture: Path) -> str:
        shown = [convert, picture, "-format", "%[pixel:p{2,2}]", "info:"]
        return subprocess.run(shown, capture_output=True, text=True, check=True).stdout

    subprocess.run([convert, f"mvg:{drawing}", out / "plain.png"], check=True)
    assert pixel(out / "plain.png") == "srgb(255,0,0)"  # the control: it got it
    granted = ["--read", str(drawing), "--write", str(out), "--memory", "2G"]
    refused = bunri("run", *granted, "--", "convert", f"mvg:{drawing}", str(out / "confined.png"))
    assert str(private) in refused.stderr
    assert not (out / "confined.png").exists() or pixel(out / "confined.png") != "srgb(255,0,0)"
    drawing.write_text("viewbox 0 0 16 16\nfill blue\nrectangle 0,0 16,16\n")
    honest = bunri("run", *granted, "--", "convert", f"mvg:{drawing}", str(out / "honest.png"))
    assert honest.returncode == 0, honest.stderr
    assert pixel(out / "honest.png") == "srgb(0,0,255)"


def test_git_clones_what_is_granted(folder: Path) -> None:
    need("git")
    source, target = folder / "source", folder / "target"
    target.mkdir()
    os.chmod(target, 0o777)
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", "-C", str(source)]
    subprocess.run(["git", "init", "-q", str(source)], check=True)
    (source / "file").write_text("content")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    options = ["--user", "same", "--read", f"{source}:/source", "--write", f"{target}:/target"]  # git wants its owner
    done = bunri("run", *options, "--", "git", "clone", "-q", "/source", "/target/clone")
    assert done.returncode == 0, done.stderr
    assert (target / "clone" / "file").read_text() == "content"


def test_python_with_its_libraries() -> None:
    need("python3")
    program = "import json, sqlite3; print(json.dumps(sqlite3.connect(':memory:').execute('select 1').fetchone()))"
    assert bunri("run", "--", "/usr/bin/python3", "-c", program).stdout == "[1]\n"


def test_a_just_in_time_compiler_needs_its_danger_spelled() -> None:
    node = need("node")
    options = ["--memory", "64G"]  # it reserves address space by the gigabyte
    assert bunri("run", *options, "--", node, "-e", "console.log(1)").returncode != 0
    done = bunri("run", *options, "--dangerous-jit", "--", node, "-e", "console.log(1)")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_client_reaches_the_granted_address_only(folder: Path) -> None:
    need("curl")
    (folder / "page").write_text("the page")
    with subprocess.Popen(
        ["/usr/bin/python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as web:  # fmt: skip
        try:
            assert web.stdout is not None
            port = web.stdout.readline().split("port ")[1].split()[0]
            url = f"http://127.0.0.1:{port}/page"
            assert bunri("run", "--connect", f"127.0.0.1:{port}", "--", "curl", "-sS", url).stdout == "the page"
            assert bunri("run", "--connect", "127.0.0.1:1", "--", "curl", "-sS", url).returncode == 7
            assert bunri("run", "--", "curl", "-sS", url).returncode == 7
        finally:
            web.kill()


def test_time_and_memory_are_bounded() -> None:
    done = bunri("run", "--wall", "0.5s", "--", "sleep", "100")
    assert done.returncode == 128 + 9 and "wall time" in done.stderr
    hungry = "x = b'x' * 400_000_000; print(len(x))"
    assert bunri("run", "--", "/usr/bin/python3", "-c", hungry).stdout == "400000000\n"
    assert "MemoryError" in bunri("run", "--memory", "100M", "--", "/usr/bin/python3", "-c", hungry).stderr


def test_explain_says_what_was_refused_and_the_option_that_allows_it() -> None:
    """The option that it names is tried: with it, that refusal is gone."""
    need("python3")
    connects = ["--", "python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    without = bunri("run", "--explain", *connects)
    assert without.returncode == 1
    assert "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, 6)  by seccomp filter" in without.stderr
    assert "--connect HOST:PORT" in without.stderr
    other = bunri("run", "--explain", "--connect", "127.0.0.1:8", *connects)
    assert "connect(3, '127.0.0.1:9', 16)  by broker" in other.stderr
    assert "--connect 127.0.0.1:9" in other.stderr
    as_json = bunri("run", "--json", "--connect", "127.0.0.1:8", *connects)
    refused = json.loads(as_json.stderr.splitlines()[-1])
    assert (refused["call"], refused["address"], refused["layer"]) == ("connect", "127.0.0.1:9", "broker")
    granted = bunri("run", "--explain", "--connect", "127.0.0.1:9", *connects)
    assert "Connection refused" in granted.stderr  # by nobody but the kernel: nothing listens
    assert "refused it nothing" in granted.stderr
    assert "by broker" not in bunri("run", "--connect", "127.0.0.1:8", *connects).stderr  # told to who asks for it


def test_explain_tells_of_a_death_and_of_what_is_named_by_a_rule() -> None:
    need("python3")
    killed = bunri("run", "--explain", "--", "python3", "-c", "import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0)")
    assert killed.returncode == 128 + signal.SIGKILL  # by its monitor: the call never had an answer
    assert "ptrace(" in killed.stderr
    assert "--allow dangerous_ptrace" in killed.stderr


def test_explain_says_where_an_option_allows_more_than_was_refused() -> None:
    need("python3")
    asks = "import fcntl; fcntl.ioctl(0, 0x5412, b'a')"  # TIOCSTI
    told = bunri("run", "--explain", "--", "python3", "-c", asks).stderr
    assert "  --allow ioctl\n" in told
    assert "narrower, in Python: Policy(syscalls=[seccomp.allow('ioctl', when=Arg(1).int32 == 0x5412" in told


def test_explain_does_not_promise_itself() -> None:
    """Only one filter of a process can ask; what another one kills is not told, and that is said."""
    need("python3")
    call = "import ctypes; ctypes.CDLL(None).syscall({number}, 1, 0, 0)"
    number = seccomp.syscalls_of(os.uname().machine)["seccomp"]
    options = ["--", "python3", "-c", call.format(number=number)]
    plain, explained = bunri("run", *options), bunri("run", "--explain", *options)
    assert plain.returncode == explained.returncode == 128 + signal.SIGSYS
    assert "--explain" in plain.stderr
    assert "is not told" in explained.stderr and "--explain" not in explained.stderr
    assert "refused it nothing" not in explained.stderr


def test_a_signal_to_it_reaches_the_command() -> None:
    command = [
        *COMMAND,
        "run",
        "--",
        "sh",
        "-c",
        "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.1; done",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "told\n"
    assert process.returncode == 9


def test_a_signal_that_it_was_told_to_ignore_does_not_reach_the_command() -> None:
    """nohup does so, and a shell with SIGINT for what it runs in the background."""
    ignoring = ["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh", *COMMAND, "run"]
    with subprocess.Popen(
        [*ignoring, "--", "sh", "-c", "echo ready; read word; exit 5"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.stdin.write(b"word\n")
    assert process.returncode == 5


def test_while_it_is_stopped_the_command_stands_still() -> None:
    command = [*COMMAND, "run", "--", "sh", "-c", "while :; do echo on; sleep 0.02; done"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None and process.stdout.readline() == b"on\n"
        try:
            process.send_signal(signal.SIGTSTP)
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            time.sleep(0.2)
            os.set_blocking(process.stdout.fileno(), False)
            process.stdout.read()
            time.sleep(0.5)
            assert process.stdout.read() is None
            process.send_signal(signal.SIGCONT)
            os.set_blocking(process.stdout.fileno(), True)
            assert process.stdout.readline() == b"on\n"
            process.terminate()
            assert process.wait(20) == 128 + signal.SIGTERM
        finally:
            process.kill()


def test_when_it_is_killed_the_command_ends() -> None:
    marker = f"{os.getpid()}{time.monotonic_ns()}"
    with subprocess.Popen(
        [*COMMAND, "run", "--", "sh", "-c", f"echo ready; : {marker}; sleep 1000; :"],
        stdout=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.kill()
    until = time.monotonic() + 5
    while commands_with(marker):
        assert time.monotonic() < until
        time.sleep(0.02)


def commands_with(marker: str) -> list[str]:
    found: list[str] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if name != str(os.getpid()) and marker.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(name)
        except OSError:
            continue
    return found


def test_on_a_terminal_it_has_one_of_its_own() -> None:
    status, text = bunri_on_terminal(
        "run", "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && tput cols && exit 5"
    )
    assert (status, text) == (5, "80\r\n") or status == 5


class Terminal:
    """A user at a terminal, with `bunri run` on it."""

    def __init__(self, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.kept = theirs
        self.process = subprocess.Popen(
            [*COMMAND, "run", *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment(TERM="dumb"),
        )  # fmt: skip
        self.seen = b""

    def type(self, text: bytes) -> None:
        os.write(self.ours, text)

    def wait_for(self, text: bytes) -> None:
        until = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < until and select.select([self.ours], [], [], 20)[0], self.seen
            self.seen += os.read(self.ours, 4096)

    def end(self) -> int:
        status = self.process.wait(timeout=20)
        assert termios.tcgetattr(self.kept) == self.before  # as it was
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.kept)


def test_an_interactive_shell() -> None:
    user = Terminal("--", "sh", "-i")
    try:
        user.type(b"stty size; echo $((6*7))\r")
        user.wait_for(b"33 77")
        user.wait_for(b"\r\n42\r\n")
        user.type(b"sleep 1000\r")
        time.sleep(0.3)
        user.type(b"\x03")  # Ctrl-C: for the command, and not for bunri
        user.type(b"echo $?\r")
        user.wait_for(b"130\r\n")
        fcntl.ioctl(user.kept, termios.TIOCSWINSZ, struct.pack("4H", 44, 88, 0, 0))
        os.kill(user.process.pid, signal.SIGWINCH)  # it is not its terminal's, in this test
        time.sleep(0.3)
        user.type(b"stty size\r")
        user.wait_for(b"44 88")
        user.type(b"exit 3\r")
        assert user.end() == 3
    finally:
        user.close()


def test_ctrl_c_ends_a_command_that_does_not_care() -> None:
    user = Terminal("--", "sh", "-c", "echo ready; exec sleep 1000")  # a shell that waits may take it for its child
    try:
        user.wait_for(b"ready")
        user.type(b"\x03")
        assert user.end() == 128 + signal.SIGINT
    finally:
        user.close()


def test_a_command_that_lets_go_of_its_terminal_goes_on() -> None:
    user = Terminal("--", "sh", "-c", "echo ready; exec </dev/null >/dev/null 2>&1; sleep 0.5; exit 7")
    try:
        user.wait_for(b"ready")
        assert user.end() == 7
    finally:
        user.close()


def test_when_the_users_terminal_hangs_up_so_does_the_commands() -> None:
    user = Terminal("--", "sh", "-c", "echo ready; sleep 0.3; echo more; sleep 1000")
    try:
        user.wait_for(b"ready")
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), user.ours)  # closes it
        assert user.process.wait(timeout=20) == 128 + signal.SIGHUP
    finally:
        user.close()


def test_in_the_background_it_runs_and_is_not_stopped() -> None:
    """As with `&` in an interactive shell, whose terminal it then may neither read nor change."""
    shell = (
        "import fcntl, os, subprocess, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "done = subprocess.Popen(sys.argv[1:], process_group=0); os._exit(done.wait())"
    )
    command = [*COMMAND, "run", "--", "sh", "-c", "test -t 0 && echo out; exit 7"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", shell, *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
    )
    os.close(theirs)
    try:
        assert process.wait(timeout=30) == 7
        assert os.read(ours, 100).startswith(b"out")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
