"""Runs in: the monitor, with the user's rights. Opens what is asked for, starts the processes, passes bytes along.

It reads no packet. A capture file's bytes go to the decoder as they come (reading.py), of a living capture the decoder
has the memory (live.py); text comes back, and only what a terminal may see gets there. A decoder that dies or hangs is
replaced: the packet that did it is reported, kept with --quarantine, and the capture goes on behind it.

A decoder hangs when nothing moves for as long as one look after another finds nothing new. Its questions for names are
answered here, meanwhile: the time that a name server takes is not the decoder's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

import bunri
from bunri import fs
from bunri.apps.dump import bpf, compiler, resolver
from bunri.apps.dump.compiler import Compiler
from bunri.apps.dump.messages import BadExpression, Instruction, Names
from bunri.apps.dump.resolver import Resolver

P = ParamSpec("P")
T = TypeVar("T")

LOOK = 0.1  # seconds
PATIENCE = 20.0  # seconds without any news, for one piece of a capture
PATIENCE_FOR_ONE = 3.0  # the same for one packet
MOST_NAMES = 4096  # addresses that are asked for; each is bytes that the decoder's owner can tell a name server
_FOR_A_NAME = 60.0  # seconds: the C library gives up after 30
_DEATHS = 3  # of resolvers that did not merely wait
_NO_END = 1 << 30  # seconds
WRITE_FAILED = 14  # as tcpdump's exit status has it

# What may reach a terminal: printable ASCII, and the line ends and tabs that the lines are made of.
_SAFE = bytes(code if 32 <= code < 127 or code in b"\n\t" else 0x3F for code in range(256))


class Failed(Exception):
    """It ends here, with this sentence."""

    def __init__(self, said: str, status: int = 1) -> None:
        super().__init__(said)
        self.status = status


class Hangs(bunri.PeerError):
    """A process at which nothing moves."""


def begin(method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> bunri.Call[T]:
    """Begin a call that no clock ends: whoever waits for it looks whether something moves."""
    with bunri.deadline(_NO_END):
        return bunri.call(method, *args, **kwargs)


def answer(call: bunri.Call[T], patience: float, news: Callable[[], object]) -> T:
    """The answer of a process. Hangs, where `patience` seconds bring none and `news` is the same at every look.

    Looks are counted, and not the time: whoever stopped this process for a while did not stop the decoder's.
    """
    looks, before = 0.0, news()
    while looks < patience:
        try:
            return call.result(timeout=LOOK)
        except bunri.PeerError:
            raise
        except TimeoutError:
            now = news()
            looks = looks + LOOK if now == before else 0.0
            before = now
    raise Hangs(f"it hangs: nothing moved for {patience:g} seconds")


class Asked(Names):
    """Answers the decoder's questions from the resolver's word, each once, and no more of them than MOST_NAMES.

    A look-up takes as long as the C library has patience. A resolver that is stuck or died is replaced.
    """

    def __init__(self, start: Callable[[], Resolver]) -> None:
        self._start = start
        self._worker: Resolver | None = None
        self._told: dict[bytes, str] = {}
        self._deaths = 0

    @property
    def asked(self) -> int:
        """How many addresses were asked for."""
        return len(self._told)

    def host(self, address: bytes) -> str:
        """The name of an address; empty where there is none."""
        found = self._told.get(address)
        if found is not None:
            return found
        if len(address) not in (4, 16):
            raise bunri.Misbehaved("a question for a name that is about no address")
        if len(self._told) >= MOST_NAMES:
            return ""
        name = self._told[address] = self._look_up(address)
        if len(self._told) == MOST_NAMES:
            complain(f"{MOST_NAMES} addresses were looked up; further ones are printed as numbers")
        return name

    def _look_up(self, address: bytes) -> str:
        if self._deaths >= _DEATHS:
            return ""
        if self._worker is None:
            self._worker = self._start()
        try:
            with bunri.deadline(_FOR_A_NAME):
                name = self._worker.host(address)
            return name if resolver.NAME.fullmatch(name) else ""  # a resolver may be somebody's, too
        except bunri.DeadlineExceeded:
            self.close()
        except bunri.PeerError as fault:
            self.close()
            self._deaths += 1
            if self._deaths == _DEATHS:
                complain(f"addresses are printed as numbers from here on: {cause_of(fault)}")
        return ""

    def close(self) -> None:
        """End the resolver."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def cause_of(fault: BaseException) -> str:
    """Why a process ended, in one line."""
    return bunri.printable(str(fault).partition("\n")[0], limit=200)


def compile_expression(expression: str, link: int, snap: int, *, optimize: bool, netmask: int = 0) -> list[Instruction]:
    """The checked program of a filter expression. Failed with libpcap's own words."""
    there = [fs.read(path) for path in compiler.NAMES if os.path.exists(path)]
    with Compiler.start_under(Compiler.policy.with_(files=there)) as worker:
        try:
            program = worker.compile(os.fsencode(expression), {101: 12}.get(link, link), snap, int(optimize), netmask)
        except BadExpression as bad:
            raise Failed(bunri.printable(bad.said, limit=500)) from None
        except bunri.PeerError as fault:
            raise Failed(f"the compiler of filter expressions failed: {fault}") from None
    try:
        bpf.check(program)
    except bpf.Refused as refused:
        raise Failed(f"the compiled filter was refused: {refused}") from None
    return program


def names_for(stack: ExitStack, numeric: int) -> Asked | None:
    """The service that the decoder may ask for names; None with -n."""
    if numeric:
        return None
    there = [path for path in resolver.FILES if os.path.exists(path)]
    names = Asked(lambda: Resolver.start_under(resolver.policy(there)))
    stack.callback(names.close)
    return names


def safe(text: bytes) -> bytes:
    """Text of a decoder, as a terminal may see it."""
    return text.translate(_SAFE)


def complain(text: str) -> None:
    """One line on standard error, in tcpdump's way."""
    sys.stderr.write(f"bunri dump: {bunri.printable(text, keep_newlines=True)}\n")
    sys.stderr.flush()


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM, or SIGHUP."""


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP end a capture; SIGUSR1 asks how far a living one is.

    They end it at once where this process waits, and else behind what it has begun: a record is written whole.
    """

    def __init__(self, *, asks: bool = False) -> None:
        """Without `asks` SIGUSR1 does what it does to any program."""
        self._asks = asks
        self._before: dict[int, object] = {}
        self._waits = False
        self._asked = False
        self.came = False

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # as nohup wants it
            self._before[number] = signal.signal(number, self._stop)
        if self._asks:
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._question)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if number == signal.SIGUSR1 and handler is signal.SIG_DFL:
                handler = signal.SIG_IGN  # who asks while we end gets no answer: by default it would be our death
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Around a wait. Interrupted when one of them comes, or has come."""
        self._waits = True
        try:
            if self.came:
                raise Interrupted
            yield
        finally:
            self._waits = False

    def hurry(self) -> object:
        """The `news` of whoever is waited for as long as it takes, until one of them comes."""
        return 0 if self.came else object()

    def was_asked(self) -> bool:
        """Whether SIGUSR1 came since this was last asked."""
        asked, self._asked = self._asked, False
        return asked

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.came:
            self.came = True
            if self._waits:
                raise Interrupted

    def _question(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
