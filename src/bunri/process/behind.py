"""Runs in: the monitor. What stands behind the stub of one worker, wherever the worker runs: calls go through it, and
its end is told to all who wait.

`Worker` (life.py) is a process of its own. For a user's tests there is a thread of this process (in_thread.py).
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bunri.calls import Call
from bunri.channel.conversation import Outgoing
from bunri.errors import (
    BunriError,
    Denial,
    Exit,
    ProtocolError,
    RemoteError,
    UsageError,
    WorkerDied,
)
from bunri.plan.report import Report
from bunri.policy import Policy
from bunri.process import loops
from bunri.process.blocking import running_loop
from bunri.process.process import Process
from bunri.process.refusals import CLOSED, killed_by_kernel
from bunri.process.serving import MonitorSide
from bunri.wire import Contract, MethodContract

if TYPE_CHECKING:
    import asyncio

    from bunri.process.program import Program

OVER_WITHIN = 10.0  # seconds from the kill to the report of the end


class Behind(ABC):
    """One worker, as its stub knows it. Its `side` is the conversation."""

    hurried = True  # its calls have the default deadline
    waits = False  # at a checkpoint, to be looked at

    @property
    def speaks_twice(self) -> bool:
        """Whether two messages of it are due before it is open."""
        return self.waits

    @property
    def has_budget(self) -> bool:
        """Whether its policy bounds the time of its calls."""
        return False

    def __init__(
        self, program: Program, contract: Contract, policy: Policy, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.program = program
        self.contract = contract
        self.policy = policy
        self.loop = loop
        self.number = 0
        self.pid = 0
        self.pidfd = -1
        self.side: MonitorSide
        self.init: Outgoing | None = None  # the call of __init__
        self._start_error: BunriError | None = None
        self._cause: str | None = None
        self._cause_error: BaseException | None = None
        self._exit: Exit | None = None
        self._over = threading.Event()
        self._tell: list[Callable[[Exit], None]] = []
        self._lock = threading.RLock()
        self._owner_pid = os.getpid()

    # what differs --------------------------------------------------------------------------------------------------

    @abstractmethod
    def on_ready(self, *, held: bool) -> None:
        """It says that it is ready, or, `held`, that it waits to be looked at. On whatever thread reads its channel."""

    def on_listener(self, number: int) -> None:
        """It waits with the listener of its filter, descriptor `number` there, for its broker."""
        raise ProtocolError("a listener that the plan does not know")

    @abstractmethod
    def on_failed(self, body: bytes) -> None:
        """It could not be confined."""

    @abstractmethod
    def on_ended(self, exit: Exit) -> None:
        """It is over. On the supervisor's thread: everything that waited for it fails now, and what it had is given
        back."""

    def explained(self, error: BaseException, code: int | None) -> BaseException:
        """An exception that its fault became, with what else is known of it."""
        return error

    @property
    def denials(self) -> tuple[Denial, ...]:
        """What it was refused, as far as that is told."""
        return ()

    def close_in_child(self) -> None:
        """In a forked child: close what is the parent's. No lock is taken: whoever held one is not in the child."""
        self.side.link.close()
        if self.side.arena is not None:
            self.side.arena.close()
            self.side.arena = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    @abstractmethod
    def end_it(self) -> None:
        """Kill it, now. Called with the lock held; `on_ended` follows, later."""

    @abstractmethod
    def cpu_clock(self) -> int:
        """Nanoseconds of CPU time it has used."""

    @abstractmethod
    def check_budget(self, out: Outgoing, now: float) -> None:
        """Kill it if this call has used up its policy's time."""

    @abstractmethod
    def report(self) -> Report:
        """What is in force in it."""

    @abstractmethod
    def narrow(self, policy: Policy) -> Report:
        """Lower its limits from outside."""

    # what a stub asks of it ----------------------------------------------------------------------------------------

    def invoke(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.side.invoke(method, args, kwargs)

    def submit(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
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
        if self.loop is not None and running_loop() is self.loop and not self.init.done:
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

    @property
    def is_ours(self) -> bool:
        """False in a forked child of the process that started it."""
        return os.getpid() == self._owner_pid

    def refuse_fork(self) -> None:
        if not self.is_ours:
            raise UsageError(
                f"{self.describe()} belongs to the process that started it, and this is a forked child of that. Start a worker here"
            )

    # the end -------------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Killed, or found dead. What it was doing fails as soon as it is reaped."""
        return self._cause is not None or self._exit is not None

    @property
    def has_ended(self) -> bool:
        """Whether it is dead, be it that nobody has said so yet."""
        return self._exit is not None

    def kill(self, cause: str, error: BaseException | None = None) -> None:
        """End it, with the first cause that anybody gave. In a forked child it is not ours to end: there its stub may be
        collected, or an exception may pass by."""
        if not self.is_ours:
            return
        with self._lock:
            is_first = self._cause is None
            if is_first or self._cause is CLOSED:
                self._cause, self._cause_error = cause, error
            if not is_first or self._exit is not None:
                return
            self.end_it()
        dying = weakref.ref(self)
        self.program.supervisor.run_at(time.monotonic() + OVER_WITHIN, lambda: _give_up_waiting(dying()))

    def on_closed(self) -> None:
        """Its end of the channel is gone: it is dead, or acts as if it were (THREATS 21). Its own end is the cause, unless it lives."""
        self.kill(CLOSED)

    def on_loop_closed(self) -> None:
        """Nobody reads its channel any more."""
        self.kill(loops.CLOSED)

    def death(self) -> BaseException:
        """The error for whoever still calls it."""
        failure = self.start_failure()
        if failure is not None:
            return failure
        exit = self._exit or Exit(cause=self._cause)
        died = WorkerDied(exit, who=self.describe())
        if isinstance(self._cause_error, BaseException):
            died.__cause__ = self._cause_error
        else:
            died.__cause__ = killed_by_kernel(self.describe(), self.policy, exit)
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
        if not self.is_ours:
            return
        self.kill("it was closed")
        if running_loop() is None:
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


def _give_up_waiting(worker: Behind | None) -> None:
    if worker is not None and worker.is_over:
        worker.on_ended(Exit(cause="nobody reported its end"))
