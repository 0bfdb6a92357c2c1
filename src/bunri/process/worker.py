"""Runs in: a worker, from its first instruction; with the template's rights until the plan's steps are done, then
with the policy's only.

Nothing here is reached with data of a peer before `carry_out` has returned: the order is descriptors, loop, steps,
READY, and the monitor sends START only when it has looked from outside.
"""

from __future__ import annotations

import asyncio
import builtins
import mmap
import os
import random
import select
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from bunri.channel.arena import Arena
from bunri.channel.link import Link
from bunri.channel.serving import WorkerSide
from bunri.compartment import Compartment
from bunri.confine import Context, StepFailed, carry_out
from bunri.errors import UsageError
from bunri.kernel import descriptors as fds
from bunri.plan.steps import AnyStep
from bunri.process import here
from bunri.process.messages import Failed, MakeWorker
from bunri.wire import Contract
from bunri.wire.frames import FrameKind, pack
from bunri.wire.registry import WITH_DESCRIPTOR, HandleKind

CHANNEL = 3  # the descriptor, in every worker
_FIRST_FREE = 4
_NOT_OURS = 125  # exit code of a worker that could not be confined


@dataclass(frozen=True)
class Birth:
    """What a template knows of a worker that it is about to clone."""

    request: MakeWorker
    descriptors: list[int]  # channel, output, and the arena where there is one
    compartment: type[Compartment]
    contract: Contract
    steps: Sequence[AnyStep]
    image: int
    monitor: int  # the monitor's pidfd


def be_worker(birth: Birth, go: tuple[int, int] | None) -> NoReturn:
    """Become the worker. Never returns; no exception leaves it, for above it is the template's code."""
    try:
        _become(birth, go)
    except BaseException as fault:
        sys.excepthook(type(fault), fault, fault.__traceback__)
    finally:
        os._exit(1)


def _become(birth: Birth, go: tuple[int, int] | None) -> NoReturn:
    here.become_worker()
    if go is not None:
        os.close(go[1])
        if os.read(go[0], 1) != b"g":  # the template died, and nobody has mapped us
            os._exit(_NOT_OURS)
    arena = _take_places(birth)
    loop = asyncio.new_event_loop() if is_asynchronous(birth.contract) else None
    request = birth.request
    context = Context(
        uid=request.uid,
        gid=request.gid,
        groups=request.groups,
        keep=tuple(range(_FIRST_FREE + (3 if loop is not None else 0))),
        image=birth.image + request.arena,
        checkpoint=_checkpoint,
        parent_alive=_is_parent_alive,
    )
    try:
        carry_out(birth.steps, context)
    except StepFailed as fault:
        failed = Failed(str(fault), step=fault.step, errno=fault.errno)
        os.write(CHANNEL, pack(FrameKind.FAILED, msgspec.msgpack.encode(failed)))
        os._exit(_NOT_OURS)
    _differ_from_siblings()
    _refuse_debugging()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=CHANNEL)
    link = Link(sock, takes=takes_descriptors(birth.contract))
    os.write(CHANNEL, pack(FrameKind.READY))
    WorkerSide(link, arena, birth.contract, birth.compartment).run(loop)


def _take_places(birth: Birth) -> Arena | None:
    """Channel and output to their fixed numbers, the arena mapped, everything else closed."""
    channel, output, *rest = birth.descriptors
    arena = None
    if rest:
        mapping = mmap.mmap(rest[0], birth.request.arena, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        arena = Arena.of_worker(mapping)
    os.dup2(output, 1, inheritable=True)
    os.dup2(output, 2, inheritable=True)
    if channel != CHANNEL:
        os.dup2(channel, CHANNEL, inheritable=False)
    fds.close_range(_FIRST_FREE)
    return arena


def _is_parent_alive() -> bool:
    """Whether somebody still holds the other end of the channel. The template's death takes the monitor's end away,
    and a pid namespace of our own hides the parent from getppid(2)."""
    poll = select.poll()
    poll.register(CHANNEL, 0)  # POLLHUP is always told
    return not poll.poll(0)


def _checkpoint() -> None:
    """Wait until the monitor has looked at a process that is still dumpable."""
    os.write(CHANNEL, pack(FrameKind.READY, method=1))
    if not os.read(CHANNEL, 64):
        os._exit(_NOT_OURS)


def _differ_from_siblings() -> None:
    """All workers of a zygote start with one memory. What must be unpredictable is made anew (THREATS 8)."""
    random.seed()
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _refuse_debugging() -> None:
    def refuse(*args: object, **kwargs: object) -> Any:
        raise UsageError(
            "a confined worker has no terminal to debug or to ask on. What it prints arrives on the logger bunri.worker.<Class>"
        )

    sys.breakpointhook = refuse
    builtins.input = refuse


def is_asynchronous(contract: Contract) -> bool:
    """Whether the worker has a loop."""
    return any(method.kind.is_async for method in contract.methods)


def travelling(contract: Contract) -> tuple[frozenset[HandleKind], frozenset[HandleKind]]:
    """The kinds of handle that can travel down to the worker, and up from it: by its own methods and by its services'."""
    down: set[HandleKind] = set()
    up: set[HandleKind] = set()
    for method in (*contract.methods, contract.init):
        down |= method.handle_kinds_down
        up |= method.handle_kinds_up
    for service in contract.service_contracts:
        for method in service.methods:
            down |= method.handle_kinds_up
            up |= method.handle_kinds_down
    return frozenset(down), frozenset(up)


def takes_descriptors(contract: Contract) -> bool:
    """Whether messages to the worker may carry descriptors."""
    return bool(travelling(contract)[0] & WITH_DESCRIPTOR)


def gives_descriptors(contract: Contract) -> bool:
    """Whether messages from the worker may carry descriptors."""
    return bool(travelling(contract)[1] & WITH_DESCRIPTOR)
