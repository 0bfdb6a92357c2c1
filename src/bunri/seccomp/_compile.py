"""Runs in: the process that makes a plan. From rules to a program.

Order of the program, and why:

1. the architecture: the same number means another call elsewhere (THREATS 15); anything but ours dies;
2. on x86-64, numbers of x32: the same calls by other numbers; they die;
3. a binary search over ranges of numbers that end in the same way. Calls without conditions end in a return right
there, so the
   kernel's table of always-allowed calls (since 5.11) serves them without running the program at all;
4. the argument checks of the few calls that have some.

A number that the table does not know, above its newest or in a hole, gets `unknown`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from bunri.errors import UsageError
from bunri.seccomp._assemble import ARCH, JEQ, JGE, NUMBER, Assembler, Instruction, Node
from bunri.seccomp._lower import lower
from bunri.seccomp._names import AUDIT_ARCH, X32_BIT, syscalls_of
from bunri.seccomp.actions import Action, Kind
from bunri.seccomp.conditions import implies
from bunri.seccomp.presets import escaping_clones
from bunri.seccomp.program import Program, Source
from bunri.seccomp.rules import Rule

_GOES_ON = frozenset({Kind.ALLOW, Kind.LOG})
_Asked = dict[str, tuple[int, ...]]


def compile(
    rules: Iterable[Rule],
    *,
    arch: str = "x86_64",
    default: Action = Action.errno(errno.EPERM),  # noqa: B008  (a frozen constant)
    unknown: Action = Action.errno(errno.ENOSYS),  # noqa: B008
) -> Program:
    """The filter for `arch` that these rules mean. For one call, the first rule whose condition holds decides.

    `default` answers known calls that no rule decides, `unknown` those newer than our table. Cached by value.
    UsageError if a rule can never decide a call that it names, if a condition changes nothing because a broader rule
    allows the call anyway, if clone could make namespaces (`clone_rules`), or if the program is longer than the kernel
    takes (4096 instructions).
    """
    return _compiled(tuple(rules), arch, default, unknown)


@lru_cache(maxsize=256)
def _compiled(rules: tuple[Rule, ...], arch: str, default: Action, unknown: Action) -> Program:
    asked = _asked(rules, arch)
    for narrow, broad, call in moot(rules):
        if call in rules[narrow].named:
            raise _no_effect(rules, narrow, broad, call)
    _refuse_escaping_clones(rules, asked)
    instructions = _instructions(rules, asked, arch, default, unknown)
    return Program(arch, instructions, Source(rules, default, unknown, asked))


def _asked(rules: tuple[Rule, ...], arch: str) -> _Asked:
    """For each call of `arch` that a rule mentions: the rules to ask, in order, up to the first without a condition."""
    table = syscalls_of(arch)
    asked: dict[str, list[int]] = {}
    for index, rule in enumerate(rules):
        for call in rule.calls:
            if call not in table:
                continue
            before = asked.setdefault(call, [])
            covering = next((one for one in before if implies(rule.when, rules[one].when)), None)
            if covering is None:
                before.append(index)
            elif call in rule.named and rules[covering].action != rule.action:
                raise _meaningless(rules, covering, index, call)
    return {call: tuple(indices) for call, indices in asked.items()}


def _meaningless(rules: tuple[Rule, ...], covering: int, index: int, call: str) -> UsageError:
    return UsageError(
        f"rule {index + 1}, {rules[index]}, can never decide {call!r}: rule {covering + 1}, {rules[covering]}, "
        "is asked before it and holds whenever it does. Put the narrower rule first, or drop one of them"
    )


def moot(rules: Sequence[Rule]) -> Iterator[tuple[int, int, str]]:
    """(narrow, broad, call) for each condition of an allowing rule that changes nothing: the broad rule lets the call
    go on whenever the narrow one does, and otherwise too.

    Whoever wrote the condition believes that the call is bound by it. A refusal more or less is no such danger.
    """
    seen: dict[str, list[int]] = {}
    for index, rule in enumerate(rules):
        for call in sorted(rule.calls):
            before = seen.setdefault(call, [])
            if rule.action.kind in _GOES_ON:
                yield from ((*pair, call) for pair in _moot(rules, before, index))
            before.append(index)


def _moot(rules: Sequence[Rule], before: Sequence[int], index: int) -> Iterator[tuple[int, int]]:
    rule = rules[index]
    for one in reversed(before):
        if rules[one].action != rule.action:
            return  # it stands between them, and may decide otherwise
        if implies(rules[one].when, rule.when):
            if not implies(rule.when, rules[one].when):
                yield one, index
        elif implies(rule.when, rules[one].when):
            yield index, one


def _no_effect(rules: Sequence[Rule], narrow: int, broad: int, call: str) -> UsageError:
    return UsageError(
        f"rule {narrow + 1}, {rules[narrow]}, does not narrow {call!r}: rule {broad + 1}, {rules[broad]}, lets it go on "
        f"whatever the condition says. Before both, refuse what is not wanted: deny({call!r}, when=..., ...); "
        "or drop one of the two"
    )


def _refuse_escaping_clones(rules: tuple[Rule, ...], asked: _Asked) -> None:
    """THREATS 15: such clones are attack-shaped by an argument, so `allow` cannot tell by the name."""
    for call, flags in escaping_clones():
        deciding = (rules[index] for index in asked.get(call, ()))
        rule = next((rule for rule in deciding if rule.when is None or rule.when.holds((flags, 0, 0, 0, 0, 0))), None)
        if rule is not None and rule.goes_on:
            raise UsageError(
                f"{rule} lets {call} with flags {flags:#x} go on, which makes namespaces or escaping children. "
                "Put clone_rules(...) before it; a program that truly needs it writes dangerous_allow"
            )


def _instructions(
    rules: tuple[Rule, ...], asked: _Asked, arch: str, default: Action, unknown: Action
) -> tuple[Instruction, ...]:
    out = Assembler()
    kill = out.ret(Action.KILL.value)
    otherwise = out.ret(unknown.value)
    known = out.ret(default.value)
    made: dict[tuple[int, ...], Node] = {(): known}
    pieces: list[tuple[int, int, Node]] = []
    for call, number in syscalls_of(arch).items():
        indices = asked.get(call, ())
        if indices not in made:
            made[indices] = _decision(out, [rules[index] for index in indices], known)
        pieces.append((number, number, made[indices]))
    entry = out.search(pieces, otherwise)
    if arch == "x86_64":
        entry = out.jump(JGE, X32_BIT, kill, entry)
    entry = out.load(NUMBER, entry)
    entry = out.jump(JEQ, AUDIT_ARCH[arch], entry, kill)
    return out.finish(out.load(ARCH, entry))


def _decision(out: Assembler, rules: list[Rule], otherwise: Node) -> Node:
    """Ask the rules of one call in order; `otherwise` if none holds."""
    node = otherwise
    for rule in reversed(rules):
        answer = out.ret(rule.action.value)
        node = answer if rule.when is None else lower(out, rule.when, answer, node)
    return node
