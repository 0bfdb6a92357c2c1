"""Runs in: the process that asks, with its user's rights. Which processes are meant: by number or name, with all below
them."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

from bunri.errors import UsageError
from bunri.kernel import procfs
from bunri.text import printable


@dataclass(frozen=True)
class Entry:
    """One process in the list of all."""

    pid: int
    parent: int
    names: frozenset[str]  # what it may be called by


@dataclass(frozen=True)
class Member:
    """A process that was asked for, or stands below one: so many steps."""

    pid: int
    depth: int


def everybody() -> dict[int, Entry]:
    """All processes that /proc lists, but for the kernel's own threads."""
    found: dict[int, Entry] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            directory = procfs.open_process(name)
        except OSError:
            continue  # it has just ended
        try:
            entry = _entry(int(name), directory)
        except OSError:
            continue  # likewise, or it is hidden (hidepid)
        finally:
            os.close(directory)
        if entry.pid != 2 and entry.parent != 2:
            found[entry.pid] = entry
    return found


def _entry(pid: int, directory: int) -> Entry:
    names = {os.fsdecode(procfs.read(directory, "comm")).rstrip("\n")}
    first = os.fsdecode(procfs.read(directory, "cmdline").split(b"\0")[0])
    if first:
        names.add(os.path.basename(first.split(" ")[0].rstrip(":")))
    return Entry(pid, int(procfs.stat_fields(directory)[1]), frozenset(names))


def find(words: tuple[str, ...], *, below: bool = True) -> list[Member]:
    """The processes that PIDs and names mean, each with its descendants, parents first.

    UsageError where there is none of a number or name, with the nearest name.
    """
    all_ = everybody()
    asked: list[int] = []
    for word in words:
        asked += [pid for pid in _meant(word, all_) if pid not in asked]
    if not below:
        return [Member(pid, 0) for pid in asked]
    children: dict[int, list[int]] = {}
    for entry in all_.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    everywhere: dict[int, Member] = {}
    for pid in asked:
        _walk(pid, children, everywhere)
    found: dict[int, Member] = {}
    for pid in asked:  # those that stand below none of the others
        if all_[pid].parent not in everywhere:
            _walk(pid, children, found)
    return list(found.values())


def _walk(top: int, children: dict[int, list[int]], found: dict[int, Member]) -> None:
    waiting = [(top, 0)]
    while waiting:
        pid, depth = waiting.pop()
        found[pid] = Member(pid, depth)
        waiting += [(child, depth + 1) for child in sorted(children.get(pid, ()), reverse=True)]


def _meant(word: str, all_: dict[int, Entry]) -> list[int]:
    if word.isdecimal():
        if int(word) not in all_:
            raise UsageError(f"there is no process {word} (a thread of the kernel is none)")
        return [int(word)]
    pids = [pid for pid, entry in sorted(all_.items()) if word in entry.names and pid != os.getpid()]
    if not pids:
        names = {name for entry in all_.values() for name in entry.names}
        near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
        hint = f" Did you mean {printable(near[0])!r}?" if near else " Give its number, or the name that ps shows"
        raise UsageError(f"no process is called {printable(word)!r}.{hint}")
    return pids
