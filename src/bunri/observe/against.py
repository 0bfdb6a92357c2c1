"""Runs in: the process that asks, with its user's rights. A running process against a policy: what differs.

The same look that a monitor takes at each of its workers (confine/looking.py), taken later and by somebody else. What only
the monitor knew (which descriptors it handed over, how large the template was) is not compared.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from bunri.confine import Part, Sight, look
from bunri.confine.looking import Difference, Unreadable
from bunri.observe.facts import SETS, Facts, capability_names
from bunri.observe.subject import Subject
from bunri.plan import Shape
from bunri.policy.user import UserKind
from bunri.process.identity import resolve
from bunri.process.users import FIRST, LAST


class Comparison(msgspec.Struct, frozen=True):
    """One process against one policy."""

    pid: int
    subject: str
    right: tuple[str, ...]
    differences: tuple[tuple[str, str, str], ...]  # field, expected, seen
    hidden: tuple[tuple[str, str], ...]  # field, why it could not be read


def compare(facts: Facts, subject: Subject) -> Comparison:
    """HostError where the policy could not be kept here at all."""
    expected = subject.plan.expected
    user = subject.settled.settled().user
    identity = resolve(user, None) if subject.host.is_root else None
    sight = Sight(template=facts.parent if subject.needs.shape is Shape.WORKER else None)
    if identity is not None:
        sight = replace(sight, uid=identity.uid, gid=identity.gid, groups=identity.groups)
    looks = [look(facts.pid, expected, part, sight) for part in (Part.EARLY, Part.LATE)]
    differences = [_line(each) for one in looks for each in one.differences]
    if subject.host.is_root and user.kind is UserKind.DYNAMIC and not _is_dynamic(facts):
        differences.append(("uid", f"one of its own, {FIRST} to {LAST}", str(facts.uids)))
    return Comparison(
        facts.pid,
        subject.name,
        tuple(field for one in looks for field in one.right),
        tuple(differences),
        tuple(_reason(each) for one in looks for each in one.unreadable),
    )


def _is_dynamic(facts: Facts) -> bool:
    return len(set(facts.uids)) == 1 and FIRST <= facts.uids[0] <= LAST


def _line(each: Difference) -> tuple[str, str, str]:
    if each.field in SETS:
        return f"capabilities {each.field}", _names(each.expected), _names(each.seen)
    return (each.field, each.expected, each.seen)


def _names(mask: str) -> str:
    return ", ".join(capability_names(int(mask, 16))) or "none"


def _reason(each: Unreadable) -> tuple[str, str]:
    return each.field, str(each)
