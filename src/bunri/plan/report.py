"""Runs in: nowhere; values only. What is in force in a process, layer by layer, and who saw it."""

from __future__ import annotations

from enum import Enum

import msgspec

from bunri.errors import Observer, Promise


class State(Enum):
    """Whether a layer holds."""

    IN_FORCE = "in force"
    MISSING = "missing"  # this host does not have it, or it was not asked for; `detail` says which
    WEAKER = "weaker"  # it holds, but less than its name promises; `detail` says what is left open


class Layer(msgspec.Struct, frozen=True):
    """One kernel mechanism that keeps (or would keep) a promise.

    `promise` is None for the layers that every worker has ("always"). `observed_by` is MONITOR for what was read from
    outside, KERNEL for what a system call's own success proves, WORKER for what only the worker could try (hearsay).
    """

    promise: Promise | None
    name: str
    state: State
    observed_by: Observer | None
    detail: str = ""


class Report(msgspec.Struct, frozen=True):
    """What holds in one process, as far as it was looked at again after the steps."""

    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    def keeps(self, promise: Promise) -> bool:
        """Whether at least one layer of `promise` is in force (planning made sure that those suffice)."""
        return any(layer.promise is promise and layer.state is not State.MISSING for layer in self.layers)

    def layer(self, name: str) -> Layer:
        """The layer of that name. KeyError if the plan knows none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def __str__(self) -> str:
        rows = [("promise", "layer", "state", "seen by", "detail")]
        for layer in self.layers:
            seen = layer.observed_by.value if layer.observed_by else "-"
            promise = layer.promise.value if layer.promise else "always"
            rows.append((promise, layer.name, layer.state.value, seen, layer.detail))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(4)), row[4]]).rstrip() for row in rows]
        return "\n".join([*lines, *self.notes])
