"""Runs in: the monitor. One worker as its monitor knows it: asked for, forked, confined, looked at, in use, over.

Two things must have come before anything is sent to a worker: the template's word with pid and pidfd, and the
worker's READY. They come on two sockets, in any order, to whatever thread reads them; whoever has the second one
looks at the worker from outside and, if it is what the plan says, opens the channel. START and the first calls stand
in the queue until then.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from bunri.broker.messages import Denied
from bunri.channel.conversation import Outgoing
from bunri.confine import Look, Part, look, report
from bunri.errors import (
    BunriError,
    Denial,
    Exit,
    HostError,
    InternalError,
    Observer,
    ProtocolError,
    Violation,
)
from bunri.kernel import procfs, rlimit
from bunri.plan.report import Report
from bunri.policy import Policy
from bunri.process.behind import Behind
from bunri.process.denials import Denials
from bunri.process.descendants import Descendants
from bunri.process.groups import MemoryGroup
from bunri.process.messages import Failed
from bunri.process.output import Output
from bunri.process.refusals import CLOSED, did_not_wait, start_error
from bunri.text import printable
from bunri.wire import Contract

if TYPE_CHECKING:
    import asyncio

    from bunri.process.attendant import Attendant
    from bunri.process.program import Program
    from bunri.process.templates import TemplateHandle

_ENDING = 100  # milliseconds in which one that is killed is dead: it loses its namespaces and descriptors before
_LAST_WORDS = 0.005  # seconds until they are looked for again
START_WITHIN = 30.0  # seconds from the request to READY

_failed = msgspec.msgpack.Decoder(Failed)


class Worker(Behind):
    """One worker, in a process of its own."""

    def __init__(
        self, program: Program, template: TemplateHandle, contract: Contract, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        super().__init__(program, contract, template.policy, loop)
        self.template = template
        self.uid: int | None = None
        self.output: Output
        self.attendant: Attendant | None = None  # its own broker
        self.refused: Denials | None = None  # development mode
        self.group: MemoryGroup | None = None
        self.programs: tuple[int, ...] = ()  # processes that it has made, and that count as its own
        self._descendants = Descendants()
        self.asked = time.monotonic()
        self.waits = template.waits
        self._patience = 50  # times that its end waits for its last words to be heard
        self._held = False  # it is at the checkpoint, or was
        self._let_on = False
        self._ready = False
        self._forked = False
        self._looks: list[Look] = []
        self._report: Report | None = None
        self.cpu_budget = template.settled.cpu
        self.wall_budget = template.settled.wall

    def belongs_to(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """A spare is taken: from now on it is somebody's, and read on his loop or thread."""
        self.asked = time.monotonic()
        self.loop = loop
        self.side.belongs_to(loop)

    # the start -----------------------------------------------------------------------------------------------------

    def on_forked(self, pid: int, pidfd: int) -> None:
        """The template has cloned it. On the supervisor's thread."""
        with self._lock:
            self.pid, self.pidfd, self._forked = pid, pidfd, True
            if self._cause is not None:
                self._send_kill()
                return
            if self.group is not None and not self._enter(self.group):
                return
            if not self.waits:
                self._look(Part.EARLY)
            elif self._held:
                self._look_and_let_on()
            if self.attendant is not None:
                self.attendant.on_forked()
            if self._ready:
                self._look_and_open()

    def _enter(self, group: MemoryGroup) -> bool:
        """Nothing has been sent to it: what it used so far was its template's."""
        try:
            group.enter(self.pid)
        except HostError as fault:
            if _has_ended(self.pidfd):
                self.kill(CLOSED)  # how it ended is the story
            else:
                self.cannot_start(fault)
            return False
        return True

    def on_ready(self, *, held: bool) -> None:
        """It says that it is confined, or, `held`, that it waits at its checkpoint. On whatever thread reads its channel."""
        with self._lock:
            if self._ready or (held and (self._held or not self.waits)):
                raise ProtocolError("a READY where none was due")
            if self.waits and not held and not self._let_on:
                self._start_error = did_not_wait(self.describe())
                self.kill("it did not wait at its checkpoint")
                return
            self._held, self._ready = self._held or held, not held
            if self._forked:
                (self._look_and_let_on if held else self._look_and_open)()

    @property
    def speaks_twice(self) -> bool:
        return self.waits or self.attendant is not None

    def on_listener(self, number: int) -> None:
        """It has its last filter, and waits until its broker is there. On whatever thread reads its channel."""
        with self._lock:
            if self.attendant is None or self._ready:
                raise ProtocolError("a listener that the plan does not know")
            self.attendant.on_listener(number)

    def on_denied(self, told: Denied) -> None:
        """A call of it was refused; one that is attack-shaped is its end, as it is without development mode."""
        if self.refused is None:
            raise ProtocolError("a refusal told where none is to be")
        deadly = self.refused.take(told)
        if deadly is not None:
            self.kill(f"it called {deadly.denial.call}, which its filter answers with death", deadly)

    @property
    def denials(self) -> tuple[Denial, ...]:
        if self.refused is None or self.attendant is None:
            return ()
        self.attendant.hear_all()
        return tuple(self.refused)

    @property
    def has_ended(self) -> bool:
        """Whether its process is dead, be it that nobody has said so yet."""
        return self._forked and _has_ended(self.pidfd)

    def explained(self, error: BaseException, code: int | None) -> BaseException:
        """The broker was told before the worker was, so what it told is there."""
        if self.refused is None or self.attendant is None or not isinstance(error, Violation):
            return error
        self.attendant.hear_all()
        return self.refused.explain(error, code)

    def cannot_start(self, error: BunriError) -> None:
        """Something that it needs cannot be had."""
        if not self.side.open:
            self._start_error = self._start_error or error
        self.kill(str(error), error)

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

    def _look_and_let_on(self) -> None:
        """At its checkpoint: what nobody could read once it is not dumpable."""
        self._look(Part.HELD)
        if self._cause is None:
            self._let_on = True
            self.side.let_on()

    def _look_and_open(self) -> None:
        self._look(Part.AFTER if self.waits else Part.LATE)
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
        if _has_ended(self.pidfd, _ENDING):
            self.kill(CLOSED)  # there was nothing to see any more; how it ended is the story
            return
        self._start_error = wrong
        self.kill(f"it was not what the plan says: {wrong}")

    # clocks --------------------------------------------------------------------------------------------------------

    def cpu_clock(self) -> int:
        """Nanoseconds of CPU time it has used, by its own clock, read from here (clock_getcpuclockid(3))."""
        if not self.pid or self.is_over:
            return 0
        brokers = self.attendant.cpu_clock() if self.attendant is not None else 0
        try:
            own = procfs.cpu_time_ns(self.pid)
        except OSError:
            return 0  # it has just ended
        several = self.template.settled.processes or self.programs
        return own + brokers + (self._descendants.cpu_ns(self.pid, *self.programs) if several else 0)

    @property
    def has_budget(self) -> bool:
        return self.cpu_budget is not None or self.wall_budget is not None

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

    def end_it(self) -> None:
        if self._forked:
            try:
                if self.init is not None and self.init.done:
                    self.template.spares.learn_from(self)
            finally:
                self._send_kill()

    def _send_kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def on_ended(self, exit: Exit) -> None:
        """It is reaped. On the supervisor's thread: everything that waited for it fails now, and what it had is given
        back."""
        if self._cause is None and self._patience and self.side.may_have_last_words():
            # It died by itself, and what it said last is still to be heard by whoever reads.
            self._patience -= 1
            self.program.supervisor.run_at(time.monotonic() + _LAST_WORDS, lambda: self.on_ended(exit))
            return
        with self._lock:
            if self._exit is not None:
                return
            if self._cause is CLOSED and exit.signal != signal.SIGKILL:
                self._cause = None  # it died by itself, and that is the whole story
            if self.group is not None and self.group.remove() and self._cause in (None, CLOSED):
                self._cause = f"it used up its memory of {self.policy.settled().memory} bytes"
            self._exit = Exit(exit.code, exit.signal, self._cause or exit.cause)
        self.side.broken_quietly()
        self.side.end_with(self.death())
        self.side.services.close()
        self.output.close()
        if self.attendant is not None:
            self.attendant.close()
        if self.pidfd >= 0:
            pidfd, self.pidfd = self.pidfd, -1  # first: another thread may fork meanwhile
            os.close(pidfd)
        self.template.forget(self)
        self._over.set()
        self.program.supervisor.forget(self.side)
        self.side.release_resources()
        for tell in self._tell:
            tell(self._exit)

    def close_in_child(self) -> None:
        super().close_in_child()
        self.output.close_in_child()

    # as Process sees it --------------------------------------------------------------------------------------------

    def report(self) -> Report:
        if self._report is None:
            found = report(self.template.plan, self._looks)
            rights = self.template.role.rights
            self._report = replace(found, notes=(*found.notes, rights)) if rights else found
        return self._report

    def narrow(self, policy: Policy) -> Report:
        """Lower limits from outside (prlimit(2)); budgets are the monitor's own. WorkerDied where it is over: its number may be
        somebody else's by then."""
        narrowed = self.template.narrowed(policy)
        for name, value in narrowed.limits.items():
            if self.is_over or self.has_ended:
                raise self.death()
            rlimit.set_(name, value, value, self.pid)
        if self.group is not None:
            self.group.lower(narrowed.memory)
        self.cpu_budget, self.wall_budget, self.policy = narrowed.cpu, narrowed.wall, policy
        self._report = None
        self.side.watch()  # the budgets may be its first
        return self.report()


def _has_ended(pidfd: int, within: int = 0) -> bool:
    """Whether the process of a pidfd is dead, reaped or not (pidfd_open(2)), or is so `within` milliseconds; -1: reaped,
    and forgotten."""
    if pidfd < 0:
        return True
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within))
