"""Runs in: the monitor. One worker as its monitor knows it: asked for, forked, confined, looked at, in use, over.

Two things must have come before anything is sent to a worker: the template's word with pid and pidfd, and the
worker's READY. They come on two sockets, in any order, to whatever thread reads them; whoever has the second one
looks at the worker from outside and, if it is what the plan says, opens the channel. START and the first calls stand
in the queue until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bunri.calls import Call
from bunri.channel.conversation import Outgoing
from bunri.confine import Look, Part, look, report
from bunri.errors import (
    BunriError,
    Denial,
    Exit,
    HostError,
    InternalError,
    Observer,
    Promise,
    ProtocolError,
    RemoteError,
    UsageError,
    Violation,
    WorkerDied,
)
from bunri.kernel import procfs, rlimit
from bunri.plan.report import Report
from bunri.policy import Policy
from bunri.process.messages import Failed
from bunri.process.output import Output
from bunri.process.process import Process
from bunri.process.serving import MonitorSide
from bunri.text import printable
from bunri.wire import Contract, MethodContract

if TYPE_CHECKING:
    from bunri.process.program import Program
    from bunri.process.templates import TemplateHandle

START_WITHIN = 30.0  # seconds from the request to READY
OVER_WITHIN = 10.0  # seconds from SIGKILL to the report of the end

_CLOSED = "it closed its channel"

_failed = msgspec.msgpack.Decoder(Failed)


class Worker:
    """One worker. Its `side` is the conversation."""

    def __init__(
        self, program: Program, template: TemplateHandle, contract: Contract, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.program = program
        self.template = template
        self.contract = contract
        self.policy: Policy = template.policy
        self.number = 0
        self.pid = 0
        self.pidfd = -1
        self.uid: int | None = None
        self.side: MonitorSide
        self.output: Output
        self.init: Outgoing | None = None  # the call of __init__
        self.asked = time.monotonic()
        self._ready = False
        self._forked = False
        self._looks: list[Look] = []
        self._report: Report | None = None
        self._start_error: BunriError | None = None
        self._cause: str | None = None
        self._cause_error: BaseException | None = None
        self._exit: Exit | None = None
        self._over = threading.Event()
        self._tell: list[Callable[[Exit], None]] = []
        self._lock = threading.RLock()
        self.loop = loop
        self.cpu_budget = template.settled.cpu
        self.wall_budget = template.settled.wall
        self._owner_pid = os.getpid()

    # what a stub asks of it ----------------------------------------------------------------------------------------

    def invoke(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.side.invoke(method, args, kwargs)

    def submit(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        self.refuse_fork()
        return self.side.submit(0, method, method.bind(args, kwargs))

    def iterate(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.side.iterate(0, method, method.bind(args, kwargs))

    def iterate_async(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.side.iterate_async(0, method, method.bind(args, kwargs))

    def describe(self) -> str:
        """Who this is, from the monitor's own state."""
        pid = f" (pid {self.pid})" if self.pid else ""
        return f"{self.contract.cls.__qualname__} worker{pid}"

    def process(self) -> Process:
        self.wait_started()
        return Process(self)

    def wait_started(self) -> None:
        """Until the worker is confined, looked at, and `__init__` has returned. Raises what that found."""
        self.refuse_fork()
        assert self.init is not None
        if self.loop is not None and asyncio._get_running_loop() is self.loop and not self.init.done:
            raise UsageError(
                f"waiting for {self.describe()} here would block its event loop. Write: async with ..., or await a call first"
            )
        if self.loop is None:
            self.side.drive(self.init)
        else:
            self._started_call().result()
        self.init.outcome()

    async def wait_started_async(self) -> None:
        await self._started_call()

    def _started_call(self) -> Call[None]:
        """A Call for the end of the start, for those who wait on a loop."""
        assert self.init is not None and self.init.call is not None
        return self.init.call

    def refuse_fork(self) -> None:
        if os.getpid() != self._owner_pid:
            raise UsageError(
                f"{self.describe()} belongs to the process that started it, and this is a forked child of that. Start a worker here"
            )

    def belongs_to(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """A spare is taken: from now on it is somebody's, and read on his loop or thread."""
        self.side.end_background()
        self.asked = time.monotonic()
        self.loop = self.side.loop = loop

    # the start -----------------------------------------------------------------------------------------------------

    def on_forked(self, pid: int, pidfd: int) -> None:
        """The template has cloned it. On the supervisor's thread."""
        with self._lock:
            self.pid, self.pidfd, self._forked = pid, pidfd, True
            if self._cause is not None:
                self._send_kill()
                return
            self._look(Part.EARLY)
            if self._ready:
                self._look_and_open()

    def on_ready(self) -> None:
        """It says that it is confined. On whatever thread reads its channel."""
        with self._lock:
            if self._ready:
                raise ProtocolError("a second READY")
            self._ready = True
            if self._forked:
                self._look_and_open()

    def on_failed(self, body: bytes) -> None:
        """A step of the plan was refused it."""
        try:
            failed = _failed.decode(body)
        except msgspec.MsgspecError as fault:
            raise ProtocolError(f"a FAILED message that is none: {printable(str(fault))}") from None
        if self.side.open:
            raise ProtocolError("a FAILED message after the start")
        self._start_error = start_error(failed)
        self.kill("it could not be confined")

    def on_failed_clone(self, failed: Failed) -> None:
        """Its template could not clone it."""
        self._start_error = start_error(failed)
        self.on_ended(Exit(cause="it could not be cloned"))

    def on_zygote_died(self, error: BunriError | None) -> None:
        """Its template is gone, and nobody will report its end. `error`: why it never started."""
        if error is not None and not self.side.open:
            self._start_error = error
        self.kill("its zygote died")
        self.on_ended(Exit(signal=signal.SIGKILL if self._forked else None, cause="its zygote died"))

    def _look_and_open(self) -> None:
        self._look(Part.LATE)
        if self._cause is None:
            self.side.let_through()

    def _look(self, part: Part) -> None:
        """Compare it with the plan. Whatever goes wrong here, a worker that was not looked at gets nothing."""
        try:
            found = look(self.pid, self.template.plan.expected, part, self.template.sight(self))
        except Exception as fault:
            self._start_error = InternalError(f"looking at {self.describe()} failed: {type(fault).__name__}: {fault}")
            self._start_error.__cause__ = fault
            self.kill("it could not be looked at")
            return
        self._looks.append(found)
        wrong = found.fault(self.policy.may_miss)
        if wrong is None:
            return
        if _has_ended(self.pidfd):
            self.kill(_CLOSED)  # there was nothing to see any more; how it ended is the story
            return
        self._start_error = wrong
        self.kill(f"it was not what the plan says: {wrong}")

    # clocks --------------------------------------------------------------------------------------------------------

    def cpu_clock(self) -> int:
        """Nanoseconds of CPU time it has used, by its own clock, read from here (clock_getcpuclockid(3))."""
        if not self.pid or self.is_over:
            return 0
        try:
            return procfs.cpu_time_ns(self.pid)
        except OSError:
            return 0  # it has just ended

    def check_budget(self, out: Outgoing, now: float) -> None:
        """Kill it if this call has used up its policy's time."""
        if not self.side.open:
            if now - self.asked > START_WITHIN:
                self.kill(f"it was not ready within {START_WITHIN:.0f} s")
            return
        if out is self.init:
            return
        begun = out.begun if out.begun is not None else now
        if self.wall_budget is not None and now - begun > self.wall_budget:
            self._end_by_budget(out, f"{out.method.name} was over its wall time of {self.wall_budget:g} s")
        elif self.cpu_budget is not None and (self.cpu_clock() - out.cpu) > self.cpu_budget * 1e9:
            self._end_by_budget(out, f"{out.method.name} was over its CPU time of {self.cpu_budget:g} s")

    def _end_by_budget(self, out: Outgoing, text: str) -> None:
        error = Violation(f"{self.describe()}: {text}", Denial(layer="time", observed_by=Observer.MONITOR))
        self.kill(text, error)

    # the end -------------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Killed, or found dead. What it was doing fails as soon as it is reaped."""
        return self._cause is not None or self._exit is not None

    def kill(self, cause: str, error: BaseException | None = None) -> None:
        """SIGKILL, with the first cause that anybody gave."""
        with self._lock:
            if self._cause is None or self._cause is _CLOSED:
                self._cause, self._cause_error = cause, error
            if self._exit is not None:
                return
            if self._forked:
                self._send_kill()
        dying = weakref.ref(self)
        self.program.supervisor.run_at(time.monotonic() + OVER_WITHIN, lambda: _give_up_waiting(dying()))

    def on_closed(self) -> None:
        """Its end of the channel is gone: it is dead, or acts as if it were (THREATS 21). Its own end is the cause, unless it lives."""
        self.kill(_CLOSED)

    def _send_kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def on_ended(self, exit: Exit) -> None:
        """It is reaped. On the supervisor's thread: everything that waited for it fails now, and what it had is given
        back."""
        with self._lock:
            if self._exit is not None:
                return
            if self._cause is _CLOSED and exit.signal != signal.SIGKILL:
                self._cause = None  # it died by itself, and that is the whole story
            self._exit = Exit(exit.code, exit.signal, self._cause or exit.cause)
        self.side.broken_quietly()
        self.side.end_with(self.death())
        self.side.services.close()
        self.output.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.template.forget(self)
        self._over.set()
        self.side.release_resources()
        for tell in self._tell:
            tell(self._exit)

    def death(self) -> BaseException:
        """The error for whoever still calls it."""
        failure = self.start_failure()
        if failure is not None:
            return failure
        exit = self._exit or Exit(cause=self._cause)
        died = WorkerDied(exit, who=self.describe())
        if isinstance(self._cause_error, BaseException):
            died.__cause__ = self._cause_error
        elif exit.signal == signal.SIGSYS:
            died.__cause__ = Violation(
                f"{self.describe()} made a system call that its filter answers with death. "
                f"Run with bunri's development mode (python -X dev) to see which",
                Denial(layer="seccomp filter", observed_by=Observer.KERNEL),
            )
        return died

    def start_failure(self) -> BaseException | None:
        """Why it never came to serve a call; None if it did, or was killed by us before."""
        if self._start_error is not None:
            return self._start_error
        if self.init is not None and isinstance(self.init.error, RemoteError):
            return self.init.error
        return None

    def wait_over(self) -> None:
        """Until it is reaped and everything has failed that had to."""
        if not self.program.supervisor.is_current:
            self._over.wait(OVER_WITHIN + 1)

    def close(self) -> None:
        """Kill without farewell, and reap."""
        if os.getpid() != self._owner_pid:
            return  # in a forked child it is not ours
        self.kill("it was closed")
        if asyncio._get_running_loop() is None:
            self.wait_over()

    async def close_async(self) -> None:
        """Kill without farewell, and reap, on a loop."""
        self.kill("it was closed")
        ended: Call[Exit] = Call()
        self.on_exit(lambda exit: None if ended.done() else ended.set_result(exit))
        await ended

    # as Process sees it --------------------------------------------------------------------------------------------

    def on_exit(self, tell: Callable[[Exit], None]) -> None:
        with self._lock:
            if self._exit is None:
                self._tell.append(tell)
                return
        tell(self._exit)

    def report(self) -> Report:
        if self._report is None:
            found = report(self.template.plan, self._looks)
            rights = self.template.role.rights
            self._report = replace(found, notes=(*found.notes, rights)) if rights else found
        return self._report

    def narrow(self, policy: Policy) -> Report:
        """Lower limits from outside (prlimit(2)); budgets are the monitor's own."""
        narrowed = self.template.narrowed(policy)
        for name, value in narrowed.limits.items():
            rlimit.set_(name, value, value, self.pid)
        self.cpu_budget, self.wall_budget, self.policy = narrowed.cpu, narrowed.wall, policy
        self._report = None
        return self.report()


def _give_up_waiting(worker: Worker | None) -> None:
    if worker is not None and worker.is_over:
        worker.on_ended(Exit(cause="its zygote did not report its end"))


def _has_ended(pidfd: int) -> bool:
    """Whether the process of a pidfd is dead, reaped or not (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


# Which promise is not kept when a step fails.
_PROMISES: Final = {
    **dict.fromkeys(("new_root", "mount_in_root", "chroot", "landlock"), Promise.FILES),
    **dict.fromkeys(("set_ids", "set_capabilities", "drop_bounding", "securebits"), Promise.IDENTITY),
    **dict.fromkeys(("filter", "strict_mode"), Promise.SYSCALLS),
    "limits": Promise.MEMORY,
    "label": Promise.LABEL,
}


def start_error(failed: Failed) -> BunriError:
    """The exception for a zygote or a worker that could not go on."""
    text = printable(failed.text)
    if failed.usage:
        trace = f"\n{printable(failed.trace, keep_newlines=True, limit=16384)}" if failed.trace else ""
        return UsageError(text + trace)
    return HostError(
        text,
        promise=_PROMISES.get(failed.step or ""),
        layer=printable(failed.step) if failed.step else None,
        errno=failed.errno,
        remedy="See what this host lacks, or name the promise in may_miss",
    )
