"""Runs in: the monitor. A control group for each worker, where this program has some to make (cgroups(7), version 2).

All memory that a worker causes is counted in it: of its children too, and what no limit of a process sees, as memory
files, pipes and socket buffers (THREATS 30). When it is used up the kernel ends the whole worker and nobody else.
The monitor puts the worker in before anything is sent to it; the worker has no file system to find its way out.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re

from bunri.errors import HostError, Promise
from bunri.kernel import cgroup

_NAME = re.compile(r"bunri-(\d+)-\d+")
_ROUNDS = 8  # of moving what was born meanwhile


class MemoryGroups:
    """The groups of one program's workers."""

    def __init__(self) -> None:
        try:
            self._parent, moves = cgroup.parent_for(os.getpid())
            if moves:
                _move_out(self._parent)
        except OSError as fault:
            raise _refused("this program's control group cannot be shared out", fault) from fault
        self._numbers = itertools.count(1)
        _remove_left_over(self._parent)

    def make(self, limit: int) -> MemoryGroup:
        """An empty group with a bound of so many bytes."""
        directory = os.path.join(self._parent, f"bunri-{os.getpid()}-{next(self._numbers)}")
        try:
            os.mkdir(directory)
            cgroup.write(directory, "memory.max", str(limit))
            cgroup.write(directory, "memory.oom.group", "1")
            if os.path.exists(os.path.join(directory, "memory.swap.max")):
                cgroup.write(directory, "memory.swap.max", "0")
        except OSError as fault:
            raise _refused(f"{directory} cannot be made", fault) from fault
        return MemoryGroup(directory)


class MemoryGroup:
    """The group of one worker."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def enter(self, pid: int) -> None:
        """Put a process in, and see that it is there."""
        try:
            cgroup.write(self._directory, "cgroup.procs", str(pid))
            if pid not in cgroup.members(self._directory):
                raise ProcessLookupError(3, "it is not in it")
        except OSError as fault:
            raise _refused(f"process {pid} cannot be put into {self._directory}", fault) from fault

    def lower(self, limit: int) -> None:
        """A smaller bound. What is used above it is given back or the worker is ended."""
        cgroup.write(self._directory, "memory.max", str(limit))

    def remove(self) -> bool:
        """Its processes have ended. Whether that was the kernel's doing, for its memory."""
        ran_out = False
        with contextlib.suppress(OSError):  # gone already: somebody tidied up
            ran_out = cgroup.counts(self._directory, "memory.events").get("oom_kill", 0) > 0
            os.rmdir(self._directory)
        return ran_out


def _move_out(parent: str) -> None:
    """Into a child, with all that is ours, so that the group itself is empty and may share its memory out."""
    child = os.path.join(parent, cgroup.MONITORS)
    with contextlib.suppress(FileExistsError):
        os.mkdir(child)
    for _ in range(_ROUNDS):
        born = cgroup.members(parent)
        if not born:
            break
        for pid in born:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                cgroup.write(child, "cgroup.procs", str(pid))
    cgroup.write(parent, "cgroup.subtree_control", "+memory")


def _remove_left_over(parent: str) -> None:
    """Groups of programs that were killed. Those with processes in them stay: the kernel does not remove them."""
    for name in os.listdir(parent):
        found = _NAME.fullmatch(name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(parent, name))


def _refused(what: str, fault: OSError) -> HostError:
    return HostError(
        f"{what}: {fault.strerror}",
        promise=Promise.MEMORY,
        layer="memory cgroup",
        errno=fault.errno,
        remedy="Give the program a group of its own (Delegate=yes in its unit), or take its memory controller away",
    )
