"""Runs in: the monitor. The handle of one template: the plan of a policy, and the workers cloned under it."""

from __future__ import annotations

import itertools
import logging
import mmap
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from bunri.broker.messages import Word
from bunri.channel import arena as arenas
from bunri.channel.arena import Arena
from bunri.channel.link import Link
from bunri.compartment import Compartment
from bunri.confine import Links, Sight, links_of_others
from bunri.errors import BunriError, Exit, HostError, Promise, UsageError
from bunri.kernel import descriptors as fds
from bunri.kernel import memfd, mount
from bunri.plan import Needs, Plan, Shape, plan, python_paths, told_filter
from bunri.plan.steps import NewRoot
from bunri.policy import Policy, Settled, narrower_or_equal
from bunri.policy.words import Capability
from bunri.process.attendant import Attendant
from bunri.process.charges import charge_of, is_brokered, names_of
from bunri.process.denials import Denials
from bunri.process.groups import MemoryGroup
from bunri.process.identity import Identity, resolve
from bunri.process.launcher import Launcher
from bunri.process.life import Worker
from bunri.process.messages import Ended, Failed, Forked, MakeTemplate, MakeWorker, Message, TemplateReady
from bunri.process.output import Output
from bunri.process.refusals import NO_ROOM
from bunri.process.serving import MonitorSide
from bunri.process.spares import Spares
from bunri.process.worker import gives_descriptors, is_asynchronous, takes_descriptors, travelling
from bunri.process.zygotes import Zygote, died
from bunri.wire import Contract, contract_of
from bunri.wire.registry import HandleKind

if TYPE_CHECKING:
    import asyncio

    from bunri.process.program import Program, Role

MOST_WORKERS = 4096  # of one program: each costs the monitor three descriptors (THREATS 34)

_LATER = 6  # descriptors that one worker takes after it was asked for, at most at the same time
_KEPT = 4  # its channel, its output, its pidfd, its mapping


class Narrowed(msgspec.Struct, frozen=True):
    """What of a running worker the monitor can lower."""

    limits: dict[str, int]
    memory: int
    cpu: float | None
    wall: float | None


Places = tuple[tuple[int, int] | None, ...]


def seen_at(policy: Policy) -> Places:
    """What stands at the granted paths now. A template binds that, and not what takes its place later."""
    if not isinstance(policy.files, tuple):
        return ()
    return tuple(_identity_of(grant.path) for grant in policy.files if grant.path)


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class TemplateHandle(Zygote):
    """One template, from the monitor's side."""

    def __init__(
        self, program: Program, role: Role, number: int, cls: type[Compartment], policy: Policy, places: Places
    ) -> None:
        self.policy = policy
        self.places = places
        self.settled: Settled = policy.settled()
        self.cls = cls
        self.contract: Contract = contract_of(cls)
        self.arena = arenas.SIZE if self.contract.has_blobs else 0  # bytes
        self.fixed: Identity | None = None if program.users is None else resolve(self.settled.user, None)
        needs = replace(needs_of(self.contract), names=names_of(program, self.settled))
        tells = program.tells_denials
        self.told_filter = told_filter(policy, program.host, needs, mapped=role.mapped) if tells else b""
        self.attended = bool(self.told_filter) or is_brokered(self.settled)
        self.plan: Plan = plan(
            policy,
            program.host,
            replace(needs, notify_denials=bool(self.told_filter)),
            python=python_paths(),
            mapped=role.mapped,
            environment=program.environment,
        )
        self.waits = self.plan.has_checkpoint  # each of its workers, until the monitor has looked
        super().__init__(program, f"the template of {cls.__qualname__}")
        self.role = role
        self.number = number
        self.pid = 0
        self.image = 0  # bytes, of the template before its steps
        self.workers: dict[int, Worker] = {}
        self._links: Links | None = None
        self._numbers = itertools.count(1)
        self.used = time.monotonic()
        self.spares = Spares(self)

    def ask(self) -> None:
        """Ask the role for it."""
        places, trees = self._mounts()
        try:
            request = MakeTemplate(
                self.number,
                self.plan.template,
                self.plan.clone.namespaces,
                self.plan.clone.user,
                self.plan.worker,
                self.plan.pins,
                tuple(places),
            )
            self.role.say(request, [self.hand_over(), *trees])
        finally:
            for number in trees:
                os.close(number)
        self.handed_over()

    def _mounts(self) -> tuple[list[str], list[int]]:
        """What a role without root could not reach by path: detached mounts, opened here with the monitor's rights.

        A root without CAP_SYS_ADMIN cannot open any. The role then binds by path, and reaches what everybody can.
        """
        places: list[str] = []
        trees: list[int] = []
        if not self.role.mapped or Capability.SYS_ADMIN not in self.program.host.capabilities:
            return places, trees
        for step in self.plan.template:
            for each in step.mounts if isinstance(step, NewRoot) else ():
                if each.kind != "bind" or (each.optional and not os.path.exists(each.source)):
                    continue
                try:
                    trees.append(mount.clone_tree(each.source))
                except OSError as fault:
                    for number in trees:
                        os.close(number)
                    raise HostError(
                        f"{each.source!r} is granted but cannot be bound",
                        promise=Promise.FILES,
                        layer="mount namespace",
                        errno=fault.errno,
                        remedy="Raise RLIMIT_NOFILE" if fault.errno in NO_ROOM else "Grant a path that exists",
                    ) from None
                places.append(each.at)
        return places, trees

    # workers -------------------------------------------------------------------------------------------------------

    def make_worker(self, loop: asyncio.AbstractEventLoop | None, pause: float = 0.0) -> Worker:
        """Ask for one. It is on its way when this returns, or will be in `pause` seconds."""
        if sum(len(t.workers) for t in self.role.templates.values()) >= MOST_WORKERS:
            raise UsageError(f"{MOST_WORKERS} workers of one module are alive. Close some before starting more")
        worker = Worker(self.program, self, self.contract, loop)
        made = _materials(self.arena)
        try:
            worker.group = self._group()
            identity = self._identity(worker)
        except BaseException:
            made.close()
            if worker.group is not None:
                worker.group.remove()
            raise
        theirs, handed = made.theirs, (made.writer, *made.memfd)
        link = Link(made.ours, takes=gives_descriptors(self.contract), restless=True)
        arena = Arena.of_monitor(made.mapping) if made.mapping is not None else None
        worker.side = MonitorSide(link, arena, worker, loop)
        worker.number = next(self._numbers)
        if self.attended:
            several = self.cls is Launcher or self.settled.processes > 0
            charge = charge_of(self.program, self.settled, identity, several=several, filter=self.told_filter)
            worker.attendant = Attendant(worker, charge)
        if self.told_filter:
            worker.refused = Denials(self.settled, self.program.host.arch, worker.describe)
        worker.output = self._output(worker, made.reader)
        self.workers[worker.number] = worker
        uid, gid = (identity.uid, identity.gid) if identity is not None else (None, None)
        groups = identity.groups if identity is not None else ()
        request = MakeWorker(worker.number, self.cls.__qualname__, uid, gid, groups, self.arena)

        def ask() -> None:
            try:
                if not worker.is_over:
                    self.say(request, [theirs.fileno(), *handed])
            except HostError as fault:
                worker.cannot_start(fault)
            finally:
                theirs.close()
                for number in handed:
                    os.close(number)
            if self.ended:  # before it knew of this one, perhaps
                self.program.supervisor.run_soon(lambda: worker.on_zygote_died(self.cause_of_end(worker)))
            elif worker.is_over:
                self.program.supervisor.run_soon(lambda: worker.on_ended(Exit(cause="it was never forked")))

        if pause:
            self.program.supervisor.run_at(time.monotonic() + pause, ask)
        else:
            ask()
        return worker

    def _group(self) -> MemoryGroup | None:
        if self.program.groups is None or self.plan.memory_group is None:
            return None
        return self.program.groups.make(self.plan.memory_group)

    def _identity(self, worker: Worker) -> Identity | None:
        if self.program.users is None:
            return None
        if self.fixed is not None:
            return self.fixed
        worker.uid = self.program.users.take(self.role.uids or None)
        return Identity(worker.uid, worker.uid)

    def _output(self, worker: Worker, reader: int) -> Output:
        os.set_blocking(reader, False)
        logger = logging.getLogger(f"bunri.worker.{self.cls.__qualname__}")
        output = Output(reader, logger, f"[{worker.number}] ", self.program.supervisor.remove)
        self.program.supervisor.add(reader, output.drain)
        return output

    def sight(self, worker: Worker) -> Sight:
        """What the look at a worker must find, beyond the plan: its ids, its descriptors, its template's namespaces."""
        identity = self.fixed or (Identity(worker.uid, worker.uid) if worker.uid is not None else None)
        return Sight(
            uid=identity.uid if identity else None,
            gid=identity.gid if identity else None,
            groups=identity.groups if identity else None,
            template=self.pid,
            links=self._links_of_others(),
            descriptors=expected_descriptors(self.contract),
            image=self.image + self.arena if self.image else None,
            as_worker=self.waits and self.program.users is not None and not self.role.mapped,
        )

    def _links_of_others(self) -> Links:
        """A template that is ready stays in its namespaces, and so does the monitor: once they were read, they are known."""
        if self._links is not None:
            return self._links
        found = links_of_others(self.pid, self.plan.expected.namespaces or ())
        if all(found.values()):
            self._links = found
        return found

    def forget(self, worker: Worker) -> None:
        """It is reaped: what it had goes back."""
        self.workers.pop(worker.number, None)
        if worker.uid is not None and self.program.users is not None:
            if worker.attendant is not None and worker.attendant.holds_uid:
                worker.attendant.give_back_later(worker.uid)
            else:
                self.program.users.give_back(worker.uid)
        self.role.end_if_idle()

    def narrowed(self, policy: Policy) -> Narrowed:
        """What `policy` lowers, or UsageError."""
        wider = narrower_or_equal(policy, self.policy)
        settled = policy.settled()
        if wider:
            raise UsageError(f"narrow can only take rights away: {'; '.join(wider)}")
        same = ("user", "files", "network", "capabilities", "syscalls", "threads", "env", "selinux", "apparmor")
        other = [name for name in same if getattr(settled, name) != getattr(self.settled, name)]
        if other:
            raise UsageError(
                f"of a running process only limits and budgets can be narrowed, not {', '.join(other)}. Start another worker"
            )
        limits: dict[str, int] = {"NOFILE": settled.open_files}
        if settled.file_size is not None:
            limits["FSIZE"] = settled.file_size
        if settled.memory < self.settled.memory and self.image:
            limits["AS"] = self.image + self.arena + settled.memory
        return Narrowed(limits, settled.memory, settled.cpu, settled.wall)

    # hearing -------------------------------------------------------------------------------------------------------

    def on_message(self, message: Message | Word, descriptors: list[int]) -> bool:
        if isinstance(message, TemplateReady):
            self.pid, self.image = message.pid, message.image
        elif isinstance(message, Forked):
            worker = self.workers.get(message.number)
            if worker is not None and len(descriptors) == 1:
                worker.on_forked(message.pid, descriptors[0])
                return True
        elif isinstance(message, Failed):
            worker = self.workers.get(message.worker)
            if worker is not None:
                worker.on_failed_clone(message)
        elif isinstance(message, Ended):
            worker = self.workers.get(message.number)
            if worker is not None:
                if message.signal not in (None, signal.SIGKILL):
                    self.program.note_death(self.role)
                worker.on_ended(Exit(message.code, message.signal))
        return False

    def on_end(self) -> None:
        self.spares.close()
        if self.failure is None and not self.role.ended:
            self.role.hear()
        for worker in list(self.workers.values()):
            worker.on_zygote_died(self.cause_of_end(worker))
        self.role.forget_template(self)

    def cause_of_end(self, worker: Worker) -> BunriError | None:
        """Why it has ended, for one of its workers."""
        return self.failure or self.role.failure or (died(self.what) if not worker.side.open else None)


class _Materials(msgspec.Struct, frozen=True):
    """What one worker needs in the monitor before it is asked for."""

    ours: socket.socket
    theirs: socket.socket
    reader: int
    writer: int
    memfd: tuple[int, ...]  # that of its arena, where it has one
    mapping: mmap.mmap | None

    def close(self) -> None:
        """All of it."""
        if self.mapping is not None:
            self.mapping.close()
        for sock in (self.ours, self.theirs):
            sock.close()
        for number in (self.reader, self.writer, *self.memfd):
            os.close(number)


def _materials(arena: int) -> _Materials:
    """HostError where this process has no room for them: at once, and before anything is asked for."""
    sockets: tuple[socket.socket, ...] = ()
    numbers: list[int] = []
    try:
        ours, theirs = sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        numbers += (reader, writer)
        if arena:
            numbers.append(memfd.arena("bunri arena", arena))
        fds.refuse_without_room(_LATER, reader)  # a pidfd comes, and what the look at it opens
        both = mmap.PROT_READ | mmap.PROT_WRITE
        mapping = mmap.mmap(numbers[-1], arena, mmap.MAP_SHARED, both) if arena else None
    except BaseException as fault:
        for sock in sockets:
            sock.close()
        for number in numbers:
            os.close(number)
        if not isinstance(fault, OSError):
            raise
        raise HostError(
            f"the monitor has no room for another worker: {fault.strerror or fault}",
            layer="descriptors" if fault.errno in NO_ROOM else "memory",
            errno=fault.errno,
            remedy=f"Close workers, or raise RLIMIT_NOFILE: each worker has {_KEPT} descriptors in the monitor",
        ) from fault
    return _Materials(ours, theirs, reader, writer, tuple(numbers[2:]), mapping)


def needs_of(contract: Contract) -> Needs:
    """What the class's signature needs of its filter."""
    down, _ = travelling(contract)
    executes = contract.cls is Launcher
    return Needs(
        receives_descriptors=takes_descriptors(contract),
        sends_descriptors=gives_descriptors(contract),
        stream_sockets=HandleKind.SOCKET in down,
        datagram_sockets=HandleKind.DATAGRAM in down,
        files=HandleKind.FILE in down,
        asynchronous=is_asynchronous(contract),
        shape=Shape.PROGRAM if executes else Shape.WORKER,
        writable_files=executes,  # its streams may be files
    )


def expected_descriptors(contract: Contract) -> dict[int, str]:
    """The exact table of a worker that waits for START: number -> kind."""
    table = {0: "pipe", 1: "pipe", 2: "pipe", 3: "socket"}
    if is_asynchronous(contract):
        table |= {4: "eventpoll", 5: "socket", 6: "socket"}
    return table
