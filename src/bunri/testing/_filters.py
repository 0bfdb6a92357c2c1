"""Runs in: a user's test run. Table tests of system call filters: (call, arguments) -> action. The kernel is not asked.

The compiled instructions are run, those that the kernel would get; so such a test needs no root and no Linux.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from bunri import seccomp
from bunri.compartment import Compartment
from bunri.errors import UsageError
from bunri.policy import Policy
from bunri.policy.words import Profile

if TYPE_CHECKING:
    from bunri.plan import Host

Filtered: TypeAlias = seccomp.Program | Policy | type[Compartment]
Row: TypeAlias = tuple[str | int, Sequence[int], seccomp.Action]

# seccomp(2), SECCOMP_SET_MODE_STRICT. There the death is SIGKILL, not SIGSYS.
_MODE_1 = seccomp.allow("read", "write", "rt_sigreturn", "exit", reason="what seccomp's mode 1 lets a process do")


def filter_of(
    what: Filtered,
    *,
    under: Policy | None = None,
    arch: str | None = None,
    host: str | os.PathLike[str] | None = None,
) -> seccomp.Program:
    """The filter that a worker gets in the end, as a value: `decide`, `explain` and `listing` answer for it.

    `what` is a compartment (its policy, and what its signature needs), a policy (of a worker that is handed nothing
    and has no `async def`), or a filter, which is given back. `under` stands in for the compartment's policy, as in
    `start_under`; holes (AT_START) are taken as their defaults. `arch` is "x86_64" or "aarch64", `host` a file as
    `bunri doctor --json` prints it; without them it is for this machine. For `Policy.strict()` it says what seccomp's
    mode 1 does, which is no filter.

    Raises UsageError for what has no filter, and for a file that describes no host.
    """
    if isinstance(what, seccomp.Program):
        if under is not None or host is not None or arch not in (None, what.arch):
            raise UsageError(f"{what!r} is compiled already: under=, arch= and host= come too late for it")
        return what
    from bunri.observe.subject import Subject, of_compartment
    from bunri.plan import Needs

    here = _host(arch, host)
    if isinstance(what, Policy):
        if under is not None:
            raise UsageError("under= is for a compartment; a policy is asked about as it is")
        subject = Subject("a worker", what, Needs(), here)
    else:
        subject = of_compartment(what, here)
        if under is not None:
            subject = Subject(subject.name, under, subject.needs, here, what)
    match subject.settled.profile:
        case Profile.DANGEROUS_UNCONFINED:
            raise UsageError(f"{subject.settled!r} has no filter")
        case Profile.STRICT:
            return seccomp.compile([_MODE_1], arch=here.arch, default=seccomp.Action.KILL, unknown=seccomp.Action.KILL)
        case _:
            return subject.filter


def check_filter(
    what: Filtered,
    rows: Iterable[Row],
    *,
    under: Policy | None = None,
    arch: str | None = None,
    host: str | os.PathLike[str] | None = None,
) -> None:
    """Ask the filter of `what` (see `filter_of`) about each row: a call by name or number, its arguments, the action.

    Arguments that are not given are 0. AssertionError lists every row that is decided otherwise, with the rule that
    decides it and its reason. UsageError for an empty table, which would test nothing.

        bunri.testing.check_filter(Thumbnailer, [
            ("read", (0,), Action.ALLOW),
            ("mmap", (0, 4096, PROT_EXEC), Action.errno(errno.EPERM)),
            ("ptrace", (), Action.KILL),
        ])
    """
    __tracebackhide__ = True  # pytest then points at the caller's line
    program = filter_of(what, under=under, arch=arch, host=host)
    count = 0
    wrong: list[str] = []
    for call, args, wanted in rows:
        count += 1
        if program.decide(program.arch, call, args) != wanted:
            wrong.append(
                f"the table says {wanted}, the filter:\n  " + program.explain(call, args).replace("\n", "\n  ")
            )
    if not count:
        raise UsageError("a table without a row tests nothing. Write rows: (call, arguments, action)")
    if wrong:
        raise AssertionError("\n".join([f"{len(wrong)} of {count} rows are decided otherwise", *wrong]))


def _host(arch: str | None, file: str | os.PathLike[str] | None) -> Host:
    from bunri.confine import detect
    from bunri.plan import Host

    if file is None:
        found = detect()
    else:
        try:
            found = Host.from_json(Path(file).read_bytes())
        except OSError as fault:
            raise UsageError(f"host={os.fspath(file)!r} cannot be read: {fault.strerror}") from None
        except msgspec.MsgspecError as fault:
            raise UsageError(
                f"host={os.fspath(file)!r} is no host as `bunri doctor --json` prints it: {fault}"
            ) from None
    if arch is None:
        return found
    seccomp.syscalls_of(arch)
    return msgspec.structs.replace(found, arch=arch)
