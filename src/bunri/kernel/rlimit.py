"""Runs in: every process. prlimit(2): limits by name, of this process or of another."""

from __future__ import annotations

import resource

INFINITY = -1  # as Python shows RLIM_INFINITY

NUMBERS: dict[str, int] = {
    "CPU": 0,
    "FSIZE": 1,
    "DATA": 2,
    "STACK": 3,
    "CORE": 4,
    "RSS": 5,
    "NPROC": 6,
    "NOFILE": 7,
    "MEMLOCK": 8,
    "AS": 9,
    "LOCKS": 10,
    "SIGPENDING": 11,
    "MSGQUEUE": 12,
    "NICE": 13,
    "RTPRIO": 14,
    "RTTIME": 15,
}


def get(name: str, pid: int = 0) -> tuple[int, int]:
    """(soft, hard). KeyError for a limit that does not exist."""
    try:
        return resource.prlimit(pid, NUMBERS[name])
    except OSError as error:
        raise _named(error, name) from None


def set_(name: str, soft: int, hard: int, pid: int = 0) -> None:
    """Set both. EPERM above the present hard limit without CAP_SYS_RESOURCE."""
    try:
        resource.prlimit(pid, NUMBERS[name], (soft, hard))
    except OSError as error:
        raise _named(error, name) from None
    except ValueError as error:  # how the module reports EINVAL and a soft limit above the hard one
        raise OSError(22, f"prlimit(RLIMIT_{name}): {error}") from None


def _named(error: OSError, name: str) -> OSError:
    return OSError(error.errno, f"prlimit(RLIMIT_{name}): {error.strerror}")
