"""Runs in: the template, which makes its workers' steps ready; the worker does them in one loop, losing its rights.

`carry_out` goes through a module and a check for each step; here the same system calls stand in one list (see
`bunri.kernel.prepared` for why). A step is made ready only if its calls and arguments are all known before the clone:
else the whole plan goes through `carry_out`. Whether they had their effect is looked at from outside, field by field.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bunri.confine.carry import SECUREBITS, ruleset_of
from bunri.confine.context import StepFailed
from bunri.kernel import capability, descriptors, prctl, prepared, rlimit
from bunri.kernel.prepared import Call
from bunri.plan import steps as s

_CAPABILITY_VERSION = 0x20080522
_JOIN_SESSION_KEYRING = 1
_SET_MODE_FILTER, _TSYNC = 1, 1
_HIGH = 64  # the ruleset stands above whatever a worker makes before its steps


class Ready(msgspec.Struct):
    """The calls of one plan's worker steps. `uids` and `gids` are the arguments to be filled in for one worker."""

    calls: list[Call] = msgspec.field(default_factory=list[Call])
    steps: list[s.AnyStep] = msgspec.field(default_factory=list[s.AnyStep])  # of each call
    uids: list[list[Any]] = msgspec.field(default_factory=list[list[Any]])
    gids: list[list[Any]] = msgspec.field(default_factory=list[list[Any]])
    kept: list[Any] = msgspec.field(default_factory=list[Any])  # memory that the calls point to

    def fill_in(self, uid: int | None, gid: int | None) -> None:
        """The next worker's ids."""
        for arguments in self.uids:
            arguments[1:4] = (uid, uid, uid)
        for arguments in self.gids:
            arguments[1:4] = (gid, gid, gid)

    def fault(self, index: int) -> StepFailed:
        """The call at `index` was refused, just now."""
        code = ctypes.get_errno() or errno.EINVAL
        return StepFailed(self.steps[index], code, os.strerror(code))


class Surround(msgspec.Struct, frozen=True):
    """What the template knows beyond the plan.

    `image`: bytes that RLIMIT_AS adds to. `channel`: the descriptor whose other end is the monitor's.
    `first_free`: all descriptors from here on are closed.
    """

    image: int
    channel: int
    first_free: int


def prepare(steps: Sequence[s.AnyStep], around: Surround) -> Ready | None:
    """The steps as calls; None where one of them cannot be made ready."""
    if any(type(step) not in _READY for step in steps):
        return None
    ready = Ready()
    for step in steps:
        found = _READY[type(step)](step, around, ready)
        if found is None:
            return None
        ready.calls += found
        ready.steps += [step] * len(found)
    return ready


def _session(step: s.NewSession, around: Surround, ready: Ready) -> list[Call] | None:
    return [prepared.call("setsid")]


def _keyring(step: s.Keyring, around: Surround, ready: Ready) -> list[Call] | None:
    return [prepared.call("keyctl", _JOIN_SESSION_KEYRING)]


def _bounding(step: s.DropBounding, around: Surround, ready: Ready) -> list[Call] | None:
    numbers = [n for n in range(capability.last() + 1) if n not in step.keep]
    drops = [prepared.call("prctl", prctl.CAPBSET_DROP, number, most=0) for number in numbers]
    return [*drops, prepared.call("prctl", prctl.CAP_AMBIENT, prctl.AMBIENT_CLEAR_ALL, most=0)]


def _securebits(step: s.Securebits, around: Surround, ready: Ready) -> list[Call] | None:
    return [prepared.call("prctl", prctl.SET_SECUREBITS, SECUREBITS, most=0)]


def _ids(step: s.SetIds, around: Surround, ready: Ready) -> list[Call] | None:
    if step.groups_of_request:
        return None  # their number is not known
    calls: list[Call] = []
    if step.groups is not None and set(step.groups) != set(os.getgroups()):
        groups = prepared.ids(*step.groups)
        ready.kept.append(groups)
        calls.append(prepared.call("setgroups", len(step.groups), groups, most=0))
    gids = prepared.call("setresgid", *[step.gid] * 3, most=0)
    uids = prepared.call("setresuid", *[step.uid] * 3, most=0)
    if step.gid is None:
        ready.gids.append(gids[0])
    if step.uid is None:
        ready.uids.append(uids[0])
    return [*calls, gids, uids]


def _capabilities(step: s.SetCapabilities, around: Surround, ready: Ready) -> list[Call] | None:
    mask = capability.mask_of(step.keep)
    header = prepared.ids(_CAPABILITY_VERSION, 0)
    sets = prepared.ids(*[mask & 0xFFFFFFFF] * 3, *[mask >> 32] * 3)
    ready.kept += [header, sets]
    return [prepared.call("capset", header, sets, most=0)]


def _limits(step: s.Limits, around: Surround, ready: Ready) -> list[Call] | None:
    values = dict(step.values)
    if step.above_image is not None:
        values["AS"] = around.image + step.above_image
    calls: list[Call] = []
    for name, value in values.items():
        pair = prepared.words(value, value)
        ready.kept.append(pair)
        calls.append(prepared.call("prlimit64", 0, rlimit.NUMBERS[name], pair, most=0))
    return calls


def _parent_death(step: s.ParentDeath, around: Surround, ready: Ready) -> list[Call] | None:
    """The signal, and a look whether somebody still holds the other end of the channel: POLLHUP is always told."""
    polled = prepared.ids(around.channel, 0)  # struct pollfd: fd, events and revents
    at_once = prepared.words(0, 0)
    ready.kept += [polled, at_once]
    armed = prepared.call("prctl", prctl.SET_PDEATHSIG, int(signal.SIGKILL), most=0)
    return [armed, prepared.call("ppoll", polled, 1, at_once, None, 8, most=0)]


def _landlock(step: s.Landlock, around: Surround, ready: Ready) -> list[Call] | None:
    """The ruleset is made here, where the same files stand as in the worker's root: none of these steps mounts anything.
    What restrict_self makes of it is each worker's own domain."""
    try:
        made = ruleset_of(step)
    except OSError:
        return None  # the worker meets it again, and says which step that was
    try:
        ruleset = descriptors.duplicate_above(made, _HIGH)
    finally:
        os.close(made)
    return [prepared.call("landlock_restrict_self", ruleset, most=0)]


def _descriptors(step: s.CloseDescriptors, around: Surround, ready: Ready) -> list[Call] | None:
    return [prepared.call("close_range", around.first_free, descriptors.LAST, most=0)]


def _not_dumpable(step: s.NotDumpable, around: Surround, ready: Ready) -> list[Call] | None:
    return [prepared.call("prctl", prctl.SET_DUMPABLE, most=0)]


def _filter(step: s.Filter, around: Surround, ready: Ready) -> list[Call] | None:
    if step.listener:
        return None
    code = ctypes.create_string_buffer(step.program, len(step.program))
    program = prepared.words(len(step.program) // 8, ctypes.addressof(code))  # struct sock_fprog, padded
    ready.kept += [code, program]
    return [prepared.call("seccomp", _SET_MODE_FILTER, _TSYNC, program, most=0)]


_READY: dict[type, Callable[[Any, Surround, Ready], list[Call] | None]] = {
    s.NewSession: _session,
    s.Keyring: _keyring,
    s.DropBounding: _bounding,
    s.Securebits: _securebits,
    s.SetIds: _ids,
    s.SetCapabilities: _capabilities,
    s.Limits: _limits,
    s.ParentDeath: _parent_death,
    s.Landlock: _landlock,
    s.CloseDescriptors: _descriptors,
    s.NotDumpable: _not_dumpable,
    s.Filter: _filter,
}
