"""Runs in: nowhere; values only. What the kernel does with a system call: seccomp(2), SECCOMP_RET_*."""

from __future__ import annotations

import errno as _errno
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from bunri.errors import UsageError

LARGEST_ERRNO = 4095  # the kernel cuts larger ones (MAX_ERRNO)


class Kind(Enum):
    """The kinds of actions, with their SECCOMP_RET_* values."""

    KILL_THREAD = 0x00000000
    TRAP = 0x00030000
    ERRNO = 0x00050000
    NOTIFY = 0x7FC00000
    TRACE = 0x7FF00000
    LOG = 0x7FFC0000
    ALLOW = 0x7FFF0000
    KILL = 0x80000000


_KINDS = {kind.value: kind for kind in Kind}
_WITH_DATA = frozenset({Kind.ERRNO, Kind.TRAP, Kind.TRACE})


class _Constants:
    """Stand apart from the dataclass: printers that walk its fields (hypothesis) would follow them round and round."""

    __slots__ = ()

    ALLOW: ClassVar[Action]
    KILL: ClassVar[Action]
    KILL_THREAD: ClassVar[Action]
    TRAP: ClassVar[Action]
    LOG: ClassVar[Action]
    NOTIFY: ClassVar[Action]


@dataclass(frozen=True, slots=True)
class Action(_Constants):
    """One action. Use the constants, and `Action.errno(n)`.

        Action.ALLOW        the call goes on
        Action.errno(n)     the call is not made; it fails with errno n
        Action.KILL         the process dies as if by SIGSYS (SECCOMP_RET_KILL_PROCESS)
        Action.KILL_THREAD  only the calling thread dies: the rest of a Python process then hangs. For comparison only
        Action.TRAP         SIGSYS is sent. A handler that returns turns a refusal into success (THREATS 27):
        diagnosis only Action.LOG          the call goes on and the kernel's log gets a record of it
        Action.NOTIFY       a supervisor is asked, through the notification descriptor

    `data` is the errno, or the 16 bits that TRAP and TRACE carry; 0 elsewhere.
    """

    kind: Kind
    data: int = 0

    def __post_init__(self) -> None:
        most = LARGEST_ERRNO if self.kind is Kind.ERRNO else 0xFFFF if self.kind in _WITH_DATA else 0
        if not 0 <= self.data <= most:
            raise UsageError(f"the data of {self.kind.name} must be 0 to {most}, not {self.data}")

    @classmethod
    def errno(cls, number: int) -> Action:
        """Refuse with this errno (0 to 4095). 0 makes a call that did not happen look like a success."""
        return cls(Kind.ERRNO, number)

    @classmethod
    def from_value(cls, value: int) -> Action:
        """The action of a filter's 32-bit return value, as the kernel reads it: an unknown kind kills the process."""
        kind = _KINDS.get(value & 0xFFFF0000)
        if kind is None:
            return cls.KILL
        if kind not in _WITH_DATA:
            return cls(kind)
        data = value & 0xFFFF
        return cls(kind, min(data, LARGEST_ERRNO) if kind is Kind.ERRNO else data)

    @property
    def value(self) -> int:
        """The 32-bit number a filter returns for it."""
        return self.kind.value | self.data

    def __repr__(self) -> str:
        if self.kind is Kind.ERRNO:
            return f"Action.errno({_errno.errorcode.get(self.data, self.data)})"
        return f"Action.{self.kind.name}" + (f" with data {self.data}" if self.data else "")

    def __str__(self) -> str:
        if self.kind is Kind.ERRNO:
            return f"errno {_errno.errorcode.get(self.data, self.data)}"
        return self.kind.name.lower().replace("_", " ")


Action.ALLOW = Action(Kind.ALLOW)
Action.KILL = Action(Kind.KILL)
Action.KILL_THREAD = Action(Kind.KILL_THREAD)
Action.TRAP = Action(Kind.TRAP)
Action.LOG = Action(Kind.LOG)
Action.NOTIFY = Action(Kind.NOTIFY)
