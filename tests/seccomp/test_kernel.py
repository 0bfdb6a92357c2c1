"""Runs in: the test process; filters are installed in forked children. The kernel agrees with `decide`.

Only calls that do nothing are made: identity calls, and calls on descriptor -1.
THREATS 15 and 27 are done here at the level of the filter alone.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
from collections.abc import Callable, Sequence

import pytest
from filtered_child import CHILD_NEEDS, MACHINE, SYSCALL, Call, in_child, install
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_policies import MAKERS, Stated, arguments, examples, policies, telling

from bunri.errors import UsageError
from bunri.seccomp import X32_BIT, Action, Arg, Kind, Program, Rule, allow, compile, deny, kill, log, syscalls_of, trap

Kernel = Callable[[Program, Sequence[Call]], list[int] | int]

# A refusal that no harmless call answers by itself.
REFUSED = Action.errno(93)
ON_DESCRIPTOR = ("lseek", "fallocate", "fadvise64", "sync_file_range", "ftruncate", "fchmod", "dup3", "flock")
IDENTITY = ("getppid", "getuid", "getpid", "gettid")
NO_DESCRIPTOR = (1 << 64) - 1

pytestmark = pytest.mark.skipif(MACHINE not in ("x86_64", "aarch64"), reason=f"no system call table for {MACHINE}")


def built(rules: Sequence[Rule]) -> Program:
    return compile([*rules, allow(*CHILD_NEEDS, reason="the test's child")], arch=MACHINE, default=REFUSED)


def agrees(kernel: Kernel, program: Program, calls: Sequence[tuple[str | int, tuple[int, ...]]]) -> None:
    """What goes on or is refused is tried in one child; the first deadly call in a child of its own."""
    numbers = syscalls_of(MACHINE)
    made = [(numbers[call] if isinstance(call, str) else call, args) for call, args in calls]
    decided = [program.decide(MACHINE, number, args) for number, args in made]
    quiet = [(call, action) for call, action in zip(made, decided, strict=True) if not deadly(action)]
    answers = kernel(program, [call for call, _ in quiet])
    assert isinstance(answers, list), f"killed by {answers}, where decide says {[action for _, action in quiet]}"
    for (call, action), answer in zip(quiet, answers, strict=True):
        match action.kind:
            case Kind.ERRNO:
                assert answer == action.data, (call, action)
            case Kind.NOTIFY:
                assert answer == errno.ENOSYS, (call, action)
            case _:
                assert answer not in (REFUSED.data, 77, 78, errno.ENOSYS), (call, action)
    for call, action in [pair for pair in zip(made, decided, strict=True) if deadly(pair[1])][:1]:
        assert kernel(program, [call]) == signal.SIGSYS, (call, action)


def deadly(action: Action) -> bool:
    return action.kind in (Kind.KILL, Kind.KILL_THREAD, Kind.TRAP)


def test_the_kernel_agrees_on_every_kind_of_comparison(kernel: Kernel) -> None:
    big = (5 << 32) + 7
    conditions = [
        Arg(1) == big, Arg(1) != big, Arg(1) < big, Arg(1) <= big, Arg(1) > big, Arg(1) >= big,
        Arg(1).one_of(3, 7, big, 1 << 63), Arg(1).between(big - 1, big + (1 << 32)),
        Arg(1).masked(0xF0000000F) == 0x500000007, Arg(1).masked(7) == 0, Arg(1).masked(1 << 40) != 0,
        Arg(1).int32 == 7, Arg(1).int32 == -1, (Arg(1) == big) | (Arg(1) == 7) & (Arg(2) == 0),
    ]  # fmt: skip
    edges = [0, 3, 7, big - 1, big, big + 1, big + (1 << 32), (1 << 40) | 3, 0xFFFFFFFF, 1 << 63, NO_DESCRIPTOR]
    for condition in conditions:
        program = built([allow("lseek", when=condition, reason="tried")])
        agrees(kernel, program, [("lseek", (NO_DESCRIPTOR, edge, whence)) for edge in edges for whence in (0, 99)])


def test_the_kernel_agrees_on_every_action_and_on_unknown_numbers(kernel: Kernel) -> None:
    for maker, action in MAKERS:
        if action.kind is not Kind.LOG:  # one audit record is enough, below
            agrees(kernel, built([maker("getppid", when=None, reason="tried")]), [("getppid", ()), ("getuid", ())])
    agrees(kernel, built([]), [(number, ()) for number in (400, 423, 1000, 0x3FFFFFFF)])


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stated=policies((*ON_DESCRIPTOR, *IDENTITY), makers=[pair for pair in MAKERS if pair[1].kind is not Kind.LOG]),
    calls=st.lists(st.tuples(st.sampled_from((*ON_DESCRIPTOR, *IDENTITY)), arguments), min_size=10, max_size=20),
    data=st.data(),
)
def test_the_kernel_agrees_on_random_policies_and_calls(
    kernel: Kernel, stated: list[Stated], calls: list[tuple[str, tuple[int, ...]]], data: st.DataObject
) -> None:
    try:
        program = built([one.rule for one in stated])
    except UsageError:
        assume(False)
        return
    near = st.tuples(*[st.sampled_from(telling(stated))] * 6)
    calls += [(name, data.draw(near)) for one in stated for name in one.names]
    agrees(kernel, program, [(name, harmless(args)) for name, args in calls])


def harmless(args: tuple[int, ...]) -> tuple[int, ...]:
    """The first argument's low word is -1: no descriptor. Its high word stays random, for the comparison of halves."""
    return (args[0] | 0xFFFFFFFF, *args[1:])


def test_a_program_with_long_jumps_is_taken_by_the_kernel(kernel: Kernel) -> None:
    rules = [
        deny(name, with_=Action.errno(index % 90 + 1), when=Arg(5).one_of(index, 1000 + index), reason="far")
        for index, name in enumerate(("close", "dup", "kill", "umask", "mseal", *ON_DESCRIPTOR, "getpgid", "getsid"))
    ]
    rules += [allow(*IDENTITY, when=Arg(3).one_of(*range(0, 800, 2)), reason="long")]
    program = built(rules)
    assert len(program) > 400
    agrees(
        kernel, program, [(name, (NO_DESCRIPTOR, 0, 0, number, 0, 9)) for name in IDENTITY for number in (0, 397, 798)]
    )


def test_other_entry_points_die_by_the_filter(kernel: Kernel) -> None:
    """THREATS 15. x32 numbers, and int 0x80 where the kernel has it: getpid by the 32-bit table is number 20."""
    if MACHINE != "x86_64":
        pytest.skip("x32 and int 0x80 are x86-64's")
    everything = compile([], default=Action.ALLOW, unknown=Action.ALLOW)
    assert kernel(everything, [(X32_BIT + syscalls_of(MACHINE)["getpid"], ())]) == signal.SIGSYS

    def by_interrupt(filtered: Callable[[], None]) -> int:
        def child() -> int:
            code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
            function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
            filtered()
            return 0 if function() == os.getpid() else 1

        return in_child(child)

    if by_interrupt(lambda: None) != 0:
        pytest.skip("this kernel has no 32-bit entry point, or no memory that is writable and executable")
    status = by_interrupt(lambda: install(everything.to_bytes()))
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSYS


def test_a_trap_is_survived_by_a_handler_and_a_kill_is_not(kernel: Kernel) -> None:
    """THREATS 27."""
    number = syscalls_of(MACHINE)["getppid"]

    def under(rule: Rule) -> int:
        def child() -> int:
            handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _signal: None)
            libc = ctypes.CDLL(None)
            libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
            libc.signal(signal.SIGSYS, ctypes.cast(handler, ctypes.c_void_p))
            install(built([rule]).to_bytes())
            SYSCALL(number)
            return 7

        return in_child(child)

    assert os.waitstatus_to_exitcode(under(trap("getppid", reason="diagnosis"))) == 7
    assert os.waitstatus_to_exitcode(under(kill("getppid", reason="death"))) == -signal.SIGSYS


def test_one_logged_call_goes_on(kernel: Kernel) -> None:
    agrees(kernel, built([log("getppid", reason="tried")]), [("getppid", ())])
