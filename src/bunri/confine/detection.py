"""Runs in: the monitor. What this host can do, found by trying each thing in a process of its own.

The caller may have threads, whose locks a fork would copy: so a fresh interpreter does the trying (`_probe.py`).
"""

from __future__ import annotations

import errno
import os
import sys

import msgspec

from bunri.errors import HostError
from bunri.plan.host import Host

_WITHIN = 30  # seconds

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE})
_MORE_ROOM = "Close what is not needed, or raise RLIMIT_NOFILE, as with ulimit -n 4096"
_EXECUTABLE = "Run the program with an interpreter that its own user can execute"

_seen: dict[tuple[int, int], Host] = {}


def detect() -> Host:
    """The host, as this process and its user see it now; tried once per process.

    HostError where no interpreter can be started to try.
    """
    key = os.getpid(), os.geteuid()
    if key not in _seen:
        _seen[key] = _ask_fresh_interpreter()
    return _seen[key]


def _ask_fresh_interpreter() -> Host:
    import subprocess  # not for zygotes, which load this module too

    from bunri import early

    if not os.path.exists("/proc/self/status"):
        raise HostError(
            "/proc is not there, and in it is seen what this host can do and what holds in a worker",
            layer="procfs",
            remedy="Mount it: mount -t proc proc /proc",
        )
    try:
        with early.probe() as process:
            try:
                said, complaint = process.communicate(timeout=_WITHIN)
            except BaseException:
                process.kill()
                raise
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(
            f"what this host can do was to be tried by {sys.executable!r}, and that failed: {error}",
            errno=error.errno if isinstance(error, OSError) else None,
            remedy=_MORE_ROOM if isinstance(error, OSError) and error.errno in _NO_ROOM else _EXECUTABLE,
        ) from error
    if process.returncode != 0:
        text = complaint.decode(errors="replace").strip()
        raise HostError(
            f"trying what this host can do ended with {process.returncode}:\n{text}", remedy="Please report this"
        )
    return msgspec.json.decode(said, type=Host)
