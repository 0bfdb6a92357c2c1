"""Runs in: the monitor. Who reads one worker's channel, and on which thread.

Reads: the loop that started the worker; without a loop, the thread that is inside a call to it; and while there are only
Calls that no thread waits for, the supervisor. A direct call from a second thread waits its turn.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bunri.calls import Call
from bunri.channel.arena import Arena
from bunri.channel.conversation import Conversation
from bunri.channel.link import Link
from bunri.errors import ProtocolError
from bunri.process import turns
from bunri.process.blocking import refuse_result_on_loop, refuse_unheard, running_loop

if TYPE_CHECKING:
    import asyncio

    from bunri.process.behind import Behind
    from bunri.process.services import Services

_LOOK = 0.02  # seconds


class MonitorEnd(Conversation):
    """The monitor's end of one worker's channel: it is read by one thread at a time, and until the worker has ended."""

    services: Services

    def __init__(self, link: Link, arena: Arena | None, worker: Behind, loop: asyncio.AbstractEventLoop | None) -> None:
        super().__init__(link, arena)
        self.worker = worker
        self.loop = loop
        self.open = False  # the worker was looked at: packets may go to it (set by `let_through`)
        self._turn = threading.RLock()  # whoever reads
        self._background = False  # the supervisor reads
        self._asked = False  # the supervisor was asked to
        self._writing = False  # the loop waits for room
        self._leaving = self._left_loop = False  # the loop is to forget the channel; it has

    @abstractmethod
    def take(self, packet: bytes, descriptors: list[int]) -> None:
        """A packet has come. With the turn held."""

    # a thread that waits ---------------------------------------------------------------------------------------------

    def drive_until(self, done: Callable[[], bool], until: float | None = None) -> None:
        """Read on this thread, and serve, until `done`, or until it is too late."""
        with self._turn:
            self.end_background()
            self.flush()
            self.services.work()
            while not done():
                if self.worker.is_over:
                    self.worker.wait_over()
                    continue
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return
                self._read_one(left)

    def drive_call(self, call: Call[Any], timeout: float | None) -> None:
        """Read on this thread until the call has its answer, or for so many seconds."""
        if self.worker.program.supervisor.is_current:
            return
        refuse_result_on_loop()
        until = None if timeout is None else time.monotonic() + timeout
        # Another thread may be reading, inside a call of its own: it takes our answer too, so we look now and then.
        while not call.done():
            left = _LOOK if until is None else min(_LOOK, until - time.monotonic())
            if left <= 0:
                return
            if self._turn.acquire(timeout=left):
                try:
                    self.drive_until(call.done, until)
                finally:
                    self._turn.release()

    def _read_one(self, seconds: float | None) -> None:
        unsent = self.open and self.backlog > 0
        if unsent or seconds is not None:
            self.link.wait(for_room=unsent, seconds=seconds)
            self.flush()
            self.read_now()
            return
        try:
            self.take(*self.link.receive())
        except (ProtocolError, ConnectionError) as fault:
            self.broken(fault)

    def read_now(self) -> bool:
        """Take one packet if there is one, and say whether there was."""
        try:
            packet = self.link.receive_now()
            if packet is not None:
                self.take(*packet)
        except (ProtocolError, ConnectionError) as fault:
            self.broken(fault)
            return True
        return packet is not None

    # the loop --------------------------------------------------------------------------------------------------------

    def on_loop_readable(self) -> None:
        """One packet a turn, so that no worker keeps the loop to itself."""
        assert self.loop is not None
        if turns.is_full(self.loop):
            return  # the loop finds it readable again
        if (self._take_turn() or 0.0) > turns.LONGEST:
            turns.fill(self.loop)
            self.loop.remove_reader(self.link.number)
            turns.wait_in_line(self.loop, self.on_turn)

    def on_turn(self) -> None:
        """It had much of the loop, and stood in line for more. Once it wants nothing, it need not stand there."""
        assert self.loop is not None
        if self._take_turn() is not None:
            turns.wait_in_line(self.loop, self.on_turn)
        elif not (self._left_loop or self.worker.is_over):
            self.loop.add_reader(self.link.number, self.on_loop_readable)

    def _take_turn(self) -> float | None:
        """Serve what waits, or take one packet: the seconds that it took, or would if it were served to its end. None: there was
        nothing."""
        begun = time.monotonic()
        with self._turn:
            if self._left_loop or self.link.sock.fileno() < 0:  # in this turn of the loop, after it had seen a packet
                return None
            if self.waiting:
                self.services.work()
            elif not self.read_now():
                return None
        return math.inf if self.waiting else time.monotonic() - begun

    def ask_for_room(self) -> None:
        """What could not be sent is, once there is room: the loop says when. A thread that reads finds out itself."""
        if self.loop is None or self._writing or self._left_loop:
            return
        self._writing = True
        if running_loop() is self.loop:
            self._wait_for_room()
        else:
            with contextlib.suppress(RuntimeError):  # it was closed in this very moment, and the next call says so
                self.loop.call_soon_threadsafe(self._wait_for_room)

    def _wait_for_room(self) -> None:
        """On the loop."""
        if self.loop is not None and not self._left_loop:
            self.loop.add_writer(self.link.number, self._on_room)

    def _on_room(self) -> None:
        with (
            self.state
        ):  # another thread may find no room behind the last packet, and must see that nobody waits for it
            if self.flush() and self.loop is not None:
                self._writing = False
                self.loop.remove_writer(self.link.number)

    def _leaves_loop(self) -> bool:
        """Whether no loop watches the channel any more; if one does, it is asked to stop that."""
        if self.loop is None or self._left_loop or self.loop.is_closed():
            return True
        if running_loop() is self.loop:
            self._leave_loop()
            return True
        if not self._leaving:
            self._leaving = True
            with contextlib.suppress(RuntimeError):  # it was closed in this very moment, and is found so the next time
                self.loop.call_soon_threadsafe(self._leave_loop)
        return False

    def _leave_loop(self) -> None:
        """On the loop, after whatever was asked of it before; once, for the number may be somebody else's after that."""
        assert self.loop is not None
        if self._left_loop:
            return
        self.loop.remove_reader(self.link.number)
        if self._writing:
            self.loop.remove_writer(self.link.number)
        self._left_loop = True

    # the supervisor --------------------------------------------------------------------------------------------------

    def read_soon(self) -> None:
        """Somebody waits who does not read: let the supervisor do it. Takes no lock of ours (`Call._observed`)."""
        refuse_unheard(self)
        if not (self._background or self._asked):
            self._asked = True
            self.worker.program.supervisor.run_soon(self.read_in_background)

    def read_if_nobody_does(self) -> None:
        """Calls are out, and no thread has been reading since the last tick."""
        if self._turn.acquire(blocking=False):
            try:
                self.read_in_background()
            finally:
                self._turn.release()

    def read_in_background(self) -> None:
        """Nobody is inside a call: let the supervisor read the answers."""
        with self.state:
            self._asked = False
            # Flag and registration change together: apart, two threads could leave one without the other.
            if self._background or self.worker.is_over:
                return
            self._background = True
            self.worker.program.supervisor.add(self.link.number, self._read_for_supervisor)

    def end_background(self) -> None:
        """The supervisor reads no more: somebody else does."""
        with self.state:
            if self._background:
                self._background = False
                self.worker.program.supervisor.remove(self.link.number)

    def _read_for_supervisor(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        try:
            if self._background:
                self.read_now()
                with self.state:
                    if not self.pending and (self.open or self.worker.is_over or not self.worker.speaks_twice):
                        self.end_background()
                if self.waiting:
                    self._serve_elsewhere()
        finally:
            self._turn.release()

    def _serve_elsewhere(self) -> None:
        """The worker calls a service, and no thread is inside a call: the program only waits, in `as_completed` or for a callback.
        The supervisor runs no code of the program, so a thread does, and ends with it."""
        self.end_background()
        threading.Thread(target=self._serve_waiting, name="bunri-service", daemon=True).start()

    def _serve_waiting(self) -> None:
        with self._turn:
            self.services.work()
            if self.pending:
                self.read_in_background()

    # the end ---------------------------------------------------------------------------------------------------------

    def broken(self, fault: Exception) -> None:
        """The worker broke the protocol, or its end of the channel is gone. Either way it ends (THREATS 21)."""
        self._stop_reading()
        if isinstance(fault, ProtocolError):
            self.worker.kill(str(fault), fault)
        else:
            self.worker.on_closed()

    def _stop_reading(self) -> None:
        self.end_background()
        self._leaves_loop()

    def may_have_last_words(self) -> bool:
        """Whether something of a dead worker is still unread, or in the hands of a reader. Who reads comes to the end."""
        if not self._turn.acquire(blocking=False):
            return True
        try:
            return self.link.has_unread()
        finally:
            self._turn.release()

    def broken_quietly(self) -> None:
        """The worker is reaped: nothing more will come."""
        self._stop_reading()
        self.link.hang_up()

    def release_resources(self) -> None:
        """Close the channel and unmap the arena, once nobody reads. The supervisor never waits for a reader, nor for a
        loop: it comes again. A number that a loop still watches is not closed, for it might be somebody else's by then."""
        if not (self._leaves_loop() and self._turn.acquire(blocking=False)):
            supervisor = self.worker.program.supervisor
            supervisor.run_at(time.monotonic() + 0.05, self.release_resources)
            return
        try:
            with self.state:
                self.link.close()
                if self.arena is not None:
                    self.arena.close()
                    self.arena = None
        finally:
            self._turn.release()
