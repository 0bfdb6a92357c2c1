"""Runs in: the user's shell. `bunri run`: any program, confined."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bunri import Denial, Exit, Policy, Process
    from bunri.policy import FileGrant

NOT_STARTED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
_TOLD_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class NotStarted(click.UsageError):
    """A mistake in bunri's own words."""

    exit_code = NOT_STARTED


class Run(click.Command):
    """Its mistakes are 125: 2 is the command's own to say."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as fault:
            raise NotStarted(fault.format_message(), fault.ctx) from None


@click.command(
    name="run", cls=Run, context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False}
)
@click.option("--policy", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="A policy to start from, as TOML. The other options add to it.")  # fmt: skip
@click.option("--bare", is_flag=True, help="Start from nothing, and not from the system's programs.")
@click.option("--read", multiple=True, metavar="PATH[:AT]", help="Readable, never executable.")
@click.option("--write", multiple=True, metavar="PATH[:AT]", help="Readable, and can be changed.")
@click.option("--execute", multiple=True, metavar="PATH[:AT]", help="Readable and executable.")
@click.option(
    "--scratch", multiple=True, metavar="AT[:SIZE]", help="An empty folder of its own, gone with it. Size: 64M."
)
@click.option("--connect", multiple=True, metavar="HOST:PORT", help="May connect there.")
@click.option("--listen", multiple=True, type=int, metavar="PORT", help="May listen there.")
@click.option("--unix", multiple=True, metavar="PATH", help="May connect to this socket.")
@click.option("--dangerous-host-network", is_flag=True, help="All of the network, as if it were not confined.")
@click.option(
    "--memory", metavar="SIZE", help="1G; with a control group of its own for all its processes, else for each."
)
@click.option("--cpu", metavar="TIME", help="Processor time, as 5s. No bound.")
@click.option("--wall", metavar="TIME", help="Time on the clock, as 1m. No bound.")
@click.option("--file-size", metavar="SIZE", help="No file grows beyond it. 1G.")
@click.option("--open-files", type=int, metavar="N", help="Descriptors of each process. 1024.")
@click.option("--processes", type=int, metavar="N", help="Beside the command itself. 64.")
@click.option("--threads", type=int, metavar="N", help="Beside the first of each. 64.")
@click.option("--user", metavar="NAME", help="Run as that user; `same` for yourself. As root: a uid of its own.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="A variable; without a value, yours.")
@click.option("--allow", multiple=True, metavar="GROUP|CALL", help="System calls added, as flock or @fattr.")
@click.option("--dangerous-jit", is_flag=True, help="Memory may be written and then executed (node, java, luajit).")
@click.option("--may-miss", multiple=True, metavar="PROMISE", help="Start without it where this host cannot keep it.")
@click.option("--explain", is_flag=True, help="Say what it was refused, and which option would allow that.")
@click.option("--json", "as_json", is_flag=True, help="As --explain, with a line of JSON for each refusal.")
@click.option("--cwd", metavar="FOLDER", help="Where it starts, inside. The current one, if it is granted.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(command: tuple[str, ...], cwd: str | None, explain: bool, as_json: bool, **options: Any) -> int:
    """Run a command confined: it sees the system's programs and what is granted, and no network.

    \b
    Examples:
      bunri run -- sh                                   look around in there
      bunri run --read in.png --write out -- convert in.png out/x.png
      bunri run --read . --cwd "$PWD" --wall 10s -- python3 check.py
      bunri run --connect 127.0.0.1:8080 -- curl http://127.0.0.1:8080/
      bunri run --explain -- curl http://127.0.0.1:8080/
      bunri run --bare --execute /usr --execute /lib64 -- /usr/bin/true

    \b
    Exit status: the command's own; 128 + the signal that ended it;
    125 bunri could not start it; 126 it cannot be executed; 127 it is not there.
    """
    from bunri import early

    with early.imports():
        from bunri import BunriError
        from bunri.cli import denials
        from bunri.text import printable

    try:
        policy = _policy(**options)
        return _run(list(command), policy, cwd, denials.as_json if as_json else denials.show if explain else None)
    except BunriError as fault:
        click.echo(f"bunri run: {printable(str(fault), keep_newlines=True)}", err=True)
        return NOT_STARTED
    except OSError as fault:
        named = f"{fault.filename}: " if fault.filename else ""
        click.echo(f"bunri run: {printable(named)}{printable(str(fault.strerror))}", err=True)
        if fault.filename != command[0]:
            return NOT_STARTED
        return NOT_FOUND if isinstance(fault, FileNotFoundError) else NOT_EXECUTABLE


# From options to a policy ------------------------------------------------------------------------------------------


def _policy(file: Path | None, bare: bool, **options: Any) -> Policy:
    from bunri import Policy, Promise, UsageError, User, fs, net
    from bunri.cli.show import read_text
    from bunri.policy import from_toml

    if file is not None:
        text = read_text(file)
        try:
            policy = from_toml(text)
        except UsageError as fault:
            raise UsageError(f"{file}: {fault}") from None
    else:
        policy = Policy(
            files=[] if bare else [fs.system()],
            memory="1G", cpu=None, open_files=1024, processes=64, threads=64, may_miss=[Promise.MEMORY],
        )  # fmt: skip
    changed: dict[str, Any] = {
        name: options[name]
        for name in ("memory", "cpu", "wall", "file_size", "open_files", "processes", "threads")
        if options[name] is not None
    }
    changed["files"] = [*policy.settled().files, *_files(options)]
    changed["network"] = [
        *policy.network,
        *(net.connect(*_host_and_port(word)) for word in options["connect"]),
        *map(net.listen, options["listen"]),
        *map(net.unix, options["unix"]),
        *([net.dangerous_host()] if options["dangerous_host_network"] else []),
    ]
    jit = ["dangerous_jit"] if options["dangerous_jit"] else []
    changed["syscalls"] = [*policy.syscalls, *options["allow"], *jit]
    changed["env"] = {**policy.settled().env, **dict(map(_variable, options["env"]))}
    changed["may_miss"] = [*policy.may_miss, *map(_promise, options["may_miss"])]
    if options["user"] is not None:
        changed["user"] = User.same() if options["user"] == "same" else User.named(options["user"])
    return policy.with_(**changed)


def _files(options: dict[str, Any]) -> list[FileGrant]:
    from bunri import fs

    found: list[FileGrant] = []
    for name, grant in (("read", fs.read), ("write", fs.write), ("execute", fs.execute)):
        for word in options[name]:
            path, at = _path_and_place(f"--{name}", word)
            found.append(grant(path, at=at))
    for word in options["scratch"]:
        at, _, size = word.partition(":")
        found.append(fs.scratch(at, size or "64M"))
    return found


def _path_and_place(option: str, word: str) -> tuple[str, str | None]:
    """PATH or PATH:AT. A path may have a colon in it; AT is the part after the last one that begins with a slash."""
    from bunri import UsageError

    path, colon, at = word.rpartition(":")
    if not colon or not at.startswith("/"):
        path, at = word, ""
    if not path:  # a variable of a script that is not set must not be the current folder
        raise UsageError(f"{option} {word!r}: there is no path. Write one, or . for the current folder")
    try:
        return os.path.abspath(path), at or None
    except FileNotFoundError:
        raise UsageError(f"{option} {word!r}: the current folder is there no more. Write the path from /") from None


def _host_and_port(word: str) -> tuple[str, int]:
    from bunri import UsageError

    host, colon, port = word.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise UsageError(f"--connect {word!r}: write HOST:PORT, as 127.0.0.1:8080 or [::1]:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _variable(word: str) -> tuple[str, str]:
    from bunri import UsageError

    name, given, value = word.partition("=")
    if not given and name not in os.environ:
        raise UsageError(f"--env {name}: there is no such variable here. Write --env {name}=VALUE")
    return name, value if given else os.environ[name]


def _promise(word: str) -> Any:
    from bunri import Promise, UsageError

    found = {promise.name.lower(): promise for promise in Promise}.get(word.lower())
    if found is None:
        raise UsageError(f"--may-miss {word!r}: there are {', '.join(p.name.lower() for p in Promise)}")
    return found


# Running it --------------------------------------------------------------------------------------------------------


def _run(argv: list[str], policy: Policy, cwd: str | None, explain: Callable[[Iterable[Denial]], None] | None) -> int:
    import bunri

    if explain is not None:
        _tell_denials()
    terminals = [number for number in (0, 1, 2) if os.isatty(number)]
    streams = [None if number in terminals else number for number in (0, 1, 2)]
    environment = {"HOME": "/"}
    if terminals and "TERM" in os.environ:
        environment["TERM"] = os.environ["TERM"]
    told = _Told()
    process = bunri.spawn(
        argv, policy,
        stdin=streams[0], stdout=streams[1], stderr=streams[2], tty=bunri.PIPE if terminals else None,
        env=environment, cwd=cwd if cwd is not None else _here(policy),
    )  # fmt: skip
    told.tell(process)
    ended = _attend(process, terminals) if process.tty is not None else process.wait()
    if explain is not None and (process.denials or ended.signal != signal.SIGSYS):  # what kills so is said below
        explain(process.denials)
    return _status(ended)


def _tell_denials() -> None:
    """Development mode; here they are shown at the end, and not logged one by one."""
    import logging

    from bunri import HostError
    from bunri.process import program

    here = program.current()
    if not here.host.seccomp_notify:
        remedy = "Use no tracer that has a listener already, or leave --explain out"
        raise HostError("what a command is refused cannot be told here", remedy=remedy)
    if not here.host.reads_not_dumpable or "pid" not in here.host.namespaces:
        remedy = "Start as root with CAP_SYS_PTRACE and CAP_SYS_ADMIN, or where user namespaces are allowed, or leave --explain out"
        raise HostError(
            "what a command is refused cannot be told here: it needs the right to its memory", remedy=remedy
        )
    here.tells_denials = True
    logging.getLogger("bunri.violations").disabled = True


class _Told:
    """Signals that are meant for the command: they reach it when it is there."""

    def __init__(self) -> None:
        self._early: list[int] = []
        self._process: Process | None = None
        for number in _TOLD_ON:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # as nohup wants it, and a shell for what it runs in the background
            signal.signal(number, lambda number, _: self._on_signal(number))

    def _on_signal(self, number: int) -> None:
        if self._process is None:
            self._early.append(number)
        elif number == signal.SIGTSTP:
            _stand_still_with(self._process)
        else:
            self._process.signal(number)

    def tell(self, process: Process) -> None:
        self._process = process
        for number in self._early:
            self._on_signal(number)


def _stand_still_with(process: Process) -> None:
    """Until we are told to go on. It has a session of its own, where SIGTSTP would stop nothing."""
    process.signal(signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    process.signal(signal.SIGCONT)


def _attend(process: Process, terminals: list[int]) -> Exit:
    """Be its terminal until it has ended."""
    from bunri.cli import terminal

    assert process.tty is not None
    source = 0 if 0 in terminals and terminal.is_in_foreground(0) else None
    target = next(number for number in (1, 2, 0) if number in terminals)
    modes = terminal.raw(source) if source is not None else contextlib.nullcontext()
    with process.tty as tty, contextlib.suppress(terminal.Gone):
        with modes:
            terminal.relay(tty.fileno(), source, target, terminals[0])
        return process.wait()  # one that has only let go of its streams would be ended by the end of its terminal
    return process.wait()  # as the user's, the command's has hung up


def _here(policy: Policy) -> str:
    """The current folder as it is called inside; / where it is not granted, or is there no more."""
    from bunri.policy.fs import FileKind

    try:
        here = os.getcwd()
    except FileNotFoundError:
        return "/"
    for grant in policy.settled().files:
        top = grant.path.rstrip("/")
        if grant.path and (here == grant.path or here.startswith(top + "/")):
            return (grant.at.rstrip("/") + here[len(top) :]) or "/"
        if grant.kind is FileKind.SYSTEM and (here == "/usr" or here.startswith("/usr/")):
            return here
    return "/"


def _status(ended: Exit) -> int:
    from bunri.text import printable

    if sys.stdout is not None:  # as it is where the caller has closed it
        sys.stdout.flush()
    if ended.cause:
        click.echo(f"bunri run: {printable(str(ended))}", err=True)
    if ended.signal is not None:
        return 128 + ended.signal
    return ended.code if ended.code is not None else NOT_STARTED
