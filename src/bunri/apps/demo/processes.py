"""Runs in: the monitor. What /proc says of this process and of everything below it. "?" where it may not look."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
_BY_DEPTH = ("monitor", "base zygote", "role zygote", "template", "worker")
_SECCOMP = {"0": "off", "1": "strict", "2": "filter"}
_ALL_OWN = f"all {len(_NAMESPACES)} own"


@dataclass(frozen=True)
class Seen:
    """One process, as the kernel describes it to the monitor."""

    pid: int
    parent: int
    depth: int
    role: str
    uid: str
    capabilities: str
    no_new_privs: str
    seccomp: str
    namespaces: str
    root: str
    descriptors: str
    pss: str


def look_at_all(names: Mapping[int, str]) -> list[Seen]:
    """The monitor and its descendants, parents first. `names` says what is known: process number -> name."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            parent = _parent(int(entry.name))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    seen: list[Seen] = []
    names = _with_siblings(names)
    waiting = [(os.getpid(), os.getppid(), 0)]
    while waiting:
        pid, parent, depth = waiting.pop()
        one = _look(pid, parent, depth, names)
        if one is not None:
            seen.append(one)
        waiting += [(child, pid, depth + 1) for child in sorted(children.get(pid, ()), reverse=True)]
    return seen


def _with_siblings(names: Mapping[int, str]) -> dict[int, str]:
    """A template makes the workers of one class: what one is, its siblings are, and the zygotes above them."""
    named = dict(names)
    for pid, name in names.items():
        template = _parent(pid)
        zygote = _parent(template) if template is not None else None
        named.update({above: name for above in (template, zygote) if above is not None})
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) not in named:
            name_of_parent = named.get(_parent(int(entry.name)) or 0)
            if name_of_parent is not None:
                named[int(entry.name)] = name_of_parent
    return named


def _parent(pid: int) -> int | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None  # it has ended
    return int(stat.rpartition(")")[2].split()[1])


def _look(pid: int, parent: int, depth: int, names: Mapping[int, str]) -> Seen | None:
    here = _PROC / str(pid)
    try:
        lines = (here / "status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if status.get("State", "Z").startswith("Z"):
        return None
    known = names.get(pid)
    namespaces = _namespaces(here)
    role = _BY_DEPTH[depth] if depth < len(_BY_DEPTH) else "process"
    return Seen(
        pid,
        parent,
        depth,
        f"{role} {known}" if known else role,
        status["Uid"].split()[1],
        _capabilities(status, " in own ns" if "user" in namespaces or namespaces == _ALL_OWN else ""),
        {"0": "no", "1": "yes"}.get(status.get("NoNewPrivs", ""), "?"),
        _seccomp(status),
        namespaces,
        _root(here),
        _count(here / "fd"),
        _pss(here),
    )


def _capabilities(status: Mapping[str, str], scope: str) -> str:
    masks = {key: int(status[key], 16) for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb") if key in status}
    effective = masks.get("CapEff", 0).bit_count()
    bounding = masks.get("CapBnd", 0).bit_count()
    if not any(masks.values()):
        return "none"
    return f"{effective}{scope}" if bounding else f"{effective}{scope}, bound 0"


def _seccomp(status: Mapping[str, str]) -> str:
    mode = _SECCOMP.get(status.get("Seccomp", ""), "?")
    filters = status.get("Seccomp_filters", "0")
    return f"{mode} ({filters})" if mode == "filter" else mode


def _namespaces(here: Path) -> str:
    differing: list[str] = []
    for kind in _NAMESPACES:
        try:
            if os.readlink(here / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}"):
                differing.append(kind)
        except FileNotFoundError:
            continue  # the kernel has no such namespaces
        except OSError:
            return "?"
    if len(differing) == len(_NAMESPACES):
        return _ALL_OWN
    return f"own {' '.join(differing)}" if differing else "ours"


def _root(here: Path) -> str:
    try:
        if os.readlink(here / "root") != "/":
            return "chroot"
        if os.readlink(here / "ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            return "ours"
        lines = (here / "mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return "?"
    for line in lines:
        fields = line.split()
        if fields[4] == "/":
            kind = fields[fields.index("-") + 1]
            return f"{kind} {fields[5].split(',')[0]}, {len(lines)} mount{'s' if len(lines) > 1 else ''}"
    return f"{len(lines)} mounts"


def _count(folder: Path) -> str:
    try:
        return str(len(os.listdir(folder)))
    except OSError:
        return "?"


def _pss(here: Path) -> str:
    try:
        for line in (here / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return f"{int(line.split()[1]) / 1024:.1f}"
    except OSError:
        pass
    return "?"
