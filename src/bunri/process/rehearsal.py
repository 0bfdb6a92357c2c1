"""Runs in: the base zygote, before any role is forked from it. A worker's talk, held with nobody.

What CPython has run a few times it has specialised (PEP 659). Where that has happened before the fork it need not happen
in every worker; and a worker's first call, which is all that many are made for, writes to a tenth fewer of the pages
that it shares with its zygote, each of which the kernel copies for it.

The monitor's half of the talk is written down before it begins: it is the same each time. No code of a user runs.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn

import msgspec

from bunri.calls import call
from bunri.channel.handles import OutgoingHandles
from bunri.channel.link import Link
from bunri.channel.serving import WorkerSide
from bunri.compartment import Compartment
from bunri.handles import Secret
from bunri.service import Service
from bunri.wire import Contract, contract_of
from bunri.wire.frames import FrameKind, pack

_TIMES = 9  # CPython 3.11 begins to specialise a function when it has been called eight times


class _Record(msgspec.Struct):
    name: str
    number: int


class _Home(Service):
    def ask(self, name: str, secret: Secret) -> bool:
        return True


class _Worker(Compartment):
    def __init__(self, peer: socket.socket, home: _Home, record: _Record, names: frozenset[str]) -> None:
        self._peer, self._home = peer, home

    def talk(self) -> _Record | None:
        call(self._home.ask, "name", Secret(b"word")).result()
        self._home.ask("name", Secret(b"word"))
        self._peer.close()
        return None

    def plain(self, number: int) -> int:
        return number


class _Side(WorkerSide):
    """When the monitor has said all, the talk is over, and not the process."""

    def leave(self, code: int) -> NoReturn:
        raise EOFError


def rehearse(has_time: Callable[[], bool]) -> None:
    """Hold it until all of it is specialised, or somebody waits for this process."""
    contract = contract_of(_Worker)
    peer, other = socket.socketpair()
    with peer, other:
        handles = OutgoingHandles(lambda service, interface: 1)
        start, *others = _monitors_half(contract, peer, handles)
        for _ in range(_TIMES):
            if not has_time():
                break
            monitor, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with monitor, worker:
                socket.send_fds(monitor, [start], handles.descriptors)
                for packet in others:
                    monitor.send(packet)
                monitor.shutdown(socket.SHUT_WR)
                side = _Side(Link(worker, takes=True), None, contract, _Worker)
                with suppress(EOFError):
                    side.run(None)
        handles.close()


def _monitors_half(contract: Contract, peer: socket.socket, handles: OutgoingHandles) -> Iterator[bytes]:
    """START, a call whose work asks a service twice, the answers to that, and calls of the plainest kind."""
    plain, talk = contract.methods  # by name
    (home,) = contract.service_contracts
    body, _ = contract.init.encode_arguments((peer, _Home(), _Record("name", 1), frozenset(("one",))), handles)
    yield pack(FrameKind.START, body, call=1, descriptors=len(handles.descriptors))
    yield pack(FrameKind.CALL, talk.encode_arguments((), None)[0], method=talk.number, call=2)
    for asked in (1, 2):
        yield pack(FrameKind.REPLY, home.methods[0].encode_result(True, None)[0], call=asked)
    for call_ in (3, 4):
        yield pack(FrameKind.CALL, plain.encode_arguments((1,), None)[0], method=plain.number, call=call_)
