"""Runs in: the monitor, mostly. /proc/PID of another process, read fast: one directory descriptor, one buffer.

A directory descriptor of /proc/PID keeps naming that process: after its death reads fail with ESRCH, also when the
number
has gone to another. proc_pid_status(5) and its neighbours describe the files.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import time
from array import array
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_SIZE = 1 << 16
_TEXTS = 16  # of limits and of mounts: the workers of one template have the same, but for the numbers of their mounts
_PRESENT, _OF_FILE, _EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56  # of a page, in pagemap

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time", "user")


class Status(NamedTuple):
    """The lines of /proc/PID/status that say what a process may do. Ids are (real, effective, saved, file system)."""

    parent: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    no_new_privs: bool
    seccomp_mode: int
    seccomp_filters: int | None  # None before Linux 5.9
    threads: int


class MountEntry(NamedTuple):
    """One line of mountinfo."""

    root: str  # which directory of its file system is mounted
    at: str
    options: frozenset[str]  # of the mount
    kind: str
    super_options: frozenset[str]


_STATUS = re.compile(
    rb"PPid:\t(\d+)\n.*?"
    rb"Uid:\t([\d\t]+)\nGid:\t([\d\t]+)\n.*?Groups:\t([\d ]*)\n.*?Threads:\t(\d+)\n.*?"
    rb"CapInh:\t(\w+)\nCapPrm:\t(\w+)\nCapEff:\t(\w+)\nCapBnd:\t(\w+)\nCapAmb:\t(\w+)\n"
    rb"NoNewPrivs:\t(\d)\nSeccomp:\t(\d)\n(?:Seccomp_filters:\t(\d+)\n)?",
    re.DOTALL,
)
_IN_ONE_PIECE = frozenset(("status", "limits", "oom_score_adj", "stat", "statm"))  # single_open() of the kernel
_OCTAL = re.compile(r"\\([0-7]{3})")
_NUMBERS = re.compile(rb"^\d+ \d+ \d+:\d+ ", re.MULTILINE)  # of a mount, its parent and its device
_LIMIT = re.compile(rb"^Max ([a-z -]+?)  +(\S+) +(\S+)", re.MULTILINE)
_LIMIT_NAMES = {
    b"cpu time": "CPU",
    b"file size": "FSIZE",
    b"data size": "DATA",
    b"stack size": "STACK",
    b"core file size": "CORE",
    b"resident set": "RSS",
    b"processes": "NPROC",
    b"open files": "NOFILE",
    b"locked memory": "MEMLOCK",
    b"address space": "AS",
    b"file locks": "LOCKS",
    b"pending signals": "SIGPENDING",
    b"msgqueue size": "MSGQUEUE",
    b"nice priority": "NICE",
    b"realtime priority": "RTPRIO",
    b"realtime timeout": "RTTIME",
}


def open_process(pid: int | str) -> int:
    """A descriptor of /proc/PID. ENOENT: no such process, or no /proc."""
    return os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def read(directory: int, name: str) -> bytes:
    """One file of /proc/PID, whole."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        # Each read has bytes of its own: two threads look at two workers at the same time.
        found = os.read(fd, _SIZE)
        if name in _IN_ONE_PIECE and len(found) < _SIZE:
            return found
        while found and (more := os.read(fd, _SIZE)):  # the others come in pieces of a page or more
            found += more
        return found
    finally:
        os.close(fd)


def status(directory: int) -> Status:
    """/proc/PID/status. ValueError where a line is missing."""
    return parse_status(read(directory, "status"))


def parse_status(text: bytes) -> Status:
    found = _STATUS.search(text)
    if found is None:
        raise ValueError("/proc/PID/status lacks one of the lines that every kernel since 5.10 writes")
    parent, uids, gids, groups, threads, inh, prm, eff, bnd, amb, nnp, mode, filters = found.groups()
    return Status(
        parent=int(parent),
        uids=tuple(map(int, uids.split())),
        gids=tuple(map(int, gids.split())),
        groups=tuple(map(int, groups.split())),
        inheritable=int(inh, 16),
        permitted=int(prm, 16),
        effective=int(eff, 16),
        bounding=int(bnd, 16),
        ambient=int(amb, 16),
        no_new_privs=nnp == b"1",
        seccomp_mode=int(mode),
        seccomp_filters=int(filters) if filters is not None else None,
        threads=int(threads),
    )


def namespace(directory: int, name: str) -> str:
    """What a link of /proc/PID/ns says, as "mnt:[4026531841]". EACCES without ptrace rights."""
    return os.readlink(f"ns/{name}", dir_fd=directory)


def socket_inode(directory: int, number: int) -> int:
    """The inode of the socket under one of its descriptors; 0 where it is none. Needs the right to trace it."""
    link = descriptor_link(directory, number)
    return int(link[8:-1]) if link.startswith("socket:[") else 0


def children(pid: int) -> list[int]:
    """The processes whose parent it is, whichever of its threads made them, as far as they are to be seen."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists(f"/proc/{pid}") and not os.path.exists("/proc/thread-self/children"):
            return _children_by_parent(pid)  # a kernel without CONFIG_PROC_CHILDREN: look at all
    return found  # it may have ended meanwhile, or a thread of it


def parent_of(pid: int) -> int:
    """Its parent's number. FileNotFoundError or ProcessLookupError when it has ended."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def _children_by_parent(pid: int) -> list[int]:
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if parent_of(int(name)) == pid:
                    found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def limits(directory: int) -> Mapping[str, tuple[int, int]]:
    """/proc/PID/limits: (soft, hard) by name, -1 for none."""
    return parse_limits(read(directory, "limits"))


@functools.lru_cache(_TEXTS)
def parse_limits(text: bytes) -> Mapping[str, tuple[int, int]]:
    return {
        _LIMIT_NAMES[name]: (_limit(soft), _limit(hard))
        for name, soft, hard in _LIMIT.findall(text)
        if name in _LIMIT_NAMES
    }


def _limit(text: bytes) -> int:
    return -1 if text == b"unlimited" else int(text)


def mounts(directory: int) -> tuple[MountEntry, ...]:
    """/proc/PID/mountinfo: paths as that process sees them."""
    return parse_mounts(read(directory, "mountinfo"))


def parse_mounts(text: bytes) -> tuple[MountEntry, ...]:
    return _mount_entries(_NUMBERS.sub(b"", text))


@functools.lru_cache(_TEXTS)
def _mount_entries(text: bytes) -> tuple[MountEntry, ...]:
    return tuple(_mount_entry(os.fsdecode(line)) for line in text.splitlines())


def _mount_entry(line: str) -> MountEntry:
    left, _, right = line.partition(" - ")
    root, at, own = left.split(" ")[:3]
    kind, _, options = right.split(" ", 2)
    return MountEntry(
        _unescape(root),
        _unescape(at),
        frozenset(own.split(",")),
        kind,
        frozenset(options.split(",")),
    )


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text


def descriptors(directory: int) -> tuple[int, ...]:
    """The numbers in /proc/PID/fd. EACCES without ptrace rights."""
    fd = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return tuple(sorted(map(int, os.listdir(fd))))
    finally:
        os.close(fd)


def descriptor_count(directory: int) -> int:
    """How many descriptors are open, without listing them (Linux 6.2; 0 before)."""
    return os.stat("fd", dir_fd=directory).st_size


def descriptor_link(directory: int, number: int) -> str:
    return os.readlink(f"fd/{number}", dir_fd=directory)


def descriptor_mode(directory: int, number: int) -> int:
    """The file mode of what a descriptor of that process is open on."""
    return os.stat(f"fd/{number}", dir_fd=directory).st_mode


def descriptor_flags(directory: int, number: int) -> int:
    """The open flags of a descriptor of that process."""
    for line in read(directory, f"fdinfo/{number}").splitlines():
        if line.startswith(b"flags:"):
            return int(line.split()[1], 8)
    raise ValueError(f"/proc/PID/fdinfo/{number} has no flags")


def stat_fields(directory: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: [0] is the state, [1] the parent."""
    return os.fsdecode(read(directory, "stat")).rpartition(")")[2].split()


def waited_for_ns(pid: int) -> int:
    """Nanoseconds of processor time of those of its children that have ended, and that it has waited for. ENOENT: gone."""
    directory = open_process(pid)
    try:
        fields = stat_fields(directory)
    finally:
        os.close(directory)
    return (int(fields[13]) + int(fields[14])) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def image_size(directory: int) -> int:
    """VmSize in bytes."""
    return int(read(directory, "statm").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def memory(directory: int) -> dict[str, int]:
    """/proc/PID/smaps_rollup in bytes, by the kernel's names (Pss, Private_Dirty, ...). EACCES without ptrace
    rights."""
    found: dict[str, int] = {}
    for line in read(directory, "smaps_rollup").splitlines()[1:]:
        name, _, value = line.partition(b":")
        found[name.decode()] = int(value.split()[0]) * 1024
    return found


def private_pages(directory: int, most: int) -> Iterator[tuple[int, bool]]:
    """The pages that are there of its private writable memory: (address, whether no other process has it). EACCES without
    ptrace rights, E2BIG where more than `most` could be there. Documentation/admin-guide/mm/pagemap.rst."""
    page = os.sysconf("SC_PAGE_SIZE")
    fd = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        for line in read(directory, "maps").splitlines():
            span, rights = line.split(None, 2)[:2]
            if rights != b"rw-p":
                continue
            start, end = (int(word, 16) for word in span.split(b"-"))
            most -= (end - start) // page
            if most < 0:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
            entries = array("Q", os.pread(fd, (end - start) // page * 8, start // page * 8))
            for index, entry in enumerate(entries):
                if entry & _PRESENT and not entry & _OF_FILE:
                    yield start + index * page, bool(entry & _EXCLUSIVE)
    finally:
        os.close(fd)


def threads(directory: int) -> tuple[int, ...]:
    """The thread ids of a process."""
    fd = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return tuple(sorted(map(int, os.listdir(fd))))
    finally:
        os.close(fd)


def cpu_time_ns(pid: int) -> int:
    """Nanoseconds of processor time that a process has used: clock_gettime(2) on the clock id made of its pid.
    EINVAL: gone."""
    return time.clock_gettime_ns((~pid << 3) | 2)
