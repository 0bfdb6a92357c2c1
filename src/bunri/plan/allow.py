"""Runs in: the process that makes a plan; pure. The two filters of a worker, derived from policy, needs and means.

Why two. The template carries the worker's list already, so that a fork inherits the big program; but the template and
the worker's own last steps need more (setresuid, capset, seccomp itself). So:

- the *template's* filter is the worker's list and, before it, exactly what those steps need;
- the *top-up*, the worker's last step, takes that more away again. The kernel obeys the strictest of both (seccomp(2)).

Attack-shaped calls are death in both, but for those that a step of this plan makes; the top-up kills those too.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from bunri import seccomp
from bunri.plan import _calls, brokered
from bunri.plan.means import Means
from bunri.plan.needs import Shape
from bunri.plan.steps import (
    AnyStep,
    Checkpoint,
    CloseDescriptors,
    DropBounding,
    Filter,
    Keyring,
    Label,
    Landlock,
    Limits,
    Mdwe,
    MountInRoot,
    NewSession,
    NoNewPrivs,
    NotDumpable,
    ParentDeath,
    Securebits,
    SetCapabilities,
    SetIds,
)
from bunri.policy.words import JIT, Profile
from bunri.seccomp import Action, Arg, Children, Program, Rule, allow, dangerous_allow
from bunri.seccomp._compile import moot

REFUSED: Final = Action.errno(errno.EPERM)
NO_MEMORY: Final = Action.errno(errno.ENOMEM)

_Section = Callable[[Means], list[Rule]]
_NOT_GRANTED: Final[tuple[_Section, ...]] = (_calls.set_ids, _calls.pairs, _calls.connecting_sends)
"""What no grant of the policy's `syscalls` gives."""
_SECTIONS: Final[tuple[_Section, ...]] = (
    _calls.base,
    brokered.paths,
    brokered.connections,
    _calls.metadata,
    _calls.attributes,
    _calls.files,
    _calls.handed_files,
    _calls.asynchronous,
    _calls.handles,
    _calls.sockets,
    _calls.host_network,
    _calls.pipes,
    _calls.children,
    _calls.program,
)


def worker_rules(means: Means) -> tuple[Rule, ...]:
    """The worker's list: what it may call in the end. For one call, the first rule whose condition holds decides."""
    dangerous = {str(entry).removeprefix("dangerous_") for entry in means.policy.syscalls if _is_dangerous(entry)}
    attack = seccomp.attack_rules(but=dangerous & seccomp.ATTACK_SHAPED)
    if means.policy.profile is Profile.COMPUTE:
        return (*attack, *_calls.compute())
    rules: list[Rule] = [*attack, *seccomp.clone_rules(_children(means))]
    for section in (*_NOT_GRANTED, _granted, *_SECTIONS):
        rules += section(means)
    return _settled(rules)


def worker_program(means: Means) -> Program:
    """The worker's whole list as one filter (`bunri.confine`, and where no template was there before)."""
    return seccomp.compile(worker_rules(means), arch=means.host.arch, default=_default(means))


def _whole(means: Means) -> Program:
    rules = _settled([*launcher_rules(means), *worker_rules(means)])
    if means.tells_denials:
        rules = tuple(map(_told, rules))
    return seccomp.compile(rules, arch=means.host.arch, default=_default(means))


def template_program(means: Means, steps: Sequence[AnyStep]) -> Program:
    """The worker's list, and what `steps` (the worker's) and the template's own life need."""
    if means.tells_denials:  # of two filters the strictest answer counts, and the last one is to be asked
        rule = allow("read", reason="development mode: the worker's own filter is the whole list")
        return seccomp.compile((rule,), arch=means.host.arch, default=Action.ALLOW, unknown=Action.ALLOW)
    rules = _template_rules(means, steps)
    if means.listens:  # what is notified later, by the last filter, must not be refused by this one
        rules = _settled(_let_through(rule) for rule in rules)
    return seccomp.compile(rules, arch=means.host.arch, default=REFUSED)


def top_up_program(means: Means, steps: Sequence[AnyStep]) -> Program:
    """What the template could and the worker must not. Everything else it lets through: the template's filter holds."""
    if means.policy.profile is Profile.COMPUTE or means.listens:
        return _whole(means)  # a filter with a listener is whole: of two, the stricter answer would count
    return _taken_away(means, _more(means, steps), launcher_rules(means))


def _taken_away(means: Means, rules_before: Sequence[Rule], kept: Sequence[Rule]) -> Program:
    """Of the calls in `rules_before`, what `kept` and the worker's list do not allow."""
    more = frozenset(call for rule in rules_before for call in rule.calls)
    list_ = _settled([*kept, *worker_rules(means)])
    rules = [narrowed for rule in list_ if (narrowed := _only(rule, more)) is not None]
    rest = more - {call for rule in rules if rule.when is None for call in rule.calls}
    if rest:
        rules.append(seccomp.deny(*sorted(rest), with_=REFUSED, reason="it was the template's, or a step's"))
    return seccomp.compile(rules, arch=means.host.arch, default=Action.ALLOW, unknown=Action.ALLOW)


def program_filter(means: Means) -> Program:
    """What a program must not have of what the worker needed that executes it; installed just before."""
    return _taken_away(means, launcher_rules(means), ())


def launcher_rules(means: Means) -> list[Rule]:
    """What the worker needs beyond its list to fork, and to execute a program in the child."""
    if means.needs.shape is not Shape.PROGRAM:
        return []
    plain = Arg(0).masked(_calls.WORD & ~_FORK) == 0
    install = (Arg(0).int32 == _SET_MODE_FILTER) & (Arg(1).int32 == 0)
    return [
        dangerous_allow("clone", when=plain, reason="it forks, once"),
        dangerous_allow("seccomp", when=install, reason="the last filter, before the program is executed"),
        allow("wait4", "waitid", "setsid", reason="it waits for the program, which has a session of its own"),
        allow("prctl", when=Arg(0).int32 == _PR_SET_PDEATHSIG, reason="the program does not outlive it"),
        allow("pipe2", "dup2", "dup3", "close_range", "chdir", reason="streams and folder of the program"),
    ]


def _template_rules(means: Means, steps: Sequence[AnyStep]) -> tuple[Rule, ...]:
    # For compute the template still is a Python process: it gets the ordinary list; the top-up is compute's.
    if means.policy.profile is Profile.COMPUTE:
        own = [*seccomp.attack_rules(), *seccomp.clone_rules(Children.NONE), *_calls.base(means)]
        return _settled([*_more(means, steps), *own])
    return _settled([*_more(means, steps), *launcher_rules(means), *worker_rules(means)])


def _default(means: Means) -> Action:
    if means.policy.profile is Profile.COMPUTE:
        return NO_MEMORY
    return Action.NOTIFY if means.tells_denials else REFUSED


def _is_dangerous(entry: str | Rule) -> bool:
    return isinstance(entry, str) and entry.startswith("dangerous_")


def _children(means: Means) -> Children:
    made = Children.NONE
    if means.policy.threads:
        made |= Children.THREADS
    if means.policy.processes:
        made |= Children.PROCESSES
    return made


def _granted(means: Means) -> list[Rule]:
    """The policy's own `syscalls`."""
    rules: list[Rule] = []
    for entry in means.policy.syscalls:
        if entry == JIT:
            continue  # no call: a step is left out
        if isinstance(entry, Rule):
            rules.append(entry)
        elif _is_dangerous(entry):
            name = entry.removeprefix("dangerous_")
            rules.append(dangerous_allow(name, reason="granted by the policy, with its danger spelled"))
        else:
            rules.append(allow(entry, reason="granted by the policy"))
    return rules


# What the template and the worker's last steps need ---------------------------------------------------------------

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECUREBITS, _PR_CAPBSET_READ = 1, 4, 28, 23
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_MDWE = 24, 38, 47, 65
_PR_SET_THP_DISABLE = 41
_JOIN_SESSION_KEYRING = 1
_PIDFD_SELF, _MADV_POPULATE_WRITE = -10000, 23
_SET_MODE_FILTER = 1
_REGISTER_BUFFERS, _UNREGISTER_BUFFERS = 0, 1
_FORK = 0x00200000 | 0x01000000 | 0xFF  # CHILD_CLEARTID, CHILD_SETTID, the signal: what fork(3) makes of clone(2)
_CLONE_NOT_A_CHILD = 0x100 | 0x8000 | 0x10000 | 0x800000  # VM PARENT THREAD UNTRACED

_MOUNT = ("fsopen", "fsconfig", "fsmount", "move_mount", "open_tree", "mount_setattr", "mount", "umount2")
_PRCTL: Final[dict[type, tuple[int, ...]]] = {
    ParentDeath: (_PR_SET_PDEATHSIG,),
    NotDumpable: (_PR_SET_DUMPABLE,),
    Checkpoint: (_PR_SET_DUMPABLE,),
    Securebits: (_PR_SET_SECUREBITS,),
    DropBounding: (_PR_CAPBSET_DROP, _PR_CAPBSET_READ, _PR_CAP_AMBIENT),
    NoNewPrivs: (_PR_SET_NO_NEW_PRIVS,),
    Mdwe: (_PR_SET_MDWE,),
}


def _more(means: Means, steps: Sequence[AnyStep]) -> list[Rule]:
    """Rules for the template's life and for exactly these steps."""
    rules = _template_life(means)
    kinds = {type(step) for step in steps}
    options = {option for kind in kinds for option in _PRCTL.get(kind, ())}
    if means.pins:
        options.add(_PR_SET_THP_DISABLE)  # its template's
    if options:
        rules.append(allow("prctl", when=Arg(0).int32.one_of(*sorted(options)), reason="steps: prctl"))
    if NewSession in kinds:
        rules.append(allow("setsid", reason="step: a session of its own"))
    if Keyring in kinds:
        join = Arg(0).int32 == _JOIN_SESSION_KEYRING
        rules.append(dangerous_allow("keyctl", when=join, reason="step: a fresh session keyring"))
    if SetIds in kinds:
        rules.append(allow("setgroups", "setresgid", "setresuid", "getgroups", reason="step: its own ids"))
    if kinds & {SetCapabilities, DropBounding, Securebits}:
        rules.append(allow("capset", "capget", reason="step: capabilities"))
    if Landlock in kinds:
        names = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
        rules.append(allow(*names, reason="step: Landlock"))
        if any(isinstance(step, Landlock) and step.paths for step in steps):
            rules.append(allow("openat", "newfstatat", "statx", "fstat", reason="step: Landlock's paths"))
    if Label in kinds:
        rules.append(allow("openat", reason="step: its own label, below a descriptor of /proc"))
    if MountInRoot in kinds:
        rules.append(dangerous_allow(*_MOUNT, reason="step: its own file systems"))
        rules.append(allow("openat", "mkdirat", "newfstatat", "statx", "fchdir", "chdir", reason="step: where they go"))
    if Limits in kinds:
        rules.append(allow("prlimit64", reason="step: limits"))
    if CloseDescriptors in kinds:
        rules.append(allow("close_range", "getdents64", reason="step: descriptors"))
    if Filter in kinds:
        install = Arg(0).int32 == _SET_MODE_FILTER
        rules.append(dangerous_allow("seccomp", when=install, reason="step: the filter itself"))
    return rules


def _template_life(means: Means) -> list[Rule]:
    """Clone, hear, tell, reap; and what a worker does before its steps: take its places, make a loop."""
    loop = ("epoll_create1", "epoll_ctl", "getsockname", "getpeername")
    own = (Arg(0).int32 == _PIDFD_SELF) & (Arg(3).int32 == _MADV_POPULATE_WRITE)
    rules = [
        dangerous_allow("clone3", reason="the template makes workers"),
        allow("sendmsg", "recvmsg", "pidfd_send_signal", "pidfd_open", reason="the template hears and tells"),
        allow("wait4", "waitid", "poll", "ppoll", "pipe2", reason="the template reaps"),
        allow("mmap", when=Arg(2).masked(_calls.PROT_EXEC) == 0, reason="the worker maps its arena"),
        dangerous_allow(
            "process_madvise", when=own, reason="the worker copies what it will write to, of its own memory"
        ),
        allow("dup2", "dup3", "close_range", "fcntl", "ioctl", reason="the worker takes its places"),
        allow("socketpair", when=Arg(0).int32 == _calls.AF_UNIX, reason="the worker makes its loop"),
        allow(*loop, reason="the worker makes its loop"),
    ]
    if means.pins:
        hold = Arg(1).int32.one_of(_REGISTER_BUFFERS, _UNREGISTER_BUFFERS)
        reason = "the template pins what its workers will write to, by a ring that does nothing else"
        rules.append(dangerous_allow("io_uring_register", when=hold, reason=reason))
    if not means.host.clone3:
        child = Arg(0).masked(_CLONE_NOT_A_CHILD) == 0
        rules.append(dangerous_allow("clone", when=child, reason="the template makes workers, in their namespaces"))
    if means.user_namespace == "mapped":
        rules.append(allow("openat", reason="the template maps the worker's user namespace"))
    return rules


# Rules as sets -----------------------------------------------------------------------------------------------------


def _settled(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same meaning, without what earlier rules have decided for good: the compiler takes such for mistakes."""
    decided: set[str] = set()
    kept: list[Rule] = []
    for rule in rules:
        if rule.calls & decided:
            remaining = _only(rule, rule.calls - decided)
            if remaining is None:
                continue
            rule = remaining
        kept.append(rule)
        if rule.when is None:
            decided |= rule.calls
    return _without_moot(kept)


def _without_moot(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Parts of a plan allow the same call, one of them under a condition: the broader one is what was granted."""
    dropped: dict[int, set[str]] = {}
    for narrow, _, call in moot(rules):
        dropped.setdefault(narrow, set()).add(call)
    kept = (
        _only(rule, rule.calls - dropped.get(index, set())) if index in dropped else rule
        for index, rule in enumerate(rules)
    )
    return tuple(rule for rule in kept if rule is not None)


def _let_through(rule: Rule) -> Rule:
    if rule.action != Action.NOTIFY:
        return rule
    return Rule(tuple(sorted(rule.calls)), Action.ALLOW, rule.when, rule.reason, "allow")


def _told(rule: Rule) -> Rule:
    """In development mode: a refusal becomes a question, and so does a death. Answers that libraries expect stay."""
    if rule.action not in (REFUSED, Action.KILL):
        return rule
    return Rule(tuple(sorted(rule.calls)), Action.NOTIFY, rule.when, rule.reason, "notify")


def _only(rule: Rule, calls: frozenset[str]) -> Rule | None:
    """The rule for these calls alone."""
    names = rule.calls & calls
    return Rule(tuple(sorted(names)), rule.action, rule.when, rule.reason, rule.verb) if names else None


__all__ = ["launcher_rules", "program_filter", "template_program", "top_up_program", "worker_program", "worker_rules"]
