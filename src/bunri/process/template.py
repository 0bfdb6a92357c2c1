"""Runs in: a template, forked from a role zygote; single-threaded, with the role's rights less what the plan's
template steps took.

A template has done once everything that a fork inherits: the root, the empty network namespace, the bounding set, the
limits, the path rules, the filter. Then it only clones workers and reaps them. One template serves one plan.
It runs no code of the user any more, but it has (the imports): the monitor looks at each of its workers from outside.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Mapping
from typing import NoReturn

from bunri.compartment import Compartment
from bunri.confine import Context, StepFailed, carry_out
from bunri.kernel import clone, heap, prctl, prepared
from bunri.kernel.descriptors import duplicate_above
from bunri.kernel.pinned import Pinned, open_ring
from bunri.plan.steps import Heap, Label
from bunri.process import here
from bunri.process.keeper import Keeper
from bunri.process.messages import Ahead, Down, Failed, Forked, MakeTemplate, MakeWorker, TemplateReady
from bunri.process.worker import KEPT_FROM, Unborn, be_worker, refuse_debugging
from bunri.wire import Contract


class Template(Keeper):
    """Clones workers for one plan."""

    def __init__(
        self,
        control: socket.socket,
        monitor: int,
        plan: MakeTemplate,
        compartments: Mapping[str, tuple[type[Compartment], Contract]],
    ) -> None:
        super().__init__(control, monitor)
        self.plan = plan
        self.compartments = compartments
        self._clone = clone.Cloner(clone.flags_of((*plan.namespaces, "user") if plan.user else plan.namespaces))
        self._unborn: dict[str, Unborn] = {}
        self._pinned = Pinned(-1)
        self._refuses_huge_pages = False
        self._ahead = prepared.Copies()
        self._image = 0
        self._proc = -1  # /proc of the role's root: to map a worker's user namespace, and for its label

    def begin(self, mounts: list[int]) -> NoReturn:
        """Carry out the template's steps, tell the monitor, serve."""
        if any(isinstance(step, Heap) for step in self.plan.template):
            heap.with_room_for_frames(lambda: self._begin(mounts))  # the workers' too: they go on from here
        self._begin(mounts)

    def _begin(self, mounts: list[int]) -> NoReturn:
        if self.plan.pins:
            self._may_pin()
        self._image = _image()
        if self.plan.user == "mapped" or self._labelled:
            proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._proc = duplicate_above(proc, KEPT_FROM)
            os.close(proc)
        context = Context(
            mounts=dict(zip(self.plan.mounts_at, mounts, strict=True)),
            keep=self._own_descriptors(),
        )
        try:
            carry_out(self.plan.template, context)
        except StepFailed as fault:
            self.say(Failed(str(fault), step=fault.step, errno=fault.errno))
            self.end()
        for number in mounts:
            os.close(number)
        here.become_worker()  # what comes from here are workers, and a template starts none itself
        refuse_debugging()
        gc.freeze()
        self.say(TemplateReady(os.getpid(), self._image))
        self.run()

    def _may_pin(self) -> None:
        with contextlib.suppress(OSError):  # a limit of this user's: its workers make their copies themselves
            self._pinned = Pinned(open_ring())
            if not prctl.small_pages():  # a fork copies a pinned page whole
                prctl.set_small_pages()
                self._refuses_huge_pages = True

    def handle(self, request: Down, descriptors: list[int]) -> None:
        if isinstance(request, Ahead):
            self._ahead = prepared.Copies(self._pinned.hold(request.memory))
            return
        if not isinstance(request, MakeWorker):
            super().handle(request, descriptors)
            return
        go = os.pipe() if self.plan.user == "mapped" else None
        try:
            unborn = self._unborn.get(request.compartment) or self._make_ready(request)
            unborn.fill_in(request, descriptors, self._ahead)
            pid, pidfd = self._clone()
        except OSError as fault:
            text = f"no worker could be cloned: {fault.strerror}"
            self.say(Failed(text, step="clone", errno=fault.errno, worker=request.number))
            for number in descriptors:
                os.close(number)
            return
        if pid == 0:
            be_worker(unborn, go)
        self.say(Forked(request.number, pid), (pidfd,))
        if go is not None:
            self._map(pid, go)
        for number in descriptors:
            os.close(number)
        self.adopt(pidfd, request.number)

    def _make_ready(self, request: MakeWorker) -> Unborn:
        compartment, contract = self.compartments[request.compartment]
        proc = self._proc if self._labelled else None
        unborn = Unborn(compartment, contract, self.plan.worker, self._image, request.arena, proc)
        if self._refuses_huge_pages:
            unborn.places.append(prepared.call("prctl", prctl.SET_THP_DISABLE, 0))  # its workers do not
        self._unborn[request.compartment] = unborn
        gc.freeze()
        return unborn

    @property
    def _labelled(self) -> bool:
        return any(isinstance(step, Label) for step in self.plan.worker)

    def _map(self, pid: int, go: tuple[int, int]) -> None:
        """The worker's user namespace knows one user: our own. setgroups is given up for it (user_namespaces(7))."""
        reader, writer = go
        os.close(reader)
        try:
            uid, gid = os.geteuid(), os.getegid()
            for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                number = os.open(f"{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._proc)
                try:
                    os.write(number, line.encode())
                finally:
                    os.close(number)
            os.write(writer, b"g")
        finally:
            os.close(writer)

    def _own_descriptors(self) -> tuple[int, ...]:
        own = (0, 1, 2, self.control.fileno(), self.monitor, self._proc, self._pinned.ring)
        return tuple(number for number in own if number >= 0)


def _image() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
