"""Runs in: the developer's machine. Runs pytest as somebody, in a copy of the checkout, and reads what came out.

Started as root, the tests run twice, side by side: as root and as an ordinary user. Both use one copy of the checkout
and of .venv under the temporary directory: owned by root, readable by everybody. So the ordinary user can neither change
the code nor needs a way into the developer's home, and edits made during the run do not disturb it.
The ordinary user is a uid that has no account and no process; what is left of it afterwards is found and ended.
Each run has a process of ours above it, which becomes the parent of what its tests orphan, and so finds it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

TOP = Path(__file__).resolve().parent.parent
LONGEST_RUN = 1200  # seconds for one run of pytest
LONGEST_TEST = 60
PR_SET_CHILD_SUBREAPER = 36
NOT_COPIED = (
    ".git",
    ".venv*",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "site",
    "build",
    "dist",
    "demo-out",
    "*.egg-info",
)


@dataclass(frozen=True)
class Who:
    """The user a run is made as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Place:
    """Where a run is made: the code, its interpreter, a home, a directory for temporary files."""

    checkout: Path
    python: Path
    home: Path
    temporary: Path


@dataclass(frozen=True)
class Case:
    """One test and what became of it."""

    name: str
    outcome: str  # passed, failed, skipped; known: an expected failure
    detail: str = ""


@dataclass
class Outcome:
    """One row of the final table."""

    what: str
    python: str = ""
    who: str = ""
    cases: list[Case] = field(default_factory=list[Case])
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    def count(self, outcome: str) -> int:
        return sum(case.outcome == outcome for case in self.cases)

    @property
    def passed(self) -> bool:
        return not self.problems and not self.count("failed")


class NotPossible(Exception):
    """A run that this host cannot make, with the reason."""


# Who, and where


def me() -> Who:
    return Who("root" if os.getuid() == 0 else "ordinary user", os.getuid(), os.getgid())


def a_free_uid() -> Who:
    """A uid without an account and without a process. Drawn from a range, so that two suites at once do not meet."""
    accounts = {entry.pw_uid for entry in pwd.getpwall()}
    start = os.getpid() % 900
    for offset in range(900):
        uid = 59100 + (start + offset) % 900
        if uid not in accounts and not processes_of(uid):
            return Who("ordinary user", uid, uid)
    raise NotPossible("every uid from 59100 to 59999 is in use")


def processes_of(uid: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid or f"\nUid:\t{uid}\t" in (entry / "status").read_text():
                    found.append(int(entry.name))
    return found


def version_of(python: Path) -> str:
    """3.11.2, say; empty when it does not run."""
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", "import platform; print(platform.python_version())"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def not_for_all(python: Path) -> str:
    """Empty when everybody may run this interpreter; otherwise the directory or file in the way."""
    real = python.resolve()
    for path in [*reversed(real.parents), real]:
        if not path.stat().st_mode & 0o001:
            return str(path)
    return ""


@contextlib.contextmanager
def copies() -> Generator[Path]:
    """A fresh directory with a copy of the checkout in it; removed at the end, whatever happens."""
    top = Path(tempfile.mkdtemp(prefix="bunri-"))
    try:
        top.chmod(0o755)
        shutil.copytree(TOP, top / "checkout", ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        open_to_readers(top / "checkout")
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def open_to_readers(tree: Path) -> None:
    """Root's files, readable by everybody, writable by root only."""
    for directory, _, files in os.walk(tree):
        for name in [".", *files]:
            path = Path(directory, name)
            if path.is_symlink():
                continue
            mode = path.stat().st_mode & 0o777
            path.chmod((mode & 0o755) | 0o444 | (0o111 if mode & 0o100 else 0))
            if os.getuid() == 0:
                os.chown(path, 0, 0)


def copied_python(real: Path, top: Path) -> Path:
    """A copy of an interpreter that lies in somebody's home, where everybody can run it.

    Not only the runs as an ordinary user need it: root's workers have user ids of their own, and load its library.
    """
    prefix = real.parent.parent
    library = f"python{'.'.join(version_of(real).split('.')[:2])}"
    new = top / f"base-{library}"
    (new / "bin").mkdir(parents=True)
    shutil.copytree(
        prefix / "lib" / library,
        new / "lib" / library,
        symlinks=True,
        ignore=shutil.ignore_patterns("test", "site-packages", "__pycache__", "idlelib", "config-*"),
    )
    # The path of its shared library is written into the program; a relative one of the same length takes its place.
    there, here = f"{prefix}/lib\0".encode(), b"$ORIGIN/../lib\0"
    for source in [real, *(prefix / "lib").glob("libpython3*.so*")]:
        target = new / source.relative_to(prefix)
        target.write_bytes(source.read_bytes().replace(there, here.ljust(len(there), b"\0")))
        target.chmod(0o755)
    open_to_readers(new)
    program = new / real.relative_to(prefix)
    if not version_of(program):
        raise NotPossible(f"only its owner may enter {not_for_all(real)}, and a copy of it does not run")
    subprocess.run([program, "-m", "compileall", "-qq", new / "lib"], check=False)
    return program


def copied_venv(venv: Path, top: Path) -> Path:
    """A copy of a virtual environment in which `bunri` is the copied checkout; its python."""
    real = (venv / "bin/python").resolve()
    if os.getuid() == 0 and not_for_all(real):
        real = copied_python(real, top)
    version = ".".join(version_of(real).split(".")[:2])
    new = top / venv.name.lstrip(".")
    subprocess.run([real, "-m", "venv", "--without-pip", "--symlinks", new], check=True)
    site = new / f"lib/python{version}/site-packages"
    shutil.rmtree(site)
    # cp, because it shares the blocks with the original where the file system can.
    subprocess.run(
        ["cp", "-r", "--preserve=timestamps", "--reflink=auto", venv / f"lib/python{version}/site-packages", site],
        check=True,
    )
    for editable in site.glob("*bunri*.pth"):
        editable.unlink()
    (site / "bunri-checkout.pth").write_text(f"{top / 'checkout/src'}\n")
    open_to_readers(site)
    # The ordinary user cannot write caches beside the code; without them each start would compile all of it.
    subprocess.run(
        [new / "bin/python", "-m", "compileall", "-qq", top / "checkout/src", top / "checkout/tests"], check=False
    )
    return new / "bin/python"


def place_for(who: Who, top: Path, python: Path) -> Place:
    home = Path(tempfile.mkdtemp(prefix="h", dir=top))
    temporary = Path(tempfile.mkdtemp(prefix="t", dir=top))
    for directory in (home, temporary):
        os.chown(directory, who.uid, who.gid)
        directory.chmod(0o700 if who.uid else 0o755)
    return Place(top / "checkout", python, home, temporary)


# One run


def environment(place: Place) -> dict[str, str]:
    """Nothing of the developer's own environment: a PYTHONPATH or a locale must not decide a test."""
    kept = {name: os.environ[name] for name in ("CI", "TERM") if name in os.environ}
    return kept | {
        "PATH": f"{place.python.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(place.home),
        "TMPDIR": str(place.temporary),
        "USER": "bunri-test",
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(place.temporary / "hypothesis"),
    }


def run_pytest(who: Who, place: Place, arguments: list[str], prints: IO[bytes] | None) -> Outcome:
    """Runs pytest and reads its record. What it prints goes straight through, or into the file."""
    record = place.temporary / "record.xml"
    outcome = Outcome("pytest", version_of(place.python), who.name)
    command = [
        str(place.python),
        "-m",
        "pytest",
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
    ]
    command += [f"--timeout={LONGEST_TEST}", f"--session-timeout={LONGEST_RUN}", f"--junitxml={record}", *arguments]
    started = time.monotonic()
    other = who.uid != os.getuid()
    process = subprocess.Popen(
        command,
        cwd=place.checkout,
        env=environment(place),
        stdin=subprocess.DEVNULL,
        stdout=prints,
        stderr=prints,
        start_new_session=True,
        umask=0o022,
        user=who.uid if other else None,
        group=who.gid if other else None,
        extra_groups=() if other else None,
    )
    try:
        # pytest ends by itself after its session's time, and writes its record; the rest is for one that does not.
        status = reap_until(process, started + LONGEST_RUN + LONGEST_TEST)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    outcome.seconds = time.monotonic() - started
    outcome.cases = read_record(record)
    outcome.problems += problems_of(status, outcome.cases)
    outcome.problems += [f"left behind by the tests: {what}" for what in end_what_is_left(who)]
    return outcome


def reap_until(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """Waits for it, and for every orphan of its tests that ends meanwhile; None when it had to be killed.

    We are their subreaper: a worker that outlives its monitor becomes our child, and is found.
    """
    while time.monotonic() < deadline:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return process.returncode
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode
        if pid == 0:
            time.sleep(0.02)
    return None


def become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def end_what_is_left(who: Who) -> list[str]:
    """Processes that the tests left running, named and ended. They get a moment to see that their monitor is gone."""
    deadline = time.monotonic() + 3
    while (left := what_is_left(who)) and time.monotonic() < deadline:
        time.sleep(0.05)
    names: list[str] = []
    for pid in left:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            names.append(f"process {pid}: {command.strip() or '(a kernel thread or a zombie)'}"[:160])
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    reap_the_dead()
    return names


def what_is_left(who: Who) -> set[int]:
    reap_the_dead()
    return {*children(), *(processes_of(who.uid) if who.uid != os.getuid() else ())}


def reap_the_dead() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def problems_of(status: int | None, cases: list[Case]) -> list[str]:
    problems: list[str] = []
    if status is None:
        problems.append(f"not at its end after {LONGEST_RUN + LONGEST_TEST} seconds; killed")
    elif status == 5:
        problems.append("no tests found")
    elif status not in (0, 1):
        problems.append(f"pytest ended with {status}")
    elif status == 1 and not any(case.outcome == "failed" for case in cases):
        problems.append("pytest reports a failure that its record does not name")
    problems += [
        f"{case.name}: skipped without a reason" for case in cases if case.outcome == "skipped" and not case.detail
    ]
    return problems


def read_record(record: Path) -> list[Case]:
    """pytest's JUnit record; empty when pytest did not come to write it."""
    try:
        tree = ElementTree.parse(record)
    except (OSError, ElementTree.ParseError):
        return []
    cases: dict[str, Case] = {}
    for element in tree.iter("testcase"):
        name = f"{element.get('classname', '')}::{element.get('name', '')}"
        case = read_case(name, element)
        if name not in cases or case.outcome == "failed":  # a test that fails again in its teardown has two entries
            cases[name] = case
    return list(cases.values())


def read_case(name: str, element: ElementTree.Element) -> Case:
    for child in element:
        if child.tag in ("failure", "error"):
            return Case(name, "failed", child.get("message", ""))
        if child.tag == "skipped":
            known = child.get("type") == "pytest.xfail"
            return Case(name, "known" if known else "skipped", child.get("message", "").removeprefix("Skipped: "))
    return Case(name, "passed")


# The runs that this host allows


def other_pythons() -> Iterator[tuple[str, Path | None]]:
    """The versions we promise, beside the one of .venv, with an interpreter where there is one."""
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for version in ("3.11", "3.13"):
        if version == ours:
            continue
        places = [
            Path(directory, f"python{version}") for directory in os.environ.get("PATH", "").split(":") if directory
        ]
        with contextlib.suppress(RuntimeError):
            places += sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"), reverse=True)
        yield version, next((place for place in places if version_of(place).startswith(f"{version}.")), None)


def venv_for(version: str, python: Path) -> Path:
    """.venv-3.13 beside .venv, made again when pyproject.toml changes."""
    venv = TOP / f".venv-{version}"
    stamp, wanted = venv / ".installed", (TOP / "pyproject.toml").read_text()
    if not version_of(venv / "bin/python").startswith(version) or not stamp.exists() or stamp.read_text() != wanted:
        print(f"setup: making {venv.name} with {python}", file=sys.stderr, flush=True)
        subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
        done = subprocess.run([*pip, "-e", f"{TOP}[test]"], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise NotPossible("pip could not install the test packages for it")
        stamp.write_text(wanted)
    return venv


def end(number: int, frame: object) -> None:
    """Leaves by an exception, so that what must be removed is removed."""
    sys.exit(128 + number)


@dataclass
class Matrix:
    """What pytest ran as, and what it could not."""

    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    not_run: list[str] = field(default_factory=list[str])


def run_matrix(arguments: list[str], *, only_this_python: bool = False) -> Matrix:
    """pytest with every Python that is here; each as root and as an ordinary user, where we may."""
    signal.signal(signal.SIGTERM, end)
    # Started in the background of a script, we ignore these, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    matrix = Matrix()
    if os.getuid() != 0:
        matrix.not_run.append("everything as root: make was not started by root")
    with copies() as top:
        pythons: list[tuple[str, Path | None]] = [("", Path(sys.executable))]
        pythons += [] if only_this_python else other_pythons()
        for version, python in pythons:
            if python is None:
                matrix.not_run.append(f"Python {version}: no python{version} on this host")
                continue
            quick: list[str] = []
            if version:
                quick = ["-m", "not slow"]
                matrix.not_run.append(f"Python {version}: the tests marked slow, which the first Python ran")
            try:
                venv = venv_for(version, python) if version else Path(sys.prefix)
                run_users(matrix, copied_venv(venv, top), top, [*quick, *arguments])
            except NotPossible as reason:
                matrix.not_run.append(f"Python {version}: {reason}")
    return matrix


def run_users(matrix: Matrix, python: Path, top: Path, arguments: list[str]) -> None:
    users = [me()]
    if os.getuid() == 0:
        users.append(a_free_uid())
    named = " and ".join(f"as {who.name} (uid {who.uid})" for who in users)
    print(f"\n== pytest, Python {version_of(python)}, {named}", flush=True)
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(Run(who, place_for(who, top, python), arguments)) for who in users]
        matrix.outcomes += [run.outcome() for run in runs]


class Run:
    """pytest as one user, in a process beside ours. Left by an exception, it is ended with all that its tests started."""

    def __init__(self, who: Who, place: Place, arguments: list[str]) -> None:
        self._who = who
        # One at a time has the terminal.
        self._printed = None if who == me() else Path(f"{place.home}-printed")
        self._receiver, sender = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.get_context("fork").Process(
            target=run_apart, args=(who, place, arguments, self._printed, sender)
        )
        self._process.start()
        sender.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.terminate()
        self._process.join()
        self._receiver.close()

    def outcome(self) -> Outcome:
        """Waits for its end, and shows what it printed."""
        try:
            outcome: Outcome = self._receiver.recv()
        except EOFError:
            outcome = Outcome("pytest", who=self._who.name, problems=["the process above it died"])
        if self._printed:
            print(f"\n== what it printed as {self._who.name}", flush=True)
            with contextlib.suppress(FileNotFoundError), self._printed.open("rb") as printed:
                shutil.copyfileobj(printed, sys.stdout.buffer)
            sys.stdout.flush()
        return outcome


def run_apart(who: Who, place: Place, arguments: list[str], printed: Path | None, sender: Connection) -> None:
    """The body of the process above one run. What the terminal interrupts, the first process ends."""
    signal.signal(signal.SIGINT, lambda number, frame: None)
    become_subreaper()
    with contextlib.ExitStack() as stack:
        prints = stack.enter_context(printed.open("wb")) if printed else None
        sender.send(run_pytest(who, place, arguments, prints))
