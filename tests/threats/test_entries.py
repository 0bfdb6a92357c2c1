"""Other ways into the kernel than those a filter is asked about, and answers that are no refusal. Each attack and its control."""

from __future__ import annotations

import os
import signal

import owned
import plain
import pytest

import bunri

KILLED = "SIGSYS"
ON_X86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86-64 has such a second ABI")


def attack(code: str, compartment: type[owned.Owned] = owned.Owned) -> str:
    """What the code gets in a worker of its own: its result, the errno, or the death."""
    with compartment.start() as worker:
        try:
            return worker.run_code(code)
        except bunri.WorkerDied as died:
            return signal.Signals(died.exit.signal).name if died.exit.signal else str(died)


# 15. Other ABIs and what no granted work needs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["unshare", "setns", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_register", "keyctl", "add_key", "open_by_handle_at", "mount",
     "pivot_root", "fsopen", "init_module", "kexec_load", "seccomp", "fanotify_init", "ptrace"],
)  # fmt: skip
def test_threat_15_attack(name: str) -> None:
    assert attack(f"result = call({name!r}, 0, 0, 0, 0, 0)") == KILLED


@ON_X86_64
def test_threat_15_attack_x32() -> None:
    assert attack("result = call(0x40000000 + NUMBERS['getpid'])") == KILLED


def test_threat_15_clone() -> None:
    assert attack("result = call('clone', 0x10000000 | 17, 0, 0, 0, 0)") == KILLED  # CLONE_NEWUSER
    assert attack("result = call('clone', 0x8000 | 17, 0, 0, 0, 0)") in (KILLED, "EPERM")  # CLONE_PARENT
    assert attack("result = call('clone3', 0, 0)") == "ENOSYS"
    assert attack("result = call(900, 0, 0)") == "ENOSYS"  # newer than the filter
    assert attack("os.fork(); result = 'forked'") == "EPERM"


# getpid by the 32-bit table: mov eax, 20; int 0x80; ret. The page was executable before there was a filter, or MDWE.
_BY_INTERRUPT = "result = 'ok' if enter() > 0 else 'refused'"


@ON_X86_64
def test_threat_15_attack_by_interrupt() -> None:
    if plain.run("enter = owned_code()\n" + _BY_INTERRUPT) != "ok":
        pytest.skip("this kernel has no 32-bit entry point")
    assert attack(_BY_INTERRUPT, owned.OwnedWithCode) == KILLED


def test_threat_15_control() -> None:
    assert plain.run("result = call('unshare', 0)") == "ok"  # unshare of nothing
    assert plain.run("result = call('personality', 0xffffffff)") == "ok"
    x32 = "result = call(0x40000000 + NUMBERS['getpid'])"
    assert plain.run(x32) in ("ok", "ENOSYS")  # as the kernel was built: but nobody dies


# 27. A trap that returns -----------------------------------------------------------------------------------------------

# abs(3) stands for a handler in C that does nothing: it takes an int and returns.
_HANDLER = "libc.signal(int(signal.SIGSYS), ctypes.cast(libc.abs, ctypes.c_void_p))\n"
_PTRACE = "result = call('ptrace', 0, 0, 0, 0)"


def test_threat_27_attack() -> None:
    assert attack("signal.signal(signal.SIGSYS, lambda *a: None)\n" + _PTRACE) == KILLED
    assert attack(_HANDLER + _PTRACE) == KILLED
    with owned.Owned.start() as worker, pytest.raises(bunri.WorkerDied) as caught:
        worker.run_code(_PTRACE)
    assert isinstance(caught.value.__cause__, bunri.Violation)


_UNDER = """
from bunri import filters, seccomp
{handler}
rule = seccomp.{verb}("ptrace", reason="the same rule, but for the verb")
allow = seccomp.Action.ALLOW
filters.install(seccomp.compile([rule], arch=os.uname().machine, default=allow, unknown=allow))
{attack}
"""


def test_threat_27_control() -> None:
    """A filter that traps instead: the handler returns, and the refused call looks as if it had been made."""
    asked = {verb: _UNDER.format(handler=_HANDLER, verb=verb, attack=_PTRACE) for verb in ("trap", "kill")}
    assert plain.run(asked["trap"]) == "ok"
    assert plain.run(asked["kill"]).startswith(f"died -{int(signal.SIGSYS)}")
