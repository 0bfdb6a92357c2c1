"""Runs in: nowhere; values only. What must be seen of a worker from outside, derived from the steps that make it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bunri.plan.means import Means
from bunri.plan.steps import AnyStep, DropBounding, Filter, Label, Limits, Mount, MountInRoot, NewRoot, StrictMode
from bunri.plan.value import Belongs, Expected, ExpectedMount
from bunri.policy import UserKind

NAMESPACES: Final = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time", "user")


def expected(means: Means, template: Sequence[AnyStep], worker: Sequence[AnyStep]) -> Expected:
    """What the monitor compares with /proc/PID. Ids known only at the request are None: whoever asked fills them in."""
    steps = (*template, *worker)
    ids = means.ids
    if not means.confines:
        return Expected(
            uid=ids.uid if ids else None,
            gid=ids.gid if ids else None,
            groups=ids.groups if ids else None,
            **dict.fromkeys(("effective", "permitted", "inheritable", "bounding", "ambient")),
            no_new_privs=None,
            seccomp_mode=None,
        )
    kept = _mask(means.keeps)
    bounded = any(isinstance(step, DropBounding) for step in steps)
    filters = sum(isinstance(step, Filter) for step in steps)
    return Expected(
        uid=ids.uid if ids else None,
        gid=ids.gid if ids else None,
        groups=ids.groups if ids else (() if means.policy.user.kind is UserKind.DYNAMIC else None),
        effective=kept,
        permitted=kept,
        inheritable=kept,
        bounding=kept if bounded else None,
        seccomp_mode=1 if any(isinstance(step, StrictMode) for step in steps) else (2 if filters else 0),
        filters=filters,
        namespaces={name: _belongs(name, means) for name in NAMESPACES},
        limits={name: value for step in steps if isinstance(step, Limits) for name, value in step.values.items()},
        above_image=next((s.above_image for s in steps if isinstance(s, Limits) and s.above_image is not None), None),
        mounts=_mounts(steps) if means.own_root else None,
        root_writable=_root_writable(steps) if means.own_root else None,
        oom_score=500,
        label=_label(steps),
    )


def _mask(numbers: Sequence[int]) -> int:
    return sum(1 << number for number in set(numbers))


def _belongs(name: str, means: Means) -> Belongs:
    if name in means.worker_namespaces or (name == "user" and means.user_namespace):
        return "own"
    if means.is_self:
        return "own" if name in means.template_namespaces else "monitor"
    if name in means.template_namespaces or (name == "user" and means.mapped):
        return "template"
    return "monitor"


def _all_mounts(steps: Sequence[AnyStep]) -> list[Mount]:
    return [mount for step in steps if isinstance(step, NewRoot | MountInRoot) for mount in step.mounts]


def _mounts(steps: Sequence[AnyStep]) -> tuple[ExpectedMount, ...]:
    found = [m for m in _all_mounts(steps) if m.kind not in ("link", "directory", "text") and m.at != "/"]
    return tuple(ExpectedMount(m.at, m.writable, m.executable, m.optional) for m in found)


def _label(steps: Sequence[AnyStep]) -> tuple[str, str] | None:
    """Its module, and what /proc/PID/attr must say of it."""
    for step in steps:
        if isinstance(step, Label):
            return step.module, f"{step.label} (enforce)" if step.module == "apparmor" else step.label
    return None


def _root_writable(steps: Sequence[AnyStep]) -> bool:
    return any(mount.at == "/" and mount.writable for mount in _all_mounts(steps))
