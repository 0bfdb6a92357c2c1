"""Runs in: the process that makes a plan. Out: a program as a container's seccomp profile (OCI config-linux.md).

A profile has no order and, of one call, at most one test per argument in a rule. So each call is written as
alternatives that exclude each other: exact, or said to be left out. The default action answers calls that no table knows; what our
default answers stands in the profile by name, as containers-common does it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bunri.errors import UsageError
from bunri.seccomp._alternatives import MOST, Tests, TooManyError, decisions
from bunri.seccomp._names import KERNEL_OF_TABLES, syscalls_of
from bunri.seccomp._oci import ACTIONS, SCMP_ARCH
from bunri.seccomp.actions import Action, Kind
from bunri.seccomp.imported import Exported
from bunri.seccomp.program import Program, Source

_COMPARISONS: Final = {
    "==": "SCMP_CMP_EQ",
    "!=": "SCMP_CMP_NE",
    "<=": "SCMP_CMP_LE",
    ">=": "SCMP_CMP_GE",
    "&": "SCMP_CMP_MASKED_EQ",
}
_SPELLED: Final = {kind: name for name, kind in ACTIONS.items() if name != "SCMP_ACT_KILL"}
_GOES_ON: Final = frozenset({Kind.ALLOW, Kind.LOG})
_Decision = tuple[Action, tuple[Tests, ...]]


def to_oci(program: Program) -> Exported:
    """The profile, for the program's architecture. UsageError for a program without rules (read back from bytes), and
    where leaving something out would let it through."""
    source = program.source
    if source is None:
        raise UsageError("a program that was read back from bytes has no rules to export; see listing()")
    left_out = [] if source.unknown == source.default else [_about_unknown(source)]
    together: dict[_Decision, list[str]] = {}
    for call in sorted(syscalls_of(program.arch)):
        for action, tests in _decisions(source, call, left_out):
            together.setdefault((action, tests), []).append(call)
    entries = [entry for (action, tests), names in together.items() for entry in _entries(names, action, tests)]
    profile: dict[str, Any] = {
        **_action("defaultAction", "defaultErrnoRet", source.unknown),
        "architectures": [SCMP_ARCH[program.arch]],
        "syscalls": entries,
    }
    if any(rule.action.kind is Kind.NOTIFY for rule in source.rules):
        left_out.append("SCMP_ACT_NOTIFY: the runtime wants a listenerPath beside it")
    return Exported(json.dumps(profile, indent=2) + "\n", tuple(left_out))


def _about_unknown(source: Source) -> str:
    return (
        f"the default action is the answer for unknown calls, {source.unknown}; "
        f"calls known to Linux {KERNEL_OF_TABLES} get {source.default} by name"
    )


def _decisions(source: Source, call: str, left_out: list[str]) -> list[_Decision]:
    """(action, lists of tests) of one call, excluding each other; no tests: always."""
    rules = [(source.rules[index].when, source.rules[index].action) for index in source.asked.get(call, ())]
    try:
        found: dict[Action, list[Tests]] = {}
        for tests, action in decisions(rules, source.default, source.unknown):
            found.setdefault(action, []).append(tests)
    except TooManyError:
        strictest = next((one for one in (source.default, source.unknown) if one.kind not in _GOES_ON), None)
        if strictest is None:
            raise UsageError(
                f"the conditions of {call} make more than {MOST} rules without an order, and left out they let it through"
            ) from None
        left_out.append(f"{call}: its conditions make more than {MOST} rules without an order; it gets {strictest}")
        found = {strictest: [()]} if strictest != source.unknown else {}
    return [(action, tuple(tests)) for action, tests in found.items()]


def _entries(names: list[str], action: Action, lists: tuple[Tests, ...]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for tests in lists:
        entry: dict[str, Any] = {"names": names, **_action("action", "errnoRet", action)}
        if tests:
            entry["args"] = [
                {"index": arg, "value": value, "valueTwo": second, "op": _COMPARISONS[relation]}
                for arg, relation, value, second in tests
            ]
        made.append(entry)
    return made


def _action(key: str, number: str, action: Action) -> dict[str, Any]:
    spelled: dict[str, Any] = {key: _SPELLED[action.kind]}
    if action.kind is Kind.ERRNO:
        spelled[number] = action.data
    return spelled
