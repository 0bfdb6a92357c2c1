"""Runs in: the monitor, and the process that tries what a host can do. cgroups(7), version 2, by its files.

A group that has processes of its own can share out no memory among children, so a monitor moves to a child first:
MONITORS. Only a group that was delegated to the program may be rearranged so; with others in it, it is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os

from bunri.kernel import procfs

MONITORS = "bunri-monitors"
_DELEGATED = ("user.delegate", "trusted.delegate")  # how systemd marks what it leaves alone


def own() -> str:
    """The directory of this process's group. OSError where there is no hierarchy of version 2."""
    with open("/proc/self/mountinfo") as file:
        fields = [line.split() for line in file]
    points = [each[4] for each in fields if each[each.index("-") + 1] == "cgroup2"]
    path = path_of(os.getpid())
    if not points or path is None:
        raise OSError(errno.ENOENT, "no cgroup hierarchy of version 2 is mounted")
    directory = points[-1] + path.rstrip("/")
    if os.getpid() not in members(directory):
        raise OSError(errno.ENOENT, "this process's own group is not to be seen in the file system")
    return directory


def path_of(pid: int) -> str | None:
    """The path of a process's group in the version 2 hierarchy, as /proc/PID/cgroup says."""
    with open(f"/proc/{pid}/cgroup") as file:
        return next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), None)


def members(group: str) -> list[int]:
    """The processes in it; 0 for those that have no number here."""
    return [int(word) for word in read(group, "cgroup.procs").split()]


def read(group: str, name: str) -> str:
    with open(os.path.join(group, name)) as file:
        return file.read()


def write(group: str, name: str, text: str) -> None:
    """One write(2), as the kernel wants it."""
    number = os.open(os.path.join(group, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(number, text.encode())
    finally:
        os.close(number)


def counts(group: str, name: str) -> dict[str, int]:
    """A file of lines with a word and a number, as memory.events."""
    return {word: int(number) for word, number in (line.split() for line in read(group, name).splitlines())}


def parent_for(program: int) -> tuple[str, bool]:
    """Under which directory `program`, this process or the one that started it, can make groups with a bound on their
    memory, and whether it must first move to a child of it. OSError, with the reason in words, where it cannot."""
    here = own()
    if os.path.basename(here) == MONITORS:
        parent, moves = os.path.dirname(here), False
    else:
        parent, moves = here, "memory" not in read(here, "cgroup.subtree_control").split()
    if "memory" not in read(parent, "cgroup.controllers").split():
        raise OSError(errno.ENOENT, "this program's group has no memory controller")
    if moves and not _is_delegated(parent):
        raise OSError(errno.EACCES, "this program's group is not delegated to it")
    if moves and not all(descends(pid, program) for pid in members(parent) if pid != os.getpid()):
        raise OSError(errno.EBUSY, "others live in this program's group")
    if not os.access(os.path.join(parent, "cgroup.procs"), os.W_OK) or not os.access(parent, os.W_OK):
        raise OSError(errno.EACCES, "this user may not change this program's group")
    return parent, moves


def _is_delegated(group: str) -> bool:
    found = os.stat(group)
    if found.st_uid == os.geteuid() != 0:
        return True
    if os.path.ismount(group) and os.path.exists(os.path.join(group, "cgroup.type")):
        return True  # the root of a container's own view, and not of the whole hierarchy
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process is another one, or was started by it or its descendants."""
    while pid > 1 and pid != ancestor:
        try:
            pid = procfs.parent_of(pid)
        except (FileNotFoundError, ProcessLookupError):
            return True  # it has ended meanwhile, and is in nobody's way
    return pid == ancestor
