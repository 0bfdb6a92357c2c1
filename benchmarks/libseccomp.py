"""Runs in: the benchmark. libseccomp's programs for the same rules, through ctypes; Debian: libseccomp2."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Skipped
from bunri.seccomp import Action

_LE = 3  # SCMP_CMP_LE
_OPTIMIZE = 8  # SCMP_FLTATR_CTL_OPTIMIZE
LINEAR, TREE = 1, 2


@dataclass(frozen=True)
class Allowed:
    """A call that may go on; where `argument` is given, only if that argument is at most `most`."""

    name: str
    argument: int | None = None
    most: int = 0


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def load() -> ctypes.CDLL:
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Skipped("libseccomp.so.2 is not installed") from None
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = (ctypes.c_uint32,)
    found.seccomp_release.argtypes = (ctypes.c_void_p,)
    found.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    found.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    found.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    found.seccomp_rule_add_exact_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    )  # fmt: skip
    return found


def knows(lib: ctypes.CDLL, name: str) -> bool:
    return int(lib.seccomp_syscall_resolve_name(name.encode())) >= 0


def compiled(lib: ctypes.CDLL, rules: Sequence[Allowed], optimize: int) -> bytes:
    """The program, as the kernel takes it; what no rule allows fails with EPERM."""
    context = lib.seccomp_init(Action.errno(errno.EPERM).value)
    descriptor = os.memfd_create("filter")
    try:
        assert lib.seccomp_attr_set(context, _OPTIMIZE, optimize) == 0
        for rule in rules:
            tests = [] if rule.argument is None else [_Comparison(rule.argument, _LE, rule.most, 0)]
            array = (_Comparison * len(tests))(*tests)
            number = lib.seccomp_syscall_resolve_name(rule.name.encode())
            assert lib.seccomp_rule_add_exact_array(context, Action.ALLOW.value, number, len(tests), array) == 0, rule
        assert lib.seccomp_export_bpf(context, descriptor) == 0
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)
        lib.seccomp_release(context)
