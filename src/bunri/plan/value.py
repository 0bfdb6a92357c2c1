"""Runs in: nowhere; values only. A plan: the steps, and what must be seen from outside when they are done."""

from __future__ import annotations

from typing import Literal

import msgspec

from bunri.plan.report import Layer, State
from bunri.plan.steps import AnyStep, Checkpoint

UserNamespace = Literal["unmapped", "mapped"]
Belongs = Literal["own", "template", "monitor"]


class Clone(msgspec.Struct, frozen=True):
    """How a worker is cloned. `user`: in a user namespace of its own, unmapped or with its one uid mapped to itself."""

    namespaces: tuple[str, ...] = ()
    user: UserNamespace | None = None


class ExpectedMount(msgspec.Struct, frozen=True):
    """One line that the worker's mount table must have."""

    at: str
    writable: bool = False
    executable: bool = False
    optional: bool = False


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What must be seen of the worker from outside. None: not looked at, or known only at the request."""

    uid: int | None = None  # all four of real, effective, saved, file system
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    effective: int | None = 0  # capability masks, as /proc/PID/status shows them
    permitted: int | None = 0
    inheritable: int | None = 0
    bounding: int | None = 0
    ambient: int | None = 0
    no_new_privs: bool | None = True
    seccomp_mode: int | None = 2
    filters: int | None = None  # at least so many
    namespaces: dict[str, Belongs] | None = None
    limits: dict[str, int] | None = None
    above_image: int | None = None  # RLIMIT_AS is the image plus this
    mounts: tuple[ExpectedMount, ...] | None = None  # exactly these beside the root
    root_writable: bool | None = None
    oom_score: int | None = None
    label: tuple[str, str] | None = None  # the security module, and the label as it spells it
    descriptors: tuple[int, ...] | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a policy is kept on a host. `layers` has every layer, in force or missing, seen by nobody yet."""

    template: tuple[AnyStep, ...]
    clone: Clone
    worker: tuple[AnyStep, ...]
    layers: tuple[Layer, ...]
    expected: Expected
    memory_group: int | None = None  # bytes; the monitor makes it, and puts the process in
    pins: bool = False  # the template may pin what its workers will write to
    program_filter: bytes = b""  # the last one of a program, installed just before it is executed
    notes: tuple[str, ...] = ()

    @property
    def has_checkpoint(self) -> bool:
        """Whether each worker waits, still dumpable, until the monitor has looked."""
        return any(isinstance(step, Checkpoint) for step in self.worker)

    def layer(self, name: str) -> Layer:
        """The layer of that name. KeyError if the plan knows none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether the layer of that name is planned and holds fully."""
        return any(layer.name == name and layer.state is State.IN_FORCE for layer in self.layers)

    def __str__(self) -> str:
        lines = ["template, once:"]
        lines += [f"  {line_of(step)}" for step in self.template] or ["  nothing"]
        flags = [*self.clone.namespaces, *([f"user ({self.clone.user})"] if self.clone.user else [])]
        lines += [f"each worker, cloned with namespaces: {', '.join(flags) or 'none'}"]
        lines += [f"  {line_of(step)}" for step in self.worker]
        lines += ["layers:"]
        for layer in self.layers:
            promise = layer.promise.value if layer.promise else "always"
            detail = f": {layer.detail}" if layer.detail else ""
            lines.append(f"  {promise}, {layer.name}: {layer.state.value}{detail}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def line_of(step: AnyStep) -> str:
    """A step as a line: its name, what it is told, and why."""
    name = str(step.__struct_config__.tag)
    shown: list[str] = []
    for field in step.__struct_fields__:
        value = getattr(step, field)
        if field == "reason" or value in (None, (), {}, 0, False, ""):
            continue
        shown.append(f"{field}={len(value) // 8} instructions" if isinstance(value, bytes) else f"{field}={value!r}")
    return f"{name}({', '.join(shown)})" + (f"  # {step.reason}" if step.reason else "")
