"""Runs in: the monitor, in development mode. A refused call as a value: who, what, and which grant would allow it.

The call's number and registers come from the kernel; so a grant may be proposed for them (THREATS 26). What a path or
an address said was read by the worker's broker. Everything is escaped where it becomes text: a worker chose it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from bunri import seccomp
from bunri.broker.messages import Denied
from bunri.errors import Denial, Observer, Violation
from bunri.policy import Settled, Via
from bunri.process import arguments
from bunri.process.grants import grant_for
from bunri.seccomp import ATTACK_REASONS
from bunri.text import printable

MOST: Final = 200  # of one worker, kept
_LOGGED: Final = 1000  # of one worker; then no more

log = logging.getLogger("bunri.violations")


class _Told(msgspec.Struct):
    denial: Denial
    errno: int
    explains: bool = False  # an exception, already


class Denials:
    """What one worker was refused."""

    def __init__(self, policy: Settled, arch: str, describe: Callable[[], str]) -> None:
        self._kept: deque[_Told] = deque(maxlen=MOST)
        self._brokered = any(grant.via is Via.BROKER for grant in policy.files)
        self._arch = arch
        self._describe = describe
        self._count = 0

    def __iter__(self) -> Iterator[Denial]:
        return iter([each.denial for each in self._kept])

    def take(self, told: Denied) -> Violation | None:
        """Keep and log one. A Violation where the filter's answer is death."""
        denial = self._value(told)
        self._kept.append(_Told(denial, told.errno))
        self._count += 1
        if self._count <= _LOGGED:
            untold = f" ({told.untold} more before it were too many to tell)" if told.untold else ""
            log.warning("%s: %s%s", self._describe(), denial, untold, extra={"denial": denial})
        elif self._count == _LOGGED + 1:
            log.warning("%s: what else it is refused is not logged", self._describe())
        if not told.deadly:
            return None
        reason = ATTACK_REASONS.get(denial.call or "", "nothing that is granted needs it")
        return Violation(f"{self._describe()} made a call that is death: {denial}\n  {reason}", denial)

    def explain(self, error: Violation, code: int | None) -> Violation:
        """What a worker says it was refused, with errno `code`, and what the kernel told of it, where the two agree."""
        claimed = error.denial
        for told in reversed(self._kept):
            if not told.explains and told.errno == code and claimed.path in (None, told.denial.path):
                told.explains = True  # one exception, and no other
                known = replace(told.denial, where=claimed.where)
                explained = Violation(f"{self._describe()}: {known}\nit says: {str(error.__cause__).rstrip()}", known)
                explained.__cause__ = error.__cause__
                return explained
            if claimed.path is None:
                break  # without a path, only the newest one is near enough to be no guess
        return error

    def _value(self, told: Denied) -> Denial:
        name = seccomp.name_of(self._arch, told.number)
        texts = {index: printable(text, limit=4096) for index, text in told.texts}
        pointers = seccomp.POINTERS.get(name or "", {})
        paths = [text for index, text in texts.items() if pointers.get(index) == "a path"]
        addresses = [text for index, text in texts.items() if pointers.get(index) == "a socket address"]
        return Denial(
            call=name or f"system call {told.number}",
            arguments=arguments.decoded(name, told.args, texts),
            path=paths[0] if paths else None,
            address=addresses[0] if addresses else None,
            layer=told.layer,
            observed_by=Observer.KERNEL,
            grant=grant_for(name, told, brokered=self._brokered),
        )
