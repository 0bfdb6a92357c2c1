"""Runs in: a worker, from its first instruction; with the template's rights until the plan's steps are done, then
with the policy's only.

Nothing here is reached with data of a peer before `carry_out` has returned: the order is descriptors, loop, steps,
READY, and the monitor sends START only when it has looked from outside.
"""

from __future__ import annotations

import builtins
import ctypes
import functools
import mmap
import os
import select
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from bunri.channel.arena import Arena
from bunri.channel.link import Link
from bunri.channel.serving import WorkerSide
from bunri.channel.target import stub_class
from bunri.compartment import Compartment
from bunri.confine import Context, StepFailed, Surround, carry_out, prepare
from bunri.errors import UsageError
from bunri.kernel import descriptors as fds
from bunri.kernel import prepared
from bunri.plan.steps import AnyStep, StrictMode
from bunri.process.messages import Failed, MakeWorker
from bunri.wire import Contract
from bunri.wire.frames import AT_CHECKPOINT, FrameKind, pack
from bunri.wire.registry import WITH_DESCRIPTOR, HandleKind

if TYPE_CHECKING:
    import asyncio

CHANNEL = 3  # the descriptor, in every worker; in the zygotes something harmless keeps the number (`keep_channel_free`)
LISTENER = 2  # in READY's place for a method: there is a listener, and it is descriptor number `call`
_FIRST_FREE = 4
_LOOP = 3  # descriptors of an event loop
KEPT_FROM = 64  # below this number nothing of the template's stays when the loop and the steps begin
_NOT_OURS = 125  # exit code of a worker that could not be confined
_SHARED_FIXED = mmap.MAP_SHARED | 0x10  # MAP_FIXED
_READY = pack(FrameKind.READY)


class Unborn:
    """All of a worker that can be made before it is cloned: by the template, once for all of them.

    After the clone every page that is touched is copied, so the child's own work is as short as it can be. What the
    template holds is the same for all workers, but for the numbers that `fill_in` puts in before each clone.
    """

    def __init__(
        self,
        compartment: type[Compartment],
        contract: Contract,
        steps: Sequence[AnyStep],
        image: int,
        arena: int,
        proc: int | None,
    ) -> None:
        self.steps = steps
        self.proc = proc  # for the label; closed with the rest
        self.image = image + arena
        self.make_loop = loop_of(contract)
        first_free = _FIRST_FREE + (_LOOP if self.make_loop is not None else 0)
        self.keep = tuple(range(first_free))
        self.ready = prepare(steps, Surround(self.image, CHANNEL, first_free))
        self._maps, shared = _arena_of(arena)
        self._channel = prepared.call("dup3", -1, CHANNEL, os.O_CLOEXEC)
        self._outputs = [prepared.call("dup3", -1, number) for number in (1, 2)]
        self.places = [*self._maps, self._channel, *self._outputs]
        if self.ready is None:
            last = fds.LAST if proc is None else KEPT_FROM - 1
            self.places.append(prepared.call("close_range", _FIRST_FREE, last))
        elif self.make_loop is not None:
            self.places.append(prepared.call("close_range", _FIRST_FREE, KEPT_FROM - 1))
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=CHANNEL)
        link = Link(sock, takes=takes_descriptors(contract))
        bare = any(isinstance(step, StrictMode) for step in steps)
        self.side = WorkerSide(link, shared, contract, compartment, bare=bare)
        for service in contract.service_contracts:
            stub_class(service.cls, service)  # a class is dear to make
        self.reseed = _reseeders()
        self.request: MakeWorker | None = None
        self.ahead = prepared.Copies()

    def fill_in(self, request: MakeWorker, descriptors: Sequence[int], ahead: prepared.Copies) -> None:
        """For the next one: its ids, its channel, its output and its arena, if it has one, and what it copies ahead."""
        channel, output, *arena = descriptors
        self.request, self.ahead = request, ahead
        for call in self._maps:
            call[0][5] = arena[0]
        self._channel[0][1] = channel
        for call in self._outputs:
            call[0][1] = output
        if self.ready is not None:
            self.ready.fill_in(request.uid, request.gid)


def _arena_of(size: int) -> tuple[list[prepared.Call], Arena | None]:
    """How a worker maps its arena, and the arena, if it has one. The address range is the template's; over it each worker
    maps its own, and no view has to be made."""
    if not size:
        return [], None
    room = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    mapped = prepared.call("mmap", address, size, mmap.PROT_READ | mmap.PROT_WRITE, _SHARED_FIXED, -1)
    return [mapped], Arena.of_worker(room)


def be_worker(unborn: Unborn, go: tuple[int, int] | None) -> NoReturn:
    """Become the worker. Never returns; no exception leaves it, for above it is the template's code."""
    try:
        _become(unborn, go)
    except BaseException as fault:
        sys.excepthook(type(fault), fault, fault.__traceback__)
    finally:
        os._exit(1)


def _become(unborn: Unborn, go: tuple[int, int] | None) -> NoReturn:
    if go is not None:
        os.close(go[1])
        if os.read(go[0], 1) != b"g":  # the template died, and nobody has mapped us
            os._exit(_NOT_OURS)
    unborn.ahead.make()
    if prepared.refused(unborn.places) >= 0:
        raise OSError(ctypes.get_errno(), "a worker could not take its places")
    loop = unborn.make_loop() if unborn.make_loop is not None else None
    for reseed in unborn.reseed:  # while it may ask for random bytes
        reseed()
    if unborn.ready is None:
        _carry_out(unborn)
    elif (index := prepared.refused(unborn.ready.calls)) >= 0:
        _fail(unborn.ready.fault(index))
    os.write(CHANNEL, _READY)
    unborn.side.run(loop)


def _carry_out(unborn: Unborn) -> None:
    """The steps of a plan that cannot be made ready: one after the other."""
    request = unborn.request
    assert request is not None
    context = Context(
        uid=request.uid,
        gid=request.gid,
        groups=request.groups,
        keep=unborn.keep,
        image=unborn.image,
        checkpoint=_checkpoint,
        on_listener=_tell_listener,
        parent_alive=_is_parent_alive,
        proc=unborn.proc,
    )
    try:
        carry_out(unborn.steps, context)
    except StepFailed as fault:
        _fail(fault)


def _fail(fault: StepFailed) -> NoReturn:
    failed = Failed(str(fault), step=fault.step, errno=fault.errno)
    os.write(CHANNEL, pack(FrameKind.FAILED, msgspec.msgpack.encode(failed)))
    os._exit(_NOT_OURS)


def keep_channel_free() -> None:
    """In the base zygote: a socket without another end keeps the number, in all zygotes."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        number = one.detach()
        if number != CHANNEL:
            os.dup2(number, CHANNEL, inheritable=False)
            os.close(number)


def _is_parent_alive() -> bool:
    """Whether somebody still holds the other end of the channel. The template's death takes the monitor's end away,
    and a pid namespace of our own hides the parent from getppid(2)."""
    poll = select.poll()
    poll.register(CHANNEL, 0)  # POLLHUP is always told
    return not poll.poll(0)


def _checkpoint() -> None:
    """Wait until the monitor has looked at a process that is still dumpable."""
    os.write(CHANNEL, pack(FrameKind.READY, method=AT_CHECKPOINT))
    if not os.read(CHANNEL, 64):
        os._exit(_NOT_OURS)


def _tell_listener(number: int) -> None:
    """Wait until the monitor has taken the filter's listener: the descriptor is closed when this returns, and the
    monitor looks whether it is (THREATS 5)."""
    os.write(CHANNEL, pack(FrameKind.READY, method=LISTENER, call=number))
    if not os.read(CHANNEL, 64):
        os._exit(_NOT_OURS)


def _reseeders() -> tuple[Callable[[], object], ...]:
    """All workers of a zygote start with one memory. What must be unpredictable is made anew in each (THREATS 8).
    What was not imported is nobody's yet: it seeds itself."""
    found = (sys.modules.get(name) for name in ("random", "numpy.random"))
    return tuple(module.seed for module in found if module is not None)


def refuse_debugging() -> None:
    """For the template: it runs no code of the user, and all that comes from it is confined."""

    def refuse(*args: object, **kwargs: object) -> Any:
        raise UsageError(
            "a confined worker has no terminal to debug or to ask on. What it prints arrives on the logger bunri.worker.<Class>"
        )

    sys.breakpointhook = refuse
    builtins.input = refuse


def loop_of(contract: Contract) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the worker's loop, if it has one. It is loaded for those only: every other worker would carry it.

    By name: a policy that the module has set (uvloop.install()) would make one with other descriptors."""
    if not is_asynchronous(contract):
        return None
    import asyncio

    return asyncio.SelectorEventLoop


def is_asynchronous(contract: Contract) -> bool:
    """Whether the worker has a loop."""
    return any(method.kind.is_async for method in contract.methods)


@functools.cache
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
