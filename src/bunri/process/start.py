"""Runs in: the monitor. `start`, `start_under`, `pool`, `prepare`: from a class and a policy to a stub."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bunri.calls import Call
from bunri.channel.conversation import Blocks, Outgoing
from bunri.channel.target import make_stub
from bunri.compartment import Compartment
from bunri.errors import BunriError, UsageError
from bunri.policy import Policy, narrower_or_equal
from bunri.process import loops, program, unconfined
from bunri.process.behind import Behind
from bunri.process.blocking import context_of_its_own, running_loop
from bunri.process.charges import look_up_names
from bunri.process.refusals import no_room_means
from bunri.process.templates import MOST_WORKERS
from bunri.process.users import AllTakenError
from bunri.wire import contract_of
from bunri.wire.frames import FrameKind

if TYPE_CHECKING:
    import asyncio

C = TypeVar("C", bound=Compartment)


def start(cls: type[C], policy: Policy | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> C:
    """A stub whose worker is on its way."""
    chosen = _checked(cls, policy)
    contract = contract_of(cls)
    bound = contract.init.bind(args, kwargs)
    worker = start_worker(cls, chosen, bound, running_loop(), unconfined.factory, spare=True)
    stub = make_stub(cls, contract, worker)
    weakref.finalize(stub, worker.kill, "its stub was dropped").atexit = False
    return stub


def start_worker(
    cls: type[Compartment],
    policy: Policy,
    bound: tuple[Any, ...],
    loop: asyncio.AbstractEventLoop | None,
    factory: unconfined.Factory | None,
    *,
    spare: bool = False,
) -> Behind:
    """Ask for a worker, or take a spare one, and queue its START. `factory`: in a user's test, what makes it instead."""
    worker = factory.make(cls, policy, loop) if factory is not None else _ask_for_worker(cls, policy, loop, spare=spare)
    try:
        begin_init(worker, bound)
    except BaseException:
        worker.kill("its arguments could not be sent")
        raise
    if loop is not None:
        loops.tie(loop, worker)
        context_of_its_own().run(loop.add_reader, worker.side.link.number, worker.side.on_loop_readable)
    return worker


def _ask_for_worker(
    cls: type[Compartment], policy: Policy, loop: asyncio.AbstractEventLoop | None, *, spare: bool
) -> Behind:
    here = program.current()
    pause = here.held_back(cls.__module__)
    look_up_names(here, policy.settled())  # before any lock is held: it may take a while
    while True:
        try:
            with no_room_means(f"the monitor has no room for the zygotes of {cls.__qualname__}"):
                template = here.role_for(cls, policy).template_for(cls, policy)
                if template.failure is not None:
                    raise template.failure
                return (template.spares.take(loop) if spare else None) or template.make_worker(loop, pause)
        except AllTakenError:
            continue  # another start, or a spare, was faster: the next role knows more uids


def begin_init(worker: Behind, bound: tuple[Any, ...]) -> None:
    """Queue START with the arguments of `__init__`. It goes out when the worker has been looked at."""
    side = worker.side
    call: Call[None] = Call()
    worker.init = side.begin(0, worker.contract.init, bound, blocks=Blocks.NO, call=call, kind=FrameKind.START)
    if side.loop is None:
        init: Outgoing = worker.init
        call.attach(drive=lambda call, timeout: side.drive(init))
    side.watch()
    side.flush()  # a spare is there already, and nothing else would send it


def _checked(cls: type[Compartment], policy: Policy | None) -> Policy:
    """The policy to start under: the class's, or one that fills its holes."""
    if cls is Compartment:
        raise UsageError("Compartment itself has no methods. Subclass it")
    if policy is None:
        if cls.policy.holes:
            holes = ", ".join(cls.policy.holes)
            raise UsageError(
                f"{cls.__qualname__}.policy leaves {holes} open (AT_START): "
                f"write {cls.__qualname__}.start_under({cls.__qualname__}.policy.with_({cls.policy.holes[0]}=...), ...)"
            )
        return cls.policy
    if not isinstance(cast(object, policy), Policy):
        raise UsageError(
            f"start_under takes a Policy first, got {policy!r}. Write {cls.__qualname__}.policy.with_(...)"
        )
    if policy.holes:
        raise UsageError(
            f"the policy given to start_under still leaves {', '.join(policy.holes)} open (AT_START). Fill every hole"
        )
    wider = narrower_or_equal(policy, cls.policy)
    if wider:
        raise UsageError(
            f"start_under takes a policy that fills the holes of {cls.__qualname__}.policy and otherwise equals it or is narrower; "
            f"this one is wider: {'; '.join(wider)}"
        )
    return policy


def start_pool(cls: type[C], size: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> C:
    """A stub whose calls each take a ready worker."""
    from bunri.process.pool import Pool

    if isinstance(size, bool) or not isinstance(cast(object, size), int) or not 1 <= size <= MOST_WORKERS:
        raise UsageError(
            f"{cls.__qualname__}.pool({size!r}): a pool has 1 to {MOST_WORKERS} workers. Write a whole number first"
        )
    chosen = _checked(cls, None)
    contract = contract_of(cls)
    bound = contract.init.bind(args, kwargs)
    pool = Pool(cls, size, chosen, bound, running_loop())
    stub = make_stub(cls, contract, pool)
    weakref.finalize(stub, pool.drop).atexit = False
    return stub


def ask_ahead(cls: type[Compartment]) -> None:
    """Have the template of its policy made, and do not wait for it."""
    with contextlib.suppress(BunriError, OSError):  # the first start will meet it again, and say it
        program.current().role_for(cls).template_for(cls, cls.policy)


def prepare(*compartments: type[Compartment]) -> None:
    """As `bunri.prepare` says."""
    if unconfined.factory is not None:
        for cls in compartments:
            unconfined.factory.prepare(cls)
        return
    here = program.current()
    roles: list[program.Role] = []
    for cls in compartments:
        if not (isinstance(cast(object, cls), type) and issubclass(cast(type, cls), Compartment)) or cls is Compartment:
            raise UsageError(f"prepare takes classes of compartments, as bunri.prepare(Thumbnailer); {cls!r} is none")
    with no_room_means("the monitor has no room for zygotes"):
        for cls in compartments:
            role = here.role_for(cls)
            roles.append(role)
            if not cls.policy.holes:
                look_up_names(here, cls.policy.settled())
                role.template_for(cls, cls.policy)
    for role in roles:
        while not role.ready.wait(0.25):  # in pieces, for the sake of Ctrl-C
            continue
        if role.failure is not None:
            raise role.failure
