"""Runs in: the monitor. A confined process as its owner sees it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from bunri.calls import Call
from bunri.errors import Denial, Exit, UsageError
from bunri.plan.report import Report
from bunri.policy import Policy

if TYPE_CHECKING:
    from bunri.handles import File


class Owner(Protocol):
    """What a Process asks of whatever runs it."""

    pid: int
    pidfd: int
    policy: Policy

    def report(self) -> Report: ...
    def on_exit(self, tell: Callable[[Exit], None]) -> None: ...
    @property
    def denials(self) -> tuple[Denial, ...]: ...
    def narrow(self, policy: Policy) -> Report: ...


class Process:
    """A worker's, or a spawned program's, process."""

    def __init__(
        self,
        owner: Owner,
        *,
        tty: File | None = None,
        stdin: File | None = None,
        stdout: File | None = None,
        stderr: File | None = None,
    ) -> None:
        self._owner = owner
        self.pid = owner.pid
        self.tty = tty
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.wait = _Wait(owner)
        """`wait()` blocks until the process has ended and returns its Exit; `await bunri.call(process.wait)` on a loop."""

    def __repr__(self) -> str:
        return f"<Process {self.pid}>"

    @property
    def policy(self) -> Policy:
        """The policy it runs under."""
        return self._owner.policy

    @property
    def report(self) -> Report:
        """What is in force in it, layer by layer, and who saw it."""
        return self._owner.report()

    @property
    def denials(self) -> tuple[Denial, ...]:
        """What it was refused so far, the newest last, at most 200. Empty outside development mode (python -X dev)."""
        return self._owner.denials

    def signal(self, number: int) -> None:
        """Send a signal, by pidfd (pidfd_send_signal(2)). A process that has ended is left alone."""
        if self._owner.pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._owner.pidfd, number)

    def narrow(self, policy: Policy) -> Report:
        """Lower the limits of the running process to those of `policy`; UsageError for anything that would widen it,
        or is no limit."""
        return self._owner.narrow(policy)


class _Wait:
    """`process.wait`: callable, and a method for `bunri.call`."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def __call__(self) -> Exit:
        ended = self._bunri_submit()
        if not ended.done():
            from bunri.process.blocking import refuse_on_loop  # the monitor's: no worker waits for one

            refuse_on_loop("wait", "process")
        return ended.result()

    def _bunri_submit(self, *args: Any) -> Call[Exit]:
        if args:
            raise UsageError("Process.wait takes no arguments. Put bunri.deadline(seconds) around the call to bound it")
        ended: Call[Exit] = Call()
        self._owner.on_exit(lambda exit: None if ended.done() else ended.set_result(exit))
        return ended
