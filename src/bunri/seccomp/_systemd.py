"""Runs in: the process that makes a plan. systemd's SystemCallFilter= in and out (systemd.exec(5), version 252).

What the lines mean there: the first one says whether the list allows or refuses, later ones add and take away; a list
that allows begins with @default; `name:EPERM` and `name:kill` give one call an answer of its own, SystemCallErrorNumber=
all the others. systemd looks at no arguments.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp._names import is_known, syscalls_of
from bunri.seccomp.actions import Action, Kind
from bunri.seccomp.groups import group
from bunri.seccomp.imported import Exported, Imported, imported_rules
from bunri.seccomp.program import Program, Source
from bunri.seccomp.rules import Rule

LARGEST_UNIT: Final = 1 << 20  # characters
_FILTER: Final = "SystemCallFilter"
_ERROR: Final = "SystemCallErrorNumber"
_ABOUT_OTHER: Final = ("SystemCallArchitectures", "SystemCallLog", "RestrictNamespaces", "RestrictAddressFamilies",
                       "MemoryDenyWriteExecute", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality",
                       "ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
                       "PrivateDevices")  # fmt: skip
_NUMBERS: Final = {name: number for number, name in errno.errorcode.items()}
_GOES_ON: Final = frozenset({Kind.ALLOW, Kind.LOG})


def from_systemd(unit: str) -> Imported:
    """The rules of the SystemCallFilter= and SystemCallErrorNumber= lines in `unit`; other settings are passed over.

    Settings that systemd makes filters of as well (MemoryDenyWriteExecute= ...) are listed in `left_out`. UsageError,
    with the line, for what systemd would not take, and for text without such a line.
    """
    if len(unit) > LARGEST_UNIT:
        raise UsageError(f"a unit of {len(unit)} characters is longer than {LARGEST_UNIT}: not read")
    reading = _Reading()
    for number, line in _lines(unit):
        key, equals, value = line.partition("=")
        key, value, where = key.strip(), value.strip(), f"line {number}"
        if not equals:
            continue
        if key == _FILTER:
            reading.add(where, value)
        elif key == _ERROR:
            reading.refusal = _refusal(where, value) if value else Action.KILL
        elif key in _ABOUT_OTHER and (key, value) != ("SystemCallArchitectures", "native"):
            reading.left_out.append(f"{where}: {line.strip()} is a filter of its own, which is not read")
    return reading.result()


def _lines(unit: str) -> Iterable[tuple[int, str]]:
    """Numbered lines without comments; a backslash at the end joins two."""
    joined, began = "", 0
    for number, line in enumerate(unit.split("\n"), 1):
        if line.lstrip().startswith(("#", ";")):
            continue
        began = began or number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield began, joined + line
        joined, began = "", 0
    if joined:
        yield began, joined


class _Reading:
    """The list as it grows, line by line."""

    def __init__(self) -> None:
        self.left_out: list[str] = []
        self.refusal = Action.KILL
        self._allows: bool | None = None  # None: no line so far
        self._answers: dict[str, Action | None] = {}  # None: what the list does

    def add(self, where: str, value: str) -> None:
        if not value:  # an empty assignment forgets the ones before
            self._allows, self._answers = None, {}
            return
        takes_away = value.startswith("~")
        if self._allows is None:
            self._allows = not takes_away
            if self._allows:
                self._answers.update(dict.fromkeys(group("@default")))
        for word in value.removeprefix("~").split():
            name, colon, spelled = word.partition(":")
            answer = _refusal(where, spelled) if colon else None
            for call in self._calls(where, name):
                if takes_away is not self._allows or (takes_away and answer is not None):
                    self._answers[call] = answer
                else:
                    self._answers.pop(call, None)

    def result(self) -> Imported:
        if self._allows is None:
            raise UsageError(f"there is no {_FILTER}= line that is in force: such a unit has no filter")
        self.left_out.append("calls of other ABIs: a program of ours kills them, as SystemCallArchitectures=native")
        usual, default = (Action.ALLOW, self.refusal) if self._allows else (self.refusal, Action.ALLOW)
        together: dict[Action, list[str]] = {}
        for call, answer in self._answers.items():
            together.setdefault(answer or usual, []).append(call)
        rules: list[Rule] = []
        for action, calls in together.items():
            rules += imported_rules(calls, action, None, f"{_FILTER}=")
        return Imported("systemd", tuple(rules), default, default, tuple(self.left_out))

    def _calls(self, where: str, name: str) -> tuple[str, ...]:
        if name.startswith("@"):
            try:
                return group(name)
            except UsageError as fault:
                raise UsageError(f"{where}: {fault}") from None
        if not is_known(name):  # systemd warns and goes on
            self.left_out.append(f"{where}: no call of our architectures is named {name!r}")
            return ()
        return (name,)


def _refusal(where: str, spelled: str) -> Action:
    if spelled == "kill":
        return Action.KILL
    number = _NUMBERS.get(spelled, int(spelled) if spelled.isascii() and spelled.isdigit() and len(spelled) < 6 else 0)
    if not 0 < number <= 4095:
        raise UsageError(f"{where}: {spelled!r} is neither 'kill' nor an errno's name or number")
    return Action.errno(number)


def to_systemd(program: Program) -> Exported:
    """The program as lines for a [Service] section.

    systemd looks at no arguments: a call that conditions let through sometimes is refused there always, and listed in
    `left_out`. UsageError for a program without rules (read back from bytes).
    """
    source = program.source
    if source is None:
        raise UsageError("a program that was read back from bytes has no rules to export; see listing()")
    return _Writing(program.arch, source).result()


class _Writing:
    def __init__(self, arch: str, source: Source) -> None:
        self.left_out: list[str] = []
        self._arch = arch
        self._source = source
        self._default = self._sayable("what no rule decides", source.default)

    def result(self) -> Exported:
        answers = {call: self._answer(call) for call in sorted(syscalls_of(self._arch))}
        allowed = [call for call, action in answers.items() if action == Action.ALLOW]
        allows = self._default != Action.ALLOW
        lines = ["SystemCallArchitectures=native"]
        if self._default.kind is Kind.ERRNO:
            lines.append(f"{_ERROR}={_spelled(self._default)}")
        if allows:
            # Without a name of ours the list would still hold @default.
            lines.append(f"{_FILTER}={' '.join(allowed) or '@default'}")
            refused = [call for call in group("@default") if answers.get(call, self._default) == self._default]
            lines += [f"{_FILTER}=~{' '.join(refused)}"] if refused else []
        own = {call: action for call, action in answers.items() if action not in (Action.ALLOW, self._default)}
        if own:
            lines.append(f"{_FILTER}=~{' '.join(f'{call}:{_spelled(action)}' for call, action in own.items())}")
        elif not allows:
            raise UsageError("a program that refuses no call for certain makes no SystemCallFilter=")
        if self._source.unknown != self._default:
            self.left_out.append(f"calls newer than systemd's tables get {self._default}, not {self._source.unknown}")
        return Exported("\n".join(lines) + "\n", tuple(self.left_out))

    def _answer(self, call: str) -> Action:
        """What systemd is to do with a call whatever its arguments are: the first refusal, if there is any."""
        rules = [self._source.rules[index] for index in self._source.asked.get(call, ())]
        actions = [rule.action for rule in rules]
        if not any(rule.when is None for rule in rules):
            actions.append(self._source.default)
        said = [self._sayable(call, action) for action in actions]
        refusals = [action for action in said if action != Action.ALLOW]
        answer = refusals[0] if refusals else Action.ALLOW
        if len(set(said)) > 1:
            self.left_out.append(f"{call}: its conditions cannot be said; it gets {answer}, whatever its arguments are")
        return answer

    def _sayable(self, what: str, action: Action) -> Action:
        """The nearest answer that systemd has."""
        if action.kind in (Kind.ALLOW, Kind.KILL) or (action.kind is Kind.ERRNO and action.data):
            return action
        nearest = Action.ALLOW if action.kind in _GOES_ON else Action.KILL
        sentence = f"{what}: systemd has no {action} here; it gets {nearest}"
        if sentence not in self.left_out:
            self.left_out.append(sentence)
        return nearest


def _spelled(action: Action) -> str:
    return "kill" if action.kind is Kind.KILL else errno.errorcode.get(action.data, str(action.data))
