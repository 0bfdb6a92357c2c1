"""Runs in: nowhere; values only. The limits of a worker (setrlimit(2)), in two steps.

What does not hinder the template is set there and inherited. The rest would stop the template itself: it holds a
descriptor per worker, forks, and pins memory.
"""

from __future__ import annotations

import math

from bunri.plan.means import Means
from bunri.plan.needs import Shape
from bunri.policy import largest_file

CORE = 1  # not 0: a piped core_pattern starts its handler, as root, for 0 too, but not for 1 (THREATS 28; core(5))
PENDING_SIGNALS = 256


def inherited(means: Means) -> dict[str, int]:
    """Set by the template."""
    needs = means.needs
    largest = largest_file(means.policy, writable_handles=needs.files or needs.writable_files)
    values = {
        "CORE": CORE,
        "FSIZE": largest,
        "MSGQUEUE": 0,
        "NICE": 0,
        "RTPRIO": 0,
    }
    return _within_host(values, means)


def of_the_monitor(means: Means) -> dict[str, int]:
    """For who is not confined: what root's zygotes have more of than their monitor, for their templates to pin."""
    most = means.host.limits.get("MEMLOCK", -1)
    return {"MEMLOCK": most} if most >= 0 else {}


def own(means: Means) -> dict[str, int]:
    """Set by the worker, after its uid: RLIMIT_NPROC counts by uid."""
    policy = means.policy
    values = {"NOFILE": policy.open_files, "MEMLOCK": 0}
    if means.counts_own_processes:
        brokers = 1 if means.listens else 0  # of the same uid
        launcher = 1 if means.needs.shape is Shape.PROGRAM else 0
        values["NPROC"] = 1 + policy.threads + policy.processes + brokers + launcher
    elif not policy.threads and not policy.processes and means.needs.shape is not Shape.PROGRAM:
        values["NPROC"] = 1  # counts others of this uid as well, which only makes it stricter
    seconds = cpu_seconds(means)
    if seconds is not None:
        values["CPU"] = seconds
    if means.changes_ids or means.user_namespace:
        values["SIGPENDING"] = PENDING_SIGNALS
    return _within_host(values, means)


def cpu_seconds(means: Means) -> int | None:
    """RLIMIT_CPU bounds a life, and `cpu` a call: it is a backstop where both are the same."""
    if means.policy.cpu is None or not (means.needs.single_call or means.needs.shape is not Shape.WORKER):
        return None
    return math.ceil(means.policy.cpu) + 1


def _within_host(values: dict[str, int], means: Means) -> dict[str, int]:
    """A hard limit that already binds us cannot be raised, and need not be: it is lower."""
    return {
        name: min(value, hard) if (hard := means.host.limits.get(name, -1)) >= 0 else value
        for name, value in values.items()
    }
