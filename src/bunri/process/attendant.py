"""Runs in: the monitor. One worker's own broker: started when the worker has its last filter, gone with the worker.

The order is what makes it safe. The worker installs its last filter and waits. The monitor takes the filter's listener
and a descriptor of the worker's memory, with its own rights, and hands both to a broker; when that has given up all
other rights, the worker may close its copy of the listener and say that it is ready. Then the monitor looks, and a
worker that still had the listener would be killed (THREATS 5). Nothing was sent to it before.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING

from bunri.broker.messages import Charge, Given, NotGiven, Want
from bunri.errors import BunriError, HostError, Promise, ProtocolError
from bunri.kernel import descriptors, pidfd, procfs
from bunri.process.brokers import BrokerProcess

if TYPE_CHECKING:
    from bunri.process.life import Worker

_GO = b"g"


class Attendant:
    """The broker of one worker, and its start."""

    def __init__(self, worker: Worker, charge: Charge) -> None:
        self._worker = worker
        self._charge = charge
        self._number = -1  # of the listener, in the worker
        self._broker: BrokerProcess | None = None
        self._pids = ""

    def on_listener(self, number: int) -> None:
        """The worker waits with its listener. It may not have been reported as forked yet."""
        if self._number >= 0:
            raise ProtocolError("a second listener")
        self._number = number
        if self._worker.pidfd >= 0:
            self.start()

    def on_forked(self) -> None:
        if self._number >= 0:
            self.start()

    def start(self) -> None:
        """Take listener and memory, and hand them to a broker."""
        worker = self._worker
        taken: list[int] = []
        try:
            taken.append(self._take_listener())
            taken.append(self._take_memory())
            self._pids = self._own_pids()
            broker = BrokerProcess(worker.program, f"the broker of {worker.describe()}")
            broker.on_ready = self._let_go_on
            broker.on_over = self._on_over
            if self._charge.several:
                broker.on_want = self._give
            if self._charge.filter:
                broker.on_denied = worker.on_denied
            self._broker = broker
            worker.program.make_broker(broker, self._charge, taken)
        except OSError as fault:
            worker.cannot_start(
                HostError(
                    f"{worker.describe()} cannot have a broker: {fault.strerror}",
                    promise=Promise.NETWORK if self._charge.connects else Promise.FILES,
                    layer="broker",
                    errno=fault.errno,
                    remedy="Give the program CAP_SYS_PTRACE, or hand the worker files and sockets that are open",
                )
            )
        finally:
            for number in taken:
                os.close(number)

    def _take_listener(self) -> int:
        listener = pidfd.get_fd(self._worker.pidfd, self._number)
        kind = descriptors.kind_of(listener)
        if kind != "seccomp notify":
            os.close(listener)
            raise ProtocolError(f"a {kind} descriptor in the place of a listener")
        return listener

    def _take_memory(self) -> int:
        """By number, and then it is looked whether the number is still that worker's."""
        memory = os.open(f"/proc/{self._worker.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        poll = select.poll()
        poll.register(self._worker.pidfd, select.POLLIN)
        if poll.poll(0):
            os.close(memory)
            raise ProcessLookupError(3, "it died while its broker was being started")
        return memory

    def _give(self, wanted: Want) -> None:
        """The memory of a process that has made a call: one of the worker's, and of nobody else's (it may have been
        taken over by the names it reads)."""
        assert self._broker is not None
        try:
            directory = procfs.open_process(wanted.pid)
        except OSError:
            self._broker.tell(NotGiven())
            return
        try:
            if procfs.namespace(directory, "pid") != self._pids:
                raise PermissionError
            memory = os.open("mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
            try:
                inode = _socket_under(directory, wanted.fd)
                self._broker.tell(Given(inode), (memory,))
            finally:
                os.close(memory)
        except OSError:
            self._broker.tell(NotGiven())
        finally:
            os.close(directory)

    def _own_pids(self) -> str:
        """Which pid namespace is the worker's: the plan gave it one of its own."""
        directory = procfs.open_process(self._worker.pid)
        try:
            return procfs.namespace(directory, "pid")
        finally:
            os.close(directory)

    def hear_all(self) -> None:
        """Take what it has told so far."""
        if self._broker is not None:
            self._broker.hear()

    def _let_go_on(self) -> None:
        with contextlib.suppress(OSError):  # a worker that died meanwhile is noticed where its end is
            self._worker.side.link.send_now(_GO, ())

    def _on_over(self, failure: BunriError | None) -> None:
        if self._worker.is_over:
            return
        if failure is not None:
            self._worker.cannot_start(failure)
        elif not self._worker.has_ended:  # with the worker its broker ends as well, and may be heard of first
            self._worker.kill("its broker has ended")

    @property
    def holds_uid(self) -> bool:
        """Whether its process still lives, with the worker's uid."""
        return self._broker is not None and not self._broker.reaped

    def give_back_later(self, uid: int) -> None:
        """When its process is reaped as well."""
        if self._broker is not None:
            self._broker.uid = uid

    def cpu_clock(self) -> int:
        """Nanoseconds of CPU time that it has used for the worker, and that the monitor has used for it: a worker could
        make calls without end that cost more there."""
        if self._broker is None or not self._broker.pid or self._broker.reaped:
            return 0
        try:
            return procfs.cpu_time_ns(self._broker.pid) + self._broker.spent
        except OSError:
            return 0  # it has just ended

    def close(self) -> None:
        """The worker is gone."""
        if self._broker is not None:
            self.hear_all()
            self._broker.drop()


def _socket_under(directory: int, number: int) -> int:
    """The inode of the socket under that number; 0 where nothing stands there."""
    try:
        return procfs.socket_inode(directory, number) if number >= 0 else 0
    except FileNotFoundError:
        return 0
