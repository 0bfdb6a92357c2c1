"""Runs in: the process that asks, with its user's rights. What one running process may do, read from the kernel.

Everything comes from /proc/PID (proc(5)); nothing is asked of the process itself. What may not be read, or is nowhere
to be read, stands in `hidden` with the reason, and its field is None: nothing is guessed. Names and command lines were
written by that process, and are hostile text.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from bunri.errors import UsageError
from bunri.kernel import capability, descriptors, label, procfs, ptrace
from bunri.seccomp import Program

T = TypeVar("T")

SETS = ("effective", "permitted", "inheritable", "bounding", "ambient")
MODES = {0: "none", 1: "strict", 2: "filter"}
_NOWHERE = {
    "securebits": "the kernel shows them to the process itself only",
    "Landlock": "the kernel shows to nobody which rulesets a process has",
}
_MEMORY = {"Pss": "pss", "Private_Dirty": "private_dirty", "Rss": "rss"}
_SERIAL = re.compile(r"^(socket|pipe):\[\d+\]$")


class Descriptor(msgspec.Struct, frozen=True):
    """One open descriptor."""

    number: int
    kind: str
    access: str
    target: str


class Mounted(msgspec.Struct, frozen=True):
    """One line of its mount table, as it sees it."""

    at: str
    kind: str
    options: tuple[str, ...]


class Filter(msgspec.Struct, frozen=True):
    """One seccomp filter, disassembled."""

    instructions: int
    listing: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One process. None: see `hidden`."""

    pid: int
    parent: int
    name: str
    command: tuple[str, ...]
    executable: str | None = None
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    user: str
    capabilities: dict[str, tuple[str, ...]]
    no_new_privs: bool
    seccomp: str
    seccomp_filters: int | None = None
    filters: tuple[Filter, ...] | None = None
    label: str | None = None
    namespaces: dict[str, str] | None = None  # name -> "ours" or "own"
    root: str | None = None
    mounts: tuple[Mounted, ...] | None = None
    limits: dict[str, tuple[int, int]] | None = None
    descriptors: tuple[Descriptor, ...] | None = None
    memory: dict[str, int] | None = None
    cgroup: str | None = None
    threads: int
    oom_score: int | None = None
    hidden: dict[str, str] = {}


def capability_names(mask: int) -> tuple[str, ...]:
    names = capability.NAMES
    return tuple(names[n] if n < len(names) else f"CAP_{n}" for n in capability.numbers_of(mask))


def read(pid: int, *, with_filters: bool = False) -> Facts:
    """All of it. ProcessLookupError where there is no such process; a zombie has ids and little more.

    `with_filters` stops the process for a moment (ptrace(2)), and needs root's rights.
    """
    try:
        directory = procfs.open_process(pid)
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    try:
        return _read(pid, directory, with_filters)
    finally:
        os.close(directory)


def _read(pid: int, directory: int, with_filters: bool) -> Facts:
    hidden = dict(_NOWHERE)

    def look(field: str, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except (OSError, ValueError, UsageError) as fault:
            hidden[field] = fault.strerror or str(fault) if isinstance(fault, OSError) else str(fault)
            return None

    status = procfs.status(directory)
    asked: dict[str, Any] = {
        "executable": look("executable", lambda: os.readlink("exe", dir_fd=directory)),
        "label": look("label", lambda: _label(directory)),
        "namespaces": look("namespaces", lambda: _namespaces(directory)),
        "root": look("root", lambda: _root(directory)),
        "mounts": look("mounts", lambda: _mounts(directory)),
        "limits": look("limits", lambda: procfs.limits(directory)),
        "descriptors": look("descriptors", lambda: _descriptors(directory)),
        "memory": look("memory", lambda: _memory(directory)),
        "cgroup": look("cgroup", lambda: _text(directory, "cgroup").splitlines()[-1].split(":", 2)[2]),
        "oom_score": look("oom_score", lambda: int(procfs.read(directory, "oom_score_adj"))),
    }
    if with_filters and status.seccomp_mode == 2:
        asked["filters"] = look("filters", lambda: _filters(pid))
    return Facts(
        pid=pid,
        parent=status.parent,
        name=_text(directory, "comm").rstrip("\n"),
        command=tuple(
            os.fsdecode(part) for part in procfs.read(directory, "cmdline").rstrip(b"\0").split(b"\0") if part
        ),
        uids=status.uids,
        gids=status.gids,
        groups=status.groups,
        user=user_name(status.uids[1]),
        capabilities={name: capability_names(getattr(status, name)) for name in SETS},
        no_new_privs=status.no_new_privs,
        seccomp=MODES.get(status.seccomp_mode, str(status.seccomp_mode)),
        seccomp_filters=status.seccomp_filters,
        threads=status.threads,
        hidden=hidden,
        **asked,
    )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _text(directory: int, name: str) -> str:
    return os.fsdecode(procfs.read(directory, name))


def _label(directory: int) -> str:
    module = label.module_here()
    if not module:
        raise ValueError("no security module labels processes here")
    return label.read(module, directory)


def _namespaces(directory: int) -> dict[str, str]:
    ours = procfs.open_process("self")
    try:
        return {
            name: "ours" if procfs.namespace(directory, name) == procfs.namespace(ours, name) else "own"
            for name in procfs.NAMESPACES
        }
    finally:
        os.close(ours)


def _root(directory: int) -> str:
    """ "ours", or where it is. In another mount namespace the kernel names it "/" too: then the inode tells."""
    named = os.readlink("root", dir_fd=directory)
    found, ours = os.stat("root", dir_fd=directory), os.stat("/")
    if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
        return "ours"
    return named if named != "/" else "another"


def _mounts(directory: int) -> tuple[Mounted, ...]:
    return tuple(Mounted(m.at, m.kind, tuple(sorted(m.options))) for m in procfs.mounts(directory))


def _descriptors(directory: int) -> tuple[Descriptor, ...]:
    found: list[Descriptor] = []
    for number in procfs.descriptors(directory):
        try:
            target = procfs.descriptor_link(directory, number)
            kind = descriptors.kind_of_link(target) or descriptors.kind_of_mode(
                procfs.descriptor_mode(directory, number)
            )
            access = descriptors.access_of_flags(procfs.descriptor_flags(directory, number))
        except FileNotFoundError:
            continue  # closed since it was listed
        found.append(Descriptor(number, kind or "anonymous", access, "" if _SERIAL.match(target) else target))
    return tuple(found)


def _memory(directory: int) -> dict[str, int]:
    rollup = procfs.memory(directory)
    return {ours: rollup[theirs] for theirs, ours in _MEMORY.items() if theirs in rollup}


def _filters(pid: int) -> tuple[Filter, ...]:
    programs = [Program.from_bytes(program) for program in ptrace.filters(pid)]
    return tuple(Filter(len(program.instructions), program.listing()) for program in programs)
