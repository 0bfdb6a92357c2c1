"""Runs in: the benchmark. Filters of bunri beside libseccomp's of the same rules: a call, the size, the installing.

The rules allow calls by name. Of 50 or 300 such rules either none looks at an argument, or all do but those that the
measuring process lives on; then the call that is timed has one, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from benchmarks import libseccomp
from benchmarks.libseccomp import LINEAR, TREE, Allowed
from benchmarks.measure import Cores, Row, Skipped, Subject, compared, interleaved, placed, whole
from bunri.seccomp import (
    ATTACK_SHAPED,
    POINTERS,
    Action,
    Arg,
    Condition,
    Program,
    Rule,
    allow,
    compile,
    deny,
    syscalls_of,
)

ARCH = "x86_64"
SIZES = (50, 300)
CALLS = 2_000  # in one sample: short, so that few are interrupted
MOST = 1000  # an argument may be as large as that
CALLED = "getppid"
# What the measuring process lives on.
NEEDS = (
    "read", "write", "recvfrom", "sendto", "exit_group", "brk", "mmap", "munmap", "mremap", "madvise", "futex",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "clock_gettime", "close",
)  # fmt: skip
WITHIN = 1.1  # of the shortest filter that does the same: DESIGN, Budgets
_EPERM = Action.errno(errno.EPERM)
_FILTERED = Path(__file__).with_name("filtered.py")


def filters() -> Iterator[Row]:
    """Cost of an allowed call, instructions, and the time to install and to compile."""
    if os.uname().machine != ARCH:
        raise Skipped("the timed loop is machine code of x86-64")
    lib = libseccomp.load()
    for size in SIZES:
        for with_arguments in (False, True):
            rules = _rules(lib, size, with_arguments)
            what = f"{size} rules, {'with arguments' if with_arguments else 'by number'}"
            made = {
                "ours": _ours(rules).to_bytes(),
                "linear": libseccomp.compiled(lib, rules, LINEAR),
                "tree": libseccomp.compiled(lib, rules, TREE),
            }
            _same_meaning(made, rules)
            yield from _calls(what, made, with_argument=with_arguments)
            yield _instructions(what, made)
            yield from _installing(what, made)
            yield from _compiling(what, lib, rules)


def _rules(lib: ctypes.CDLL, size: int, with_arguments: bool) -> list[Allowed]:
    """The called one is in the middle of the table, and last of the list."""
    known = (name for name in syscalls_of(ARCH) if name not in ATTACK_SHAPED and name not in (*NEEDS, CALLED))
    others = [name for name in known if name not in ("clone", "clone3") and libseccomp.knows(lib, name)]
    names = [*NEEDS, *others[: size - len(NEEDS) - 1], CALLED]
    assert len(names) == size
    if not with_arguments:
        return [Allowed(name) for name in names]
    return [Allowed(name) if name in NEEDS else Allowed(name, _number_of(name), MOST) for name in names]


def _number_of(name: str) -> int:
    """An argument that is no pointer."""
    return next(index for index in range(6) if index not in POINTERS.get(name, {}))


def _ours(rules: Sequence[Allowed]) -> Program:
    return compile([_rule(rule) for rule in rules], arch=ARCH, default=_EPERM, unknown=_EPERM)


def _rule(rule: Allowed) -> Rule:
    when = None if rule.argument is None else Arg(rule.argument) <= rule.most
    return allow(rule.name, when=when, reason="measured")


def _same_meaning(made: dict[str, bytes], rules: Sequence[Allowed]) -> None:
    """What is compared decides alike."""
    programs = [Program.from_bytes(code) for code in made.values()]
    for name in syscalls_of(ARCH):
        for value in (0, MOST, MOST + 1):
            decided = {program.decide(ARCH, name, (value,) * 6) for program in programs}
            assert len(decided) == 1, (name, value, decided)
    assert programs[0].decide(ARCH, CALLED, (7,)) == Action.ALLOW


def _calls(what: str, made: dict[str, bytes], *, with_argument: bool) -> Iterator[Row]:
    """A call without a condition is in the kernel's table of those that are always allowed: no filter runs for it. With
    one the filter runs, so the least that it can cost is that of the shortest such filter."""
    least = {name: _empty_but(when) for name, when in _LEAST.items()}
    packet = f"call {syscalls_of(ARCH)[CALLED]} 7 {CALLS}".encode()
    with contextlib.ExitStack() as stack:
        stack.enter_context(placed(Cores.ONE))
        peers = {name: stack.enter_context(_peer(code)) for name, code in {"none": b"none", **least, **made}.items()}
        subjects = {name: _asking(ask, packet) for name, ask in peers.items()}
        interleaved(2, 1, subjects)
        found = interleaved(400, 1, subjects)
    bound = {"argument" if with_argument else "number": WITHIN}
    for name in ("none", "number", "argument", "linear", "tree"):
        if name != "argument" or with_argument:
            yield compared(f"call: {what}", found["ours"], _NAMES[name], found[name], bound.get(name))


_LEAST = {"number": None, "argument": Arg(0) > MOST}
_NAMES = {
    "none": "no filter",
    "number": "a filter that allows all",
    "argument": "one rule, with an argument",
    "linear": "libseccomp",
    "tree": "libseccomp, tree",
}


def _empty_but(when: Condition | None) -> bytes:
    """A filter that allows everything; where `when` is given, but for one call under that condition."""
    rules = [] if when is None else [deny(CALLED, when=when, reason="the least that can be compared")]
    return compile(rules, arch=ARCH, default=Action.ALLOW, unknown=Action.ALLOW).to_bytes()


def _asking(ask: Callable[..., float], *packets: bytes) -> Subject:
    return lambda: ask(*packets)


def _instructions(what: str, made: dict[str, bytes]) -> Row:
    ours, linear, tree = (len(made[name]) // 8 for name in ("ours", "linear", "tree"))
    beside = f"libseccomp {linear}, tree {tree}"
    return Row(f"size: {what}", f"{ours} instructions", beside, f"{ours / linear:.2f}, {ours / tree:.2f}")


def _installing(what: str, made: dict[str, bytes]) -> Iterator[Row]:
    """The kernel's part: it checks, translates, compiles, and fills its table of calls that are always allowed."""
    with placed(Cores.ONE), _peer(b"none") as ask:
        subjects = {name: _asking(ask, b"install", code) for name, code in made.items()}
        interleaved(1, 1, subjects)
        found = interleaved(40, 1, subjects)
    for name in ("linear", "tree"):
        yield compared(f"install: {what}", found["ours"], _NAMES[name], found[name], None)


def _compiling(what: str, lib: ctypes.CDLL, rules: Sequence[Allowed]) -> Iterator[Row]:
    """From the rules to the bytes, from Python; libseccomp through ctypes. Ours keeps the bytes; not here."""
    from bunri.seccomp import _compile

    def ours() -> None:
        _compile._compiled.cache_clear()
        _ours(rules).to_bytes()

    subjects = {
        "ours": whole(ours),
        "linear": whole(lambda: libseccomp.compiled(lib, rules, LINEAR)),
        "tree": whole(lambda: libseccomp.compiled(lib, rules, TREE)),
    }
    interleaved(1, 1, subjects)
    found = interleaved(15, 1, subjects)
    for name in ("linear", "tree"):
        yield compared(f"compile: {what}", found["ours"], _NAMES[name], found[name], None)


@contextlib.contextmanager
def _peer(code: bytes) -> Generator[Callable[..., float], None, None]:
    """A process under a filter. It answers packets with seconds."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [
        sys.executable,
        "-I",
        "-S",
        "-B",
        str(_FILTERED),
        str(theirs.fileno()),
        str(syscalls_of(ARCH)["seccomp"]),
    ]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        try:
            ours.send(code)
            assert ours.recv(64) == b"ready", process.wait(10)

            def ask(*packets: bytes) -> float:
                for packet in packets:
                    ours.send(packet)
                return float(ours.recv(64))

            yield ask
        finally:
            ours.close()
            process.wait(10)
