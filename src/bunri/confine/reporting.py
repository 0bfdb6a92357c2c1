"""Runs in: the monitor. Puts what was planned and what was seen together: the Report of one process."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from bunri.confine.looking import Look, fields_right
from bunri.errors import Observer
from bunri.plan.report import Layer, Report, State
from bunri.plan.value import Plan

_FILTER = ("seccomp_mode", "filters")

# Layer -> the fields of the look that show it. A layer that does not stand here nobody but the worker can try.
_SHOWN_BY: dict[str, tuple[str, ...]] = {
    "mount namespace": ("namespace mnt", "mounts"),
    "network namespace": ("namespace net",),
    "filter": _FILTER,
    "filter on metadata": _FILTER,
    "filter on sockets": _FILTER,
    "filter on processes": _FILTER,
    "uid": ("uid", "gid"),
    "user namespace": ("namespace user",),
    "groups": ("groups",),
    "capabilities": ("effective", "permitted", "inheritable", "ambient"),
    "bounding set": ("bounding",),
    "pid namespace": ("namespace pid",),
    "process count": ("limit NPROC",),
    "address space": ("limit AS",),
    "cpu limit": ("limit CPU",),
    "core limit": ("limit CORE",),
    "no_new_privs": ("no_new_privs",),
    "descriptors": ("descriptors",),
    "oom score": ("oom_score",),
    "label": ("label",),
    "ipc namespace": ("namespace ipc",),
    "uts namespace": ("namespace uts",),
    "cgroup namespace": ("namespace cgroup",),
    "time namespace": ("namespace time",),
}
# Kept by the monitor itself, or by what it started and handed the listener to; not by the worker.
_MONITORS_OWN = ("clocks", "memory cgroup", "broker of files", "broker of connections")


def report(plan: Plan, looks: Sequence[Look]) -> Report:
    """The plan's layers with who saw them: the monitor where the looks show it, else the worker, whose word is
    hearsay."""
    right = set(fields_right(looks))
    hidden = {each.field for one in looks for each in one.unreadable}
    notes = [*plan.notes, *(str(each) for one in looks for each in (*one.differences, *one.unreadable))]
    if plan.has_checkpoint:
        notes.append("namespaces and descriptors were seen while it waited, still dumpable; the rest at its end")
    return Report(tuple(_seen(layer, right, hidden) for layer in plan.layers), tuple(notes))


def _seen(layer: Layer, right: set[str], hidden: set[str]) -> Layer:
    if layer.state is State.MISSING or layer.observed_by is not None:
        return layer
    fields = set(_SHOWN_BY.get(layer.name, ()))
    if layer.name in _MONITORS_OWN or (fields and fields <= right):
        return replace(layer, observed_by=Observer.MONITOR)
    if fields & hidden:
        detail = f"{layer.detail}; not to be read from outside" if layer.detail else "not to be read from outside"
        return replace(layer, observed_by=Observer.WORKER, detail=detail)
    return replace(layer, observed_by=Observer.WORKER)
