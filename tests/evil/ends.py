"""Runs in: the test process. Both ends of a conversation with nobody behind them: what they are fed is made by hand.

The ends are the real ones. Only what lies outside of them is replaced: the process (whose death is noted) and the socket's
other side (which is drained, and says nothing).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, NoReturn, cast

import bunri
from bunri.channel.link import Link, close_all
from bunri.channel.serving import WorkerSide
from bunri.errors import Exit, ProtocolError, WorkerDied
from bunri.plan.report import Report
from bunri.process.behind import Behind
from bunri.process.serving import MonitorSide
from bunri.wire import contract_of
from bunri.wire.frames import FrameKind, pack


@dataclass
class Leaf:
    a: int
    b: str


@dataclass
class Branch:
    left: Leaf | int | None
    right: list[Leaf]


@dataclass
class NotFound(Exception):
    name: str


class Bell(bunri.Service):
    def ring(self, by: int) -> int: ...
    @bunri.limit(calls=3, size=1000)
    def guess(self, word: str) -> bool: ...
    @bunri.raises(NotFound)
    def many(self, items: dict[str, list[Branch]]) -> set[int]: ...
    def home(self, other: Bell | None) -> Bell: ...
    def take(self, file: bunri.File) -> bytes: ...
    def rows(self, n: int) -> Iterator[int]: ...
    def large(self, data: bytes) -> bytes: ...


class BellHere(Bell):
    def ring(self, by: int) -> int:
        return by

    def guess(self, word: str) -> bool:
        return word == "x"

    def many(self, items: dict[str, list[Branch]]) -> set[int]:
        if "raise" in items:
            raise NotFound("raise")
        return {len(branches) for branches in items.values()}

    def home(self, other: Bell | None) -> Bell:
        return self if other is None else other

    def take(self, file: bunri.File) -> bytes:
        with file:
            return str(os.fstat(file.fileno()).st_size).encode()

    def rows(self, n: int) -> Iterator[int]:
        yield from range(min(n, 12))

    def large(self, data: bytes) -> bytes:
        return data[:10]


class Everything(bunri.Compartment):
    """A method for every way in which a value may come up or down."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell

    def number(self, n: int) -> int:
        return n

    def text(self, s: str, t: Annotated[str, bunri.RawText]) -> str:
        return s

    def tree(self, b: Branch) -> Branch:
        return b

    def keyed(self, d: dict[int, set[str]]) -> dict[str, tuple[int, ...]]:
        return {str(key): (key,) for key in d}

    def large(self, data: bytes) -> bytes:
        return data

    @bunri.raises(NotFound, ValueError, OSError)
    def fails(self, how: int) -> None:
        raise (NotFound("x"), ValueError("x"), OSError(2, "x"), RuntimeError("x"))[how % 4]

    def file(self, file: bunri.File) -> bunri.File:
        return file

    def rows(self, n: int) -> Iterator[str]:
        yield from map(str, range(min(n, 12)))

    def ask(self, n: int) -> int:
        return self._bell.ring(n)


EVERYTHING = contract_of(Everything)
BELL = contract_of(Bell)


class Ended(Exception):
    """The end that was fed is over, as it should be: `cause` says why."""


class Nobody(Behind):
    """A worker without a process. Its death is noted, and told at once to all who wait."""

    def __init__(self) -> None:
        supervisor = SimpleNamespace(is_current=False, watch=lambda side: None, run_at=lambda when, action: None)
        super().__init__(cast(Any, SimpleNamespace(supervisor=supervisor)), EVERYTHING, bunri.Policy(), None)

    @property
    def cause(self) -> str | None:
        return self._cause

    def kill(self, cause: str, error: BaseException | None = None) -> None:
        if self._cause is None:
            self._cause = cause
            self.side.end_with(WorkerDied(Exit(cause=cause), who="nobody"))

    def wait_over(self) -> None: ...
    def on_ready(self, *, held: bool = False) -> None: ...
    def on_failed(self, body: bytes) -> None: ...
    def on_ended(self, exit: Exit) -> None: ...
    def end_it(self) -> None: ...
    def check_budget(self, out: object, now: float) -> None: ...

    def cpu_clock(self) -> int:
        return 0

    def report(self) -> Report:
        raise AssertionError("nobody asks")

    def narrow(self, policy: bunri.Policy) -> Report:
        raise AssertionError("nobody asks")


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.shutdown(socket.SHUT_WR)  # whoever would wait for more sees the end
    theirs.setblocking(False)
    return ours, theirs


def _drain(theirs: socket.socket) -> None:
    try:
        while theirs.recv(1 << 17):
            pass
    except BlockingIOError:
        return


class Monitor:
    """The monitor's end, with calls of every kind out and a service handed down."""

    def __init__(self) -> None:
        ours, self._theirs = _pair()
        self.worker = Nobody()
        self.side = self.worker.side = MonitorSide(Link(ours, takes=True), None, self.worker, None)
        self.side.watched = True
        self.side.let_through()
        self.outs = [self.side.begin(0, EVERYTHING.init, (BellHere(),))]
        for name, given in _GIVEN:
            method = next(m for m in EVERYTHING.methods if m.name == name)
            if name == "file":
                with bunri.File(os.open("/dev/null", os.O_RDONLY)) as lent:
                    self.outs.append(self.side.begin(0, method, (lent,)))
            else:
                self.outs.append(self.side.begin(0, method, given))
        self.side.flush()
        _drain(self._theirs)

    def feed(self, packet: bytes, descriptors: list[int]) -> None:
        """One packet from the worker. Ended once the worker is."""
        try:
            self.side.take(packet, descriptors)
        except ProtocolError as fault:
            self.side.broken(fault)
        _drain(self._theirs)
        if self.worker.cause is not None:
            raise Ended(self.worker.cause)

    def close(self) -> None:
        for out in self.outs:
            if isinstance(out.value, bunri.File):
                out.value.close()
        self.side.end_with(WorkerDied(Exit(cause="closed"), who="nobody"))
        self.side.services.close()
        self.side.link.close()
        self._theirs.close()


class _Left(BaseException):
    pass


class _Side(WorkerSide):
    def leave(self, code: int) -> NoReturn:
        raise _Left


class Worker:
    """The worker's end, started, with a service in its hands."""

    def __init__(self) -> None:
        ours, self._theirs = _pair()
        self.side = _Side(Link(ours, takes=True), None, EVERYTHING, Everything)
        self.feed(_START, [])

    def feed(self, packet: bytes, descriptors: list[int]) -> None:
        """One packet from a monitor. Ended once the worker would leave."""
        side = self.side
        try:
            if not packet:
                close_all(descriptors)  # as the end of the process does
                raise _Left
            served = 0 if descriptors or not side.is_quiet else side._serve_plain(packet)
            if served < len(packet):
                side._feed_first(packet[served:], descriptors)
            side.work()
        except (ProtocolError, _Left, BrokenPipeError) as fault:
            raise Ended(str(fault)) from None
        finally:
            _drain(self._theirs)

    def close(self) -> None:
        self.side.end_all(Ended())
        self.side.link.close()
        self._theirs.close()


class _Numbers:
    """A sink of one object and one descriptor."""

    descriptors: ClassVar[list[int]] = []

    def add_service(self, service: object, interface: type) -> int:
        return 1

    def add_descriptor(self, handle: object, kind: object) -> int:
        return 0

    def close(self) -> None: ...
    def move(self) -> None: ...


Right = tuple[int, int, int, int, bytes]
"""kind, object, method, call, body of a message that fits."""


def to_worker() -> list[Right]:
    """Messages that a monitor may send."""
    made: list[Right] = []
    for call, (name, given) in enumerate(_GIVEN * 3, 2):
        method = next(m for m in EVERYTHING.methods if m.name == name)
        if name not in ("file", "ask"):
            made.append((FrameKind.CALL, 0, method.number, call, method.encode_arguments(given, None)[0]))
    return [*made, (FrameKind.CREDIT, 0, 1, 9, b""), (FrameKind.CLOSE, 0, 0, 9, b""), (FrameKind.CANCEL, 0, 0, 3, b"")]


def to_monitor() -> list[Right]:
    """Messages that a worker may send, with the calls of `Monitor` out."""
    made: list[Right] = []
    results: dict[str, Any] = {
        "number": 5, "text": "t", "tree": Branch(Leaf(1, "x"), [Leaf(2, "y")]), "keyed": {"a": (1, 2)}, "large": b"d", "ask": 3,
    }  # fmt: skip
    for call, (name, _) in enumerate(_GIVEN, 2):
        method = next(m for m in EVERYTHING.methods if m.name == name)
        if name in results:
            made.append((FrameKind.REPLY, 0, 0, call, method.encode_result(results[name], None)[0]))
        elif name == "rows":
            made += [(FrameKind.ITEM, 0, 0, call, method.encode_item(str(i), None)[0]) for i in range(9)]
        elif name == "fails":
            made.append((FrameKind.RAISED, 0, 0, call, method.encode_exception(OSError(2, "x")) or b""))
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("ring", (1,)), ("guess", ("x",)), ("many", ({"a": [Branch(None, [])]},)), ("many", ({"raise": []},)), ("home", (None,)),
        ("home", (BellHere(),)), ("rows", (3,)), ("rows", (12,)), ("large", (b"x" * 100,)), ("take", (None,)),
    ]  # fmt: skip
    for number, (name, given) in enumerate(calls * 2, 1):
        method = next(m for m in BELL.methods if m.name == name)
        body = b"\x91\x00" if name == "take" else method.encode_arguments(given, cast(Any, _Numbers()))[0]
        made.append((FrameKind.CALL, 1, method.number, number, body))
    return [
        *made,
        (FrameKind.CREDIT, 0, 1, 7, b""),
        (FrameKind.CANCEL, 0, 0, 1, b""),
        (FrameKind.REPLY, 0, 0, 1, b"\xc0"),
    ]


_GIVEN: list[tuple[str, tuple[Any, ...]]] = [
    ("number", (1,)), ("text", ("s", "t")), ("tree", (Branch(1, []),)), ("keyed", ({1: {"x"}},)), ("large", (b"d",)), ("fails", (1,)),
    ("file", ()), ("rows", (2,)), ("ask", (3,)),
]  # fmt: skip
_START = pack(FrameKind.START, EVERYTHING.init.encode_arguments((BellHere(),), cast(Any, _Numbers()))[0], call=1)
