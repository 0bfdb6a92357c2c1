"""Runs in: the process that makes a plan. The rules that every filter of bunri begins with (THREATS 4, 15, 22)."""

from __future__ import annotations

from collections.abc import Collection
from enum import Flag
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp._names import nearest
from bunri.seccomp.attack import ATTACK_REASONS, ATTACK_SHAPED
from bunri.seccomp.conditions import Arg
from bunri.seccomp.rules import NOT_IMPLEMENTED, Rule, allow, deny, kill

# linux/sched.h
SIGCHLD: Final = 17
CLONE_VM: Final = 0x00000100
CLONE_SIGHAND: Final = 0x00000800
CLONE_PARENT: Final = 0x00008000
CLONE_THREAD: Final = 0x00010000
CLONE_UNTRACED: Final = 0x00800000
# NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET. NEWTIME is a bit of the exit signal here: clone(2) cannot ask
# for it.
CLONE_NEW: Final = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

CLONE_ESCAPES: Final = CLONE_NEW | CLONE_PARENT | CLONE_UNTRACED
_A_THREAD: Final = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD


class Children(Flag):
    """What a process may make with clone."""

    NONE = 0
    THREADS = 1
    PROCESSES = 2


def escaping_clones() -> tuple[tuple[str, int], ...]:
    """(call, flags) that no filter may let go on: each forbidden flag alone, with a fork's signal, with a thread's
    flags.

    clone3 hides its flags, so it is one whatever they are.
    """
    flags = [1 << bit for bit in range(32) if CLONE_ESCAPES >> bit & 1]
    return (("clone3", 0), *(("clone", flag | base) for flag in flags for base in (0, SIGCHLD, _A_THREAD)))


def attack_rules(*, but: Collection[str] = ()) -> tuple[Rule, ...]:
    """Death for every attack-shaped call, each with its reason. To stand first.

    `but` names the calls that a grant with Dangerous in its name takes out. UsageError for a name that is not
    attack-shaped.
    """
    for name in but:
        if name not in ATTACK_SHAPED:
            raise UsageError(f"{name!r} is not an attack-shaped call{nearest(name, ATTACK_SHAPED)}")
    families: dict[str, list[str]] = {}
    for name, reason in ATTACK_REASONS.items():
        if name not in but:
            families.setdefault(reason, []).append(name)
    return tuple(kill(*names, reason=reason) for reason, names in families.items())


def clone_rules(children: Children) -> tuple[Rule, ...]:
    """clone and its relatives, by what they make. What is not granted falls to the program's default.

    clone3 is "not implemented" for everybody: its flags are behind a pointer, and the C library then takes clone.
    """
    rules = [
        deny(
            "clone3", with_=NOT_IMPLEMENTED, reason="its flags cannot be seen; libc falls back to clone on ENOSYS only"
        ),
        kill(
            "clone",
            when=Arg(0).masked(CLONE_ESCAPES) != 0,
            reason="a namespace, a child of somebody else, or one that no tracer sees: nothing granted needs it",
        ),
    ]
    threads = Arg(0).masked(_A_THREAD) == _A_THREAD
    if Children.PROCESSES in children and Children.THREADS in children:
        rules.append(allow("clone", reason="threads and processes are granted"))
    elif Children.PROCESSES in children:
        rules.append(
            allow("clone", when=Arg(0).masked(CLONE_THREAD) == 0, reason="processes are granted, threads are not")
        )
    elif Children.THREADS in children:
        rules.append(allow("clone", when=threads, reason="threads are granted, processes are not"))
    if Children.PROCESSES in children:
        rules.append(allow("fork", "vfork", reason="processes are granted"))
    return tuple(rules)
