"""Runs in: the process that writes the policy; pure. Checks what a policy says of system calls.

Apart from the other fields, since most policies say nothing of them, and the tables of calls are large.
"""

from __future__ import annotations

from bunri import seccomp
from bunri.errors import UsageError
from bunri.policy import _parse
from bunri.policy._fields import short
from bunri.policy.words import DANGEROUS, JIT

_ACTIONS = (seccomp.Kind.ALLOW, seccomp.Kind.LOG, seccomp.Kind.ERRNO, seccomp.Kind.KILL)


def parse(entries: list[object], where: str) -> tuple[str | seccomp.Rule, ...]:
    """Names, groups ("@name") and rules: they allow, or refuse what would be allowed else. Attack-shaped names only with
    "dangerous_" before them."""
    listed: list[str | seccomp.Rule] = []
    for index, entry in enumerate(entries):
        here = f"{where}[{index}]"
        if isinstance(entry, seccomp.Rule):
            if entry.action.kind not in _ACTIONS:
                raise UsageError(f"{here}: {entry} neither allows nor refuses. Write seccomp.allow, log, deny or kill")
            grant: str | seccomp.Rule = entry
        elif isinstance(entry, str):
            grant = _named_calls(entry, here)
        else:
            raise UsageError(
                f"{here}: {short(entry)} is no system call. "
                'Write a name as "flock", a group as "@flock", or seccomp.allow(...)'
            )
        if grant not in listed:
            listed.append(grant)
    return tuple(listed)


def _named_calls(entry: str, where: str) -> str:
    if entry == JIT:
        return entry
    if entry.startswith(DANGEROUS):
        name = entry.removeprefix(DANGEROUS)
        if name not in seccomp.ATTACK_SHAPED:
            raise UsageError(f"{where}: {name!r} is not attack-shaped. {_parse.nearest(name, seccomp.ATTACK_SHAPED)}")
        return entry
    if entry in seccomp.ATTACK_SHAPED:
        raise UsageError(
            f"{where}: {entry!r} is attack-shaped: {seccomp.ATTACK_REASONS[entry]}. "
            f"A program that truly needs it writes {DANGEROUS + entry!r}"
        )
    if not entry.startswith("@") and not seccomp.is_known(entry) and entry in seccomp.groups():
        entry = "@" + entry
    try:
        seccomp.allow(entry, reason="checked")
    except UsageError as fault:
        raise UsageError(f"{where}: {fault}") from None
    return entry
