"""Runs in: nowhere; values only. The small words of policies: capabilities, ways, holes, profiles."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final


class AtStart(Enum):
    """The type of AT_START."""

    AT_START = "at start"

    def __repr__(self) -> str:
        return "AT_START"


AT_START: Final = AtStart.AT_START
"""A named hole in a class's policy: known only at run time, filled by `start_under`."""


FEWEST_OPEN: Final = 8
"""Descriptors: no policy gives a worker less, for its channel and its output."""

DANGEROUS: Final = "dangerous_"
"""In `syscalls=`: before the name of an attack-shaped call."""

JIT: Final = "dangerous_jit"
"""In `syscalls=`: memory that is written and then executed, as just-in-time compilers make it (no PR_SET_MDWE)."""


class Via(Enum):
    """How a grant is carried out."""

    KERNEL = "kernel"  # the worker's own call, within what the kernel was told
    BROKER = "broker"  # a service of the monitor's side opens it, and hands back the descriptor

    def __repr__(self) -> str:
        return f"Via.{self.name}"


class Access(Enum):
    """What a handle allows."""

    READ = "read"
    WRITE = "write"

    def __or__(self, other: Access) -> Access:
        """Both: WRITE allows reading as well."""
        return Access.WRITE if Access.WRITE in (self, other) else Access.READ

    def __repr__(self) -> str:
        return f"Access.{self.name}"


class Profile(Enum):
    """What kind of worker a policy describes. Chosen by the constructor, as `Policy.compute()`."""

    NORMAL = "normal"
    COMPUTE = "compute"
    STRICT = "strict"
    DANGEROUS_UNCONFINED = "dangerous_unconfined"


class Capability(IntEnum):
    """Linux capabilities, with their numbers (linux/capability.h). What each allows: capabilities(7)."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    LINUX_IMMUTABLE = 9
    NET_BIND_SERVICE = 10
    NET_BROADCAST = 11
    NET_ADMIN = 12
    NET_RAW = 13
    IPC_LOCK = 14
    IPC_OWNER = 15
    SYS_MODULE = 16
    SYS_RAWIO = 17
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_PACCT = 20
    SYS_ADMIN = 21
    SYS_BOOT = 22
    SYS_NICE = 23
    SYS_RESOURCE = 24
    SYS_TIME = 25
    SYS_TTY_CONFIG = 26
    MKNOD = 27
    LEASE = 28
    AUDIT_WRITE = 29
    AUDIT_CONTROL = 30
    SETFCAP = 31
    MAC_OVERRIDE = 32
    MAC_ADMIN = 33
    SYSLOG = 34
    WAKE_ALARM = 35
    BLOCK_SUSPEND = 36
    AUDIT_READ = 37
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40

    def __repr__(self) -> str:
        return f"Capability.{self.name}"
