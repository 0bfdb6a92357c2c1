"""Runs in: the test process. libseccomp as a peer: through ctypes, in tests only, where libseccomp.so.2 is here."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from bunri.errors import UsageError
from bunri.seccomp import Action, Kind, Program

try:
    LIBRARY = ctypes.CDLL("libseccomp.so.2")
except OSError:
    pytest.skip("libseccomp.so.2 is not on this machine", allow_module_level=True)

MARKS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
NE, LT, LE, EQ, GE, GT, MASKED = 1, 2, 3, 4, 5, 6, 7
OPERATIONS = {"NE": NE, "LT": LT, "LE": LE, "EQ": EQ, "GE": GE, "GT": GT, "MASKED_EQ": MASKED}
OPTIMIZE = 8  # SCMP_FLTATR_CTL_OPTIMIZE; 2 makes a binary tree


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


LIBRARY.seccomp_init.restype = ctypes.c_void_p
LIBRARY.seccomp_init.argtypes = (ctypes.c_uint32,)
LIBRARY.seccomp_release.argtypes = (ctypes.c_void_p,)
LIBRARY.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
LIBRARY.seccomp_arch_remove.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
LIBRARY.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
LIBRARY.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
LIBRARY.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
LIBRARY.seccomp_rule_add_exact_array.argtypes = (
    ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison),
)  # fmt: skip
LIBRARY.seccomp_arch_native.restype = ctypes.c_uint32

Entry = tuple[str, Action, Sequence[Comparison]]


def number_of(name: str) -> int:
    """Negative where this machine's architecture lacks it."""
    return int(LIBRARY.seccomp_syscall_resolve_name(name.encode()))


def compiled(arch: str, entries: Iterable[Entry], default: Action, *, optimize: int = 1) -> Program:
    """libseccomp's program."""
    context = LIBRARY.seccomp_init(default.value)
    descriptor = os.memfd_create("filter")
    try:
        if LIBRARY.seccomp_arch_native() != MARKS[arch]:
            assert LIBRARY.seccomp_arch_add(context, MARKS[arch]) == 0
            assert LIBRARY.seccomp_arch_remove(context, LIBRARY.seccomp_arch_native()) == 0
        assert LIBRARY.seccomp_attr_set(context, OPTIMIZE, optimize) == 0
        for name, action, comparisons in entries:
            tests = (Comparison * len(comparisons))(*comparisons)
            result = LIBRARY.seccomp_rule_add_exact_array(context, action.value, number_of(name), len(tests), tests)
            # EDOM: a call that this architecture lacks, as many in a container's profile are.
            if result not in (0, -errno.EEXIST, -errno.EDOM):
                raise UsageError(f"libseccomp does not take {name} {action}: {result}")
        assert LIBRARY.seccomp_export_bpf(context, descriptor) == 0
        os.lseek(descriptor, 0, os.SEEK_SET)
        return Program.from_bytes(os.read(descriptor, 1 << 20))
    finally:
        os.close(descriptor)
        LIBRARY.seccomp_release(context)


def compiled_in_time(arch: str, entries: Iterable[Entry], default: Action) -> Program | None:
    """The same in a child, which has two seconds: from some profiles libseccomp 2.5.4 does not come back for minutes."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(2)
            os.write(write_end, compiled(arch, entries, default).to_bytes())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        code = stream.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return None
    assert status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"
    return Program.from_bytes(code)


def action_of(name: str, number: int | None) -> Action:
    kinds = {"ERRNO": Kind.ERRNO, "ALLOW": Kind.ALLOW, "LOG": Kind.LOG, "TRAP": Kind.TRAP, "KILL_PROCESS": Kind.KILL}
    kind = {**kinds, "KILL": Kind.KILL_THREAD, "NOTIFY": Kind.NOTIFY}[name.removeprefix("SCMP_ACT_")]
    return Action(kind, (1 if number is None else number) if kind is Kind.ERRNO else 0)


def of_profile(text: str, go_arch: str) -> tuple[list[Entry], Action]:
    """A container's profile as runc hands it to libseccomp, for a container without capabilities."""
    profile = json.loads(text)
    default = action_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    return list(_entries(profile, go_arch, default)), default


def _entries(profile: dict[str, Any], go_arch: str, default: Action) -> Iterator[Entry]:
    for entry in profile["syscalls"]:
        includes, action = entry.get("includes") or {}, action_of(entry["action"], entry.get("errnoRet"))
        if includes.get("caps") or go_arch not in (includes.get("arches") or [go_arch]) or action == default:
            continue
        tests = [
            Comparison(one["index"], OPERATIONS[one["op"].removeprefix("SCMP_CMP_")], one["value"], one["valueTwo"])
            for one in entry.get("args") or ()
        ]
        for name in entry["names"]:
            if number_of(name) >= 0:
                yield name, action, tests
