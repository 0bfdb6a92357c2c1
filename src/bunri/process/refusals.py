"""Runs in: the monitor. A zygote's or a worker's word that it could not go on, as the error of the start."""

from __future__ import annotations

from typing import Final

from bunri.errors import BunriError, HostError, Promise, UsageError
from bunri.process.messages import Failed
from bunri.text import printable

# Which promise is not kept when a step fails.
_PROMISES: Final = {
    **dict.fromkeys(("new_root", "mount_in_root", "chroot", "landlock"), Promise.FILES),
    **dict.fromkeys(("set_ids", "set_capabilities", "drop_bounding", "securebits"), Promise.IDENTITY),
    **dict.fromkeys(("filter", "strict_mode"), Promise.SYSCALLS),
    "limits": Promise.MEMORY,
    "label": Promise.LABEL,
}


def start_error(failed: Failed) -> BunriError:
    """The exception for a zygote or a worker that could not go on."""
    text = printable(failed.text)
    if failed.usage:
        trace = f"\n{printable(failed.trace, keep_newlines=True, limit=16384)}" if failed.trace else ""
        return UsageError(text + trace)
    return HostError(
        text,
        promise=_PROMISES.get(failed.step or ""),
        layer=printable(failed.step) if failed.step else None,
        errno=failed.errno,
        remedy="See what this host lacks, or name the promise in may_miss",
    )


def did_not_wait(who: str) -> HostError:
    """The error for a worker that says it is confined, and could not be looked at when it was due."""
    return HostError(
        f"seen from outside, {who} did not wait at its checkpoint",
        promise=Promise.PROCESSES,
        layer="checkpoint",
        remedy="The worker has been ended. Something interferes with its confinement, or bunri is wrong",
    )
