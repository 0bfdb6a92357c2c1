"""Runs in: the template and the worker. What `carry_out` is told beside the steps, and how it says that one failed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bunri.plan.steps import Step


class Context(msgspec.Struct):
    """What only the process that carries a plan out can know.

    `uid`, `gid`, `groups`: of this worker, where the plan leaves them to the request.
    `keep`: the descriptors that CloseDescriptors leaves open.
    `mounts`: detached mounts (`bunri.kernel.mount.clone_tree`) by the place where they are to stand; used instead of
    the source's path. The descriptors stay the caller's, who closes them: each is a way into its tree.
    `checkpoint`: called by Checkpoint; returns when the monitor has looked.
    `on_listener`: called with the notification descriptor of a filter, which is closed when the call returns: so send
    it first.
    `parent_alive`, or else `parent` (a pid): how ParentDeath finds out whether the parent died before the signal was
    armed. In a pid namespace of one's own getppid(2) is 0, so only the callable helps there.
    `image`: bytes to which `Limits.above_image` adds; without it the process's own size, read from /proc before the
    first step.
    `proc`: a descriptor of a /proc that knows the process, for Label where the root has none.
    """

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    keep: tuple[int, ...] = (0, 1, 2)
    mounts: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    checkpoint: Callable[[], None] | None = None
    on_listener: Callable[[int], None] | None = None
    parent_alive: Callable[[], bool] | None = None
    parent: int | None = None
    image: int | None = None
    proc: int | None = None


class StepFailed(Exception):
    """A step was refused; nothing after it was done. What was done stays done: the process must end."""

    def __init__(self, failed: Step, errno: int, message: str) -> None:
        self.failed = failed
        self.step = str(failed.__struct_config__.tag)  # its name, as "new_root"
        self.errno = errno
        self.message = message
        super().__init__(f"{self.step}: {message}")


def refused(code: int, message: str) -> OSError:
    """An OSError for what the kernel did not refuse, but a check of ours."""
    return OSError(code, message)
