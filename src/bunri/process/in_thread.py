"""Runs in: a user's test run. A worker that is no process but a thread of this one: same contract, same frames, same
checks; nothing of the kernel's. Only `bunri.testing` makes one.

A thread cannot be killed. What would kill a worker closes its channel: its callers are told at once, and the thread
ends when its method returns, or at its next call of a service.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bunri.channel import arena as arenas
from bunri.channel.arena import Arena
from bunri.channel.conversation import Outgoing
from bunri.channel.link import Link
from bunri.channel.serving import WorkerSide
from bunri.compartment import Compartment
from bunri.errors import Exit, ProtocolError, UsageError
from bunri.kernel import memfd
from bunri.plan.report import Layer, Report, State
from bunri.policy import Policy, Promise, narrower_or_equal
from bunri.policy.words import FEWEST_OPEN
from bunri.process import here, paths, program
from bunri.process.behind import Behind
from bunri.process.refusals import CLOSED
from bunri.process.serving import MonitorSide
from bunri.process.worker import gives_descriptors, is_asynchronous, takes_descriptors
from bunri.wire import Contract, contract_of
from bunri.wire.bounds import HANDLES

log = logging.getLogger("bunri.testing")

NOTE = "bunri.testing.unconfined(): a thread of this process, confined by nothing"
_UNREAD = 0.2  # seconds in which whoever reads may still read what a thread that ended has sent


class Left(BaseException):
    """The worker's part of the thread is over."""


class ThreadSide(WorkerSide):
    """The worker's end of the channel, where leaving must not end the process."""

    gone = False
    open_files = 0  # of its policy, which nothing enforces here but the monitor

    def serve(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Until the other end is closed."""
        self._thread = threading.get_ident()
        try:
            self.run(loop)
        except Left:
            return
        except (BrokenPipeError, ConnectionError):
            return  # closed between a call and its answer
        finally:
            if loop is not None:
                _end_loop(loop, self.link.number)

    def leave(self, code: int) -> NoReturn:
        self.gone = True
        raise Left

    def push(self, packet: bytes | bytearray, descriptors: Sequence[int]) -> bool:
        try:
            return self.gone or super().push(packet, descriptors)
        except (BrokenPipeError, ConnectionError):
            self.gone = True
            return True

    def most_under_way(self) -> int:
        return max(FEWEST_OPEN, self.open_files - HANDLES)

    def fail(self, fault: BaseException) -> NoReturn:
        if isinstance(fault, Left):
            raise fault
        super().fail(fault)

    def _have_turn(self, begin: Callable[[], object]) -> None:
        try:
            super()._have_turn(begin)
        except Left:
            asyncio.get_running_loop().stop()


class InThread(Behind):
    """A worker in a thread."""

    hurried = False  # somebody may sit in a debugger

    def __init__(
        self, cls: type[Compartment], contract: Contract, policy: Policy, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        super().__init__(program.current(), contract, policy, loop)
        self.pid = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arena, far_arena = _arenas()
        self.side = MonitorSide(
            Link(ours, takes=gives_descriptors(contract), restless=True), Arena.of_monitor(arena), self, loop
        )
        self._far = ThreadSide(
            Link(theirs, takes=takes_descriptors(contract)), Arena.of_worker(far_arena), contract, cls
        )
        self._far.open_files = policy.settled().open_files
        self._code = 0
        self.thread = threading.Thread(target=self._work, name=f"unconfined {cls.__qualname__}", daemon=True)
        self.side.let_through()
        self.thread.start()

    def describe(self) -> str:
        return f"{self.contract.cls.__qualname__} (unconfined, a thread)"

    def _work(self) -> None:
        """On the thread: be the worker."""
        here.become_worker_in_this_thread()
        try:
            self._far.serve(asyncio.SelectorEventLoop() if is_asynchronous(self.contract) else None)
        except ProtocolError:
            log.exception("%s got what the protocol does not allow", self.describe())
            self._code = 1
        finally:
            self._far.end_all(Left())
            arena, self._far.arena = self._far.arena, None
            if arena is not None:
                arena.close()
            self._far.link.close()
            supervisor = self.program.supervisor
            supervisor.run_at(time.monotonic() + _UNREAD, lambda: self.on_ended(Exit(code=self._code)))

    # the end -------------------------------------------------------------------------------------------------------

    def end_it(self) -> None:
        if self._cause is CLOSED:
            self._cause = None  # its thread has ended; there was nobody to kill
            self.program.supervisor.run_soon(lambda: self.on_ended(Exit(code=self._code)))
            return
        try:
            self.side.link.sock.shutdown(socket.SHUT_RDWR)
        except OSError as fault:
            log.debug("%s: its channel is closed already (%s)", self.describe(), fault)
        self.program.supervisor.run_soon(lambda: self.on_ended(Exit()))

    def on_ended(self, exit: Exit) -> None:
        with self._lock:
            if self._exit is not None:
                return
            self._exit = Exit(exit.code, exit.signal, self._cause or exit.cause)
        self.side.broken_quietly()
        self.side.end_with(self.death())
        self.side.services.close()
        self._over.set()
        self.side.release_resources()
        for tell in self._tell:
            tell(self._exit)

    # what only a process has ---------------------------------------------------------------------------------------

    def on_ready(self, *, held: bool) -> None:
        raise ProtocolError("READY from a thread")

    def on_failed(self, body: bytes) -> None:
        raise ProtocolError("FAILED from a thread")

    def cpu_clock(self) -> int:
        return 0

    def check_budget(self, out: Outgoing, now: float) -> None:
        """No budget: somebody may sit in a debugger."""

    def report(self) -> Report:
        layers = (
            Layer(promise, "none", State.MISSING, None, NOTE) for promise in Promise if _is_asked(promise, self.policy)
        )
        return Report(tuple(layers), (NOTE,))

    def narrow(self, policy: Policy) -> Report:
        wider = narrower_or_equal(policy, self.policy)
        if wider:
            raise UsageError(f"narrow can only take rights away: {'; '.join(wider)}")
        self.policy = policy
        return self.report()


class Threads:
    """What a block under `bunri.testing.unconfined()` starts."""

    def __init__(self) -> None:
        self._begun: list[InThread] = []
        self._closed = False
        self._warm: set[type[Compartment]] = set()

    def make(self, cls: type[Compartment], policy: Policy, loop: asyncio.AbstractEventLoop | None) -> Behind:
        if self._closed:
            raise UsageError("the block under bunri.testing.unconfined() has ended, and its pools with it")
        policy.settled()
        self.prepare(cls)
        worker = InThread(cls, contract_of(cls), policy, loop)
        self._begun.append(worker)
        if self._closed:  # meanwhile, by another thread, which may not have seen it
            worker.kill("the unconfined block has ended")
        return worker

    def prepare(self, cls: type[Compartment]) -> None:
        """What the zygote would do: imports, `warm_up`; and what would be wrong with a real start is wrong here."""
        if here.kind() is not here.Kind.MONITOR:
            raise UsageError("a worker cannot start workers. Let the monitor start them, and hand over a service")
        paths.module_of(cls.__module__, cls.__qualname__)
        contract_of(cls)
        if cls not in self._warm:
            for name in cls.preload:
                importlib.import_module(name)
            cls.warm_up()
            self._warm.add(cls)

    def close(self, patience: float = 1.0) -> None:
        """End all of them. A thread whose method does not return is left to itself, and named in the log."""
        self._closed = True
        for worker in self._begun:
            worker.kill("the unconfined block has ended")
        until = time.monotonic() + patience
        for worker in self._begun:
            worker.thread.join(max(0.0, until - time.monotonic()))
            if worker.thread.is_alive():
                log.warning("%s is still in a method: a thread cannot be killed", worker.describe())
            worker.wait_over()
        self._begun.clear()


def _is_asked(promise: Promise, policy: Policy) -> bool:
    return promise is not Promise.LABEL or policy.selinux is not None or policy.apparmor is not None


def _arenas() -> tuple[mmap.mmap, mmap.mmap]:
    """One memory, mapped once for each end."""
    number = memfd.arena("bunri arena", arenas.SIZE)
    try:
        both = mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(number, arenas.SIZE, mmap.MAP_SHARED, both), mmap.mmap(
            number, arenas.SIZE, mmap.MAP_SHARED, both
        )
    finally:
        os.close(number)


def _end_loop(loop: asyncio.AbstractEventLoop, number: int) -> None:
    """Cancel what runs, and close the loop."""
    loop.remove_reader(number)
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(_all(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()


async def _all(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
