"""Runs in: the monitor. `spawn`: a program that knows nothing of bunri, under a policy.

It is a worker like any other, whose class executes something (launcher.py). What makes it a program is here: its
streams, and a second look, at the very process that is about to execute it.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from msgspec.structs import replace

from bunri import early
from bunri.calls import Call, deadline
from bunri.confine import HasDescriptor, Part, look
from bunri.errors import Denial, Exit, HostError, InternalError, Promise, UsageError, WorkerDied
from bunri.handles import File, refuse_directory
from bunri.kernel import descriptors, procfs
from bunri.plan import ONE_THREAD
from bunri.plan.report import Report
from bunri.policy import Policy
from bunri.policy.words import Profile
from bunri.process.blocking import running_loop
from bunri.process.doors import PIPE
from bunri.process.launcher import PLACES, Ended, Launch, Launcher, Refused
from bunri.process.life import Worker
from bunri.process.process import Process
from bunri.process.program import allowed_environment
from bunri.process.start import start_worker
from bunri.wire import contract_of

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WITHIN = 30.0  # seconds until it must be executed
_FEWEST_FILES: Final = 24  # descriptors: the launcher's own, and all that go through its hands
_TELLS: Final = (
    "its filter answers that system call with death; development mode (bunri run --explain) says which it was"
)
_TOLD: Final = "its filter answers that system call with death, and it is one that is not told: seccomp, clone with a namespace, or another ABI's"
_METHODS: Final = {method.name: method for method in contract_of(Launcher).methods}


Stream = int | HasDescriptor | None


def spawn(
    argv: Sequence[str],
    policy: Policy,
    /,
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    tty: Stream = None,
    env: Mapping[str, str] = {},
    cwd: str | os.PathLike[str] = "/",
) -> Process:
    """As `bunri.spawn` says."""
    _refuse(argv, policy)
    _refuse_surroundings(env, cwd)
    streams = _Streams(stdin, stdout, stderr, tty)
    try:
        worker = _start(policy)
        try:
            owner = _launch(worker, argv, policy, streams, dict(env), os.fsencode(cwd))
        except BaseException:
            worker.kill("its program could not be started")
            worker.wait_over()
            raise
    except BaseException:
        streams.close()
        raise
    finally:
        streams.close_theirs()
    return Process(owner, **streams.ours)


def _refuse(argv: Sequence[str], policy: Policy) -> None:
    if isinstance(argv, str) or not argv or not all(isinstance(cast(object, word), str) for word in argv):
        raise UsageError(
            f"spawn takes a list of words, the program first, as ['sort', '-u', 'names']; {argv!r} is none"
        )
    if not argv[0]:
        raise UsageError("the first word of the command is empty, and it names the program")
    if any("\0" in word for word in argv):
        raise UsageError("a word of the command has a NUL character in it, which no program can be given")
    if not isinstance(cast(object, policy), Policy):
        raise UsageError(f"spawn takes a Policy second, got {policy!r}. Write bunri.Policy(files=[fs.system()])")
    if policy.holes:
        raise UsageError(f"the policy leaves {', '.join(policy.holes)} open (AT_START). Fill every hole")
    settled = policy.settled()
    if settled.profile in (Profile.STRICT, Profile.COMPUTE):
        raise UsageError(
            f"Policy.{settled.profile.value}() has nothing but read and write, and no program can be executed with that. Start from Policy()"
        )
    if settled.open_files < _FEWEST_FILES:
        raise UsageError(
            f"open_files={settled.open_files}: a program is made ready with more descriptors. Write at least {_FEWEST_FILES}"
        )
    if settled.profile is not Profile.DANGEROUS_UNCONFINED and not any(grant.executable for grant in settled.files):
        raise UsageError(
            "the policy grants nothing that may be executed. Add fs.system() to files, or fs.execute(path) of the program and its libraries"
        )


def _refuse_surroundings(env: Mapping[str, str], cwd: str | os.PathLike[str]) -> None:
    if not isinstance(cast(object, env), Mapping):
        raise UsageError(f'env={env!r}: a dict of strings is needed, as {{"TZ": "UTC"}}')
    if not isinstance(cast(object, cwd), str | os.PathLike):
        raise UsageError(f"cwd={cwd!r}: a path is a str or a pathlib.Path")
    if not os.path.isabs(cwd):
        raise UsageError(f"cwd={os.fspath(cwd)!r} is relative, and the program starts in /. Write it from /")
    for name, value in env.items():
        if not all(isinstance(cast(object, part), str) for part in (name, value)):
            raise UsageError(f"env[{name!r}]: names and values are strings")
        if not name or "=" in name or "\0" in name + value:
            raise UsageError(f"env[{name!r}]: a name has no '=', and neither part has a NUL")
    if "\0" in os.fspath(cwd):
        raise UsageError(f"cwd={os.fspath(cwd)!r} has a NUL character in it, which no path has")


def _start(policy: Policy) -> Worker:
    worker = start_worker(Launcher, policy, (), None, None)
    assert isinstance(worker, Worker)
    worker.hurried = False  # its one long call is the program's life
    try:
        worker.wait_started()
    except BaseException:
        worker.kill("it could not be started")
        raise
    return worker


def _launch(
    worker: Worker, argv: Sequence[str], policy: Policy, streams: _Streams, env: dict[str, str], cwd: bytes
) -> _Owner:
    plan = worker.template.plan
    words = [os.fsencode(word) for word in argv]
    environment = {name: os.fsencode(value) for name, value in (_environment(policy) | env).items()}
    what = Launch(words, environment, cwd, streams.terminal, plan.program_filter)
    ours, theirs = socket.socketpair()
    with ours, theirs, deadline(_WITHIN):
        socket.send_fds(ours, [b"s"], streams.theirs)
        _refuse_failure(_call(worker, "launch", what, theirs), argv)
        pid, pidfd = _find(worker)
        try:
            _look(worker, pid, streams.kinds())
            worker.programs = (pid,)
            with contextlib.suppress(WorkerDied):  # for what the program did at once; its Process says how it ended
                _refuse_failure(_call(worker, "go"), argv)
        except BaseException:
            os.close(pidfd)
            raise
    # Of no deadline that happens to be around this: it ends with the program.
    ended: Call[Ended] = contextvars.Context().run(worker.submit, _METHODS["program"], (), {})
    return _Owner(worker, pid, pidfd, ended)


def _call(worker: Worker, name: str, *args: Any) -> Any:
    """Wait for it here, on an event loop's thread too: what is waited for is the launcher, and no program yet."""
    call = worker.submit(_METHODS[name], args, {})
    if running_loop() is None:
        return call.result()
    done = threading.Event()
    call.add_done_callback(lambda _: done.set())
    done.wait()  # the deadline around it ends the call
    return call.result()


def _environment(policy: Policy) -> dict[str, str]:
    settled = policy.settled()
    found = allowed_environment()
    if settled.threads:
        for name in ONE_THREAD:
            del found[name]
    return {**found, **early.ONE_HEAP, "PATH": _PATH, **settled.env}


def _find(worker: Worker) -> tuple[int, int]:
    """The process that is to execute the program: the worker's one child, which waits."""
    found = procfs.children(worker.pid)
    if len(found) != 1:
        raise HostError(
            f"the program's process cannot be found among the {len(found)} children of {worker.describe()}",
            promise=Promise.PROCESSES,
            layer="look",
            remedy="Mount /proc so that this user sees its own processes (hidepid=0)",
        )
    pidfd = os.pidfd_open(found[0])
    try:
        if procfs.parent_of(found[0]) != worker.pid:  # the number could be another's by now
            raise ProcessLookupError
    except OSError:
        os.close(pidfd)
        raise InternalError("the program's process ended before it was executed") from None
    return found[0], pidfd


def _look(worker: Worker, pid: int, kinds: dict[int, str]) -> None:
    """What was right of the worker must be right of its child; and one more filter holds."""
    plan, host = worker.template.plan, worker.program.host
    filters = plan.expected.filters
    expected = replace(plan.expected, filters=filters + bool(plan.program_filter) if filters is not None else None)
    table = {**kinds, **dict.fromkeys(range(len(kinds), PLACES), "pipe")}
    sight = replace(worker.template.sight(worker), descriptors=table)
    part = Part.LATE if host.reads_not_dumpable or not plan.has("not dumpable") else Part.AFTER
    wrong = look(pid, expected, part, sight).fault(worker.policy.may_miss)
    if wrong is not None:
        raise wrong


def _refuse_failure(found: Refused | None, argv: Sequence[str]) -> None:
    if found is None:
        return
    if not found.path:
        raise OSError(found.errno, f"the process of {argv[0]!r} could not be made ready: {os.strerror(found.errno)}")
    path = os.fsdecode(found.path)
    if path == argv[0]:
        cure = "Grant it and its libraries: fs.system(), or fs.execute(path)"
        what = "cannot be executed in there" if found.errno != errno.ENOENT else "is not there, inside"
    else:
        cure, what = "Grant it with fs.read or fs.write", "is no folder that can be entered in there"
    raise OSError(found.errno, f"{what} ({os.strerror(found.errno)}). {cure}", path)


class _Streams:
    """The three streams of a program, the monitor's ends and its own."""

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream, tty: Stream) -> None:
        self.ours: dict[str, File] = {}
        self.theirs: list[int] = []
        self._opened: list[int] = []  # of theirs, and the terminal: closed when they are handed over
        self.terminal: int | None = None
        try:
            terminal = self._terminal(tty)
            for name, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
                self.theirs.append(self._stream(name, terminal if stream is None else stream))
            if terminal is not None:
                self.terminal = next((n for n, each in enumerate(self.theirs) if each == terminal), None)
                if self.terminal is None:
                    raise UsageError("tty= is given, and every stream is something else. Leave one of them out")
        except BaseException:
            self.close()
            self.close_theirs()
            raise

    def _terminal(self, tty: Stream) -> int | None:
        if tty is None:
            return None
        if tty == PIPE:
            ours, theirs = os.openpty()
            self.ours["tty"] = File(ours)
            self._opened.append(theirs)
            return theirs
        number = _number(tty)
        if not os.isatty(number):
            raise UsageError(f"tty={tty!r} is no terminal. Pass one's descriptor, or bunri.PIPE for a new one")
        return number

    def _stream(self, name: str, stream: Stream) -> int:
        if stream is None:
            self._opened.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            return self._opened[-1]
        if stream == PIPE:
            reader, writer = os.pipe()
            ours, theirs = (writer, reader) if name == "stdin" else (reader, writer)
            self.ours[name] = File(ours)
            self._opened.append(theirs)
            return theirs
        number = _number(stream)
        refuse_directory(number)
        return number

    def kinds(self) -> dict[int, str]:
        """What the look must find in their places."""
        return {place: descriptors.kind_of(number) for place, number in enumerate(self.theirs)}

    def close_theirs(self) -> None:
        for number in self._opened:
            os.close(number)
        self._opened.clear()

    def close(self) -> None:
        for file in self.ours.values():
            file.close()


def _number(stream: int | HasDescriptor) -> int:
    if isinstance(stream, bool) or not (isinstance(stream, int) or hasattr(stream, "fileno")):
        raise UsageError(f"{stream!r} is no stream. Pass a descriptor, an open file, bunri.PIPE, or None")
    try:
        number = stream if isinstance(stream, int) else stream.fileno()
        os.fstat(number)
    except (OSError, ValueError):
        raise UsageError(f"descriptor {stream} is not open. Pass one that is, bunri.PIPE, or None") from None
    return number


class _Owner:
    """A program, for its Process: what its launcher says, and what became of that."""

    def __init__(self, worker: Worker, pid: int, pidfd: int, ended: Call[Ended]) -> None:
        self._worker = worker
        self.policy = worker.policy
        self.pid = pid
        self.pidfd = pidfd
        self._ended = ended
        ended.add_done_callback(self._finish)

    def report(self) -> Report:
        return self._worker.report()

    @property
    def denials(self) -> tuple[Denial, ...]:
        return self._worker.denials

    def narrow(self, policy: Policy) -> Report:
        report = self._worker.narrow(policy)
        self.policy = policy
        return report

    def on_exit(self, tell: Callable[[Exit], None]) -> None:
        told = self._worker.refused is not None
        self._ended.add_done_callback(lambda ended: tell(_exit_of(ended, _TOLD if told else _TELLS)))

    def _finish(self, ended: Any) -> None:
        number, self.pidfd = self.pidfd, -1
        os.close(number)
        self._worker.kill("its program has ended")


def _exit_of(ended: Any, death: str) -> Exit:
    fault = ended.exception()
    if isinstance(fault, WorkerDied):
        return fault.exit
    if fault is not None:
        return Exit(cause=str(fault))
    how: Ended = ended.result()
    cause = death if how.signal == signal.SIGSYS else None
    return Exit(how.code, how.signal, cause)
