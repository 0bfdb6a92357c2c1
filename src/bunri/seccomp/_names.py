"""Runs in: nowhere; values only. System call names and numbers, and the kernel's marks for architectures."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from bunri.errors import UsageError
from bunri.seccomp import _tables_aarch64, _tables_x86_64

_TABLES: Final[dict[str, Mapping[str, int]]] = {
    "x86_64": MappingProxyType(_tables_x86_64.NUMBERS),
    "aarch64": MappingProxyType(_tables_aarch64.NUMBERS),
}
_NAMES: Final = {arch: {number: name for name, number in table.items()} for arch, table in _TABLES.items()}

KERNEL_OF_TABLES: Final = _tables_x86_64.KERNEL
"""The Linux version whose system calls the tables know, as "7.2"."""

# linux/audit.h. What seccomp_data.arch holds. Programs are made for the first two; the others can be asked about.
AUDIT_ARCH: Final[Mapping[str, int]] = MappingProxyType(
    {
        "x86_64": 0xC000003E,
        "aarch64": 0xC00000B7,
        "i386": 0x40000003,
        "arm": 0x40000028,
        "riscv64": 0xC00000F3,
    }
)

# x32 programs use x86_64's mark and set this bit in the number (asm/unistd.h, __X32_SYSCALL_BIT).
X32_BIT: Final = 0x40000000

_EVERY_NAME: Final = frozenset(name for table in _TABLES.values() for name in table)

# What the C library calls it -> what the kernel calls it. Spelling alone would not find these.
_LIBRARY_NAMES: Final = {
    "exec": "execve",
    "fstatat": "newfstatat",
    "pread": "pread64",
    "pwrite": "pwrite64",
    "recv": "recvfrom",
    "send": "sendto",
    "sigaction": "rt_sigaction",
    "sigprocmask": "rt_sigprocmask",
    "sigqueue": "rt_sigqueueinfo",
    "sigreturn": "rt_sigreturn",
    "umount": "umount2",
    "waitpid": "wait4",
}


def arches() -> tuple[str, ...]:
    """The architectures that programs can be made for."""
    return tuple(_TABLES)


def syscalls_of(arch: str) -> Mapping[str, int]:
    """The system calls of `arch`: name -> number. UsageError for an architecture without a table."""
    try:
        return _TABLES[arch]
    except KeyError:
        raise UsageError(
            f"no system call table for architecture {arch!r}; there is one for {', '.join(_TABLES)}"
        ) from None


def name_of(arch: str, number: int) -> str | None:
    """The name of a number on `arch`, or None for a hole, a newer call or an architecture without a table."""
    return _NAMES.get(arch, {}).get(number)


def is_known(name: str) -> bool:
    """Whether `name` is a system call on at least one of the architectures."""
    return name in _EVERY_NAME


def check_name(name: str) -> None:
    """UsageError with the nearest valid name if no architecture has a system call `name`."""
    if name not in _EVERY_NAME:
        raise UsageError(f"no system call is named {name!r} on {' or '.join(_TABLES)}{nearest(name, _EVERY_NAME)}")


def nearest(name: str, valid: frozenset[str]) -> str:
    """The tail of an error message: the nearest valid name, if one is near."""
    import difflib  # not for zygotes

    library = _LIBRARY_NAMES.get(name)
    if library is not None and library in valid:
        return f"; the kernel's name for it is {library!r}"
    near = difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def number_of(arch: str, call: str | int) -> int:
    """The number of a call on `arch`. UsageError for a name that `arch` does not have."""
    if isinstance(call, int):
        if not 0 <= call <= 0xFFFFFFFF:
            raise UsageError(f"a system call number has 32 bits; {call} does not fit")
        return call
    table = syscalls_of(arch)
    if call in table:
        return table[call]
    check_name(call)
    raise UsageError(f"{arch} has no system call {call!r}{nearest(call, frozenset(table))}")


def audit_arch(arch: str) -> int:
    """The kernel's mark for `arch`. UsageError for an unknown name."""
    try:
        return AUDIT_ARCH[arch]
    except KeyError:
        raise UsageError(f"unknown architecture {arch!r}; known are {', '.join(AUDIT_ARCH)}") from None
