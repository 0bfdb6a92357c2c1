"""Runs in: every process. `spawn`, `confine` and `prepare` as a program sees them, and what brokers and `confine` ask of this package.

What stands behind them is the monitor's, and is loaded when it is first asked for. A zygote never asks, so no worker has
it: each page of memory that a worker inherits is time at its start and at its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from bunri.broker import _hooks as broker_hooks
from bunri.confine import HasDescriptor, Zygotes
from bunri.confine import _hooks as confine_hooks
from bunri.plan.report import Report
from bunri.policy import Policy
from bunri.process import here
from bunri.process.process import Process

if TYPE_CHECKING:
    from bunri.compartment import Compartment
    from bunri.process.spawn import Stream

PIPE: Final = -1
"""For a stream of `spawn`: a new pipe, whose other end is the Process's; for `tty`, a new pseudo-terminal."""


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
    """Execute a program under a policy, and return its Process when it has been executed.

    The policy grants what it is made of: `fs.system()` for what the distribution installed, or single files by
    `fs.execute`. `argv[0]` is looked for along PATH inside. The environment is the language, the policy's `env`
    and `env`, and what keeps threads from taking more memory than they use; `cwd` is a folder inside.
    A stream is a descriptor, `bunri.PIPE` (the other end is `process.stdin`, `.stdout`, `.stderr`), or None for
    /dev/null. With `tty=bunri.PIPE` the program gets a terminal of its own, whose other end is `process.tty` and which
    is every stream that is not given; so is a terminal of yours whose descriptor is given as `tty`.
    The process and all it starts end with this program at the latest.

    Raises UsageError for a policy that no program can run under, HostError where the host cannot keep it, and OSError
    (FileNotFoundError, PermissionError) where the program or `cwd` is not to be had inside.

        with bunri.spawn(["sort", "words"], policy, cwd="/data", stdout=bunri.PIPE).stdout.as_file() as lines: ...
    """
    here.refuse_to_start()
    from bunri.process import spawn as behind

    return behind.spawn(argv, policy, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty, env=env, cwd=cwd)


def confine(
    policy: Policy, /, *, keep: Iterable[HasDescriptor | int] = (0, 1, 2), zygotes: Zygotes = Zygotes.END
) -> Report:
    """Give up, in this process and for ever, everything that `policy` does not grant.

    Every descriptor not in `keep` is closed; the report's notes list those that stay, with their kinds. bunri's own
    zygotes and its thread are ended first.

    Raises UsageError where a second thread lives (naming it) or `keep` names what is not open, HostError where the host
    cannot keep a promise. A HostError from the steps themselves leaves the process with part of its rights: end it.

        trace = open_capture("eth0")
        bunri.confine(bunri.Policy(), keep=(0, 1, 2, trace))
    """
    here.refuse_to_confine()
    from bunri.confine import self as behind

    return behind.confine(policy, keep=keep, zygotes=zygotes)


def prepare(*compartments: type[Compartment]) -> None:
    """Import, warm up, and check types and host, before serving: everything that a first start would otherwise do.

    Raises what a start would raise. Blocks until the zygotes are there; call it before the event loop runs.
    """
    here.refuse_to_start()
    from bunri.process import start as behind

    behind.prepare(*compartments)


def _start_broker(wish: broker_hooks.Wish) -> broker_hooks.Agent:
    here.refuse_to_start()
    from bunri.process import brokers, program

    return brokers.start_for_service(program.current(), wish)


def _end_zygotes() -> None:
    from bunri.process import program

    program.close()


def _take_user() -> tuple[int, int]:
    from bunri.process import program

    return program.take_user_for_life()


confine_hooks.register(confine_hooks.Hooks(_end_zygotes, _take_user, here.note_confined))
broker_hooks.register(_start_broker)
