"""Runs in: a worker that executes another program: process 1 of its pid namespace, with the policy's rights, and what
the last filter takes away.

It was confined and looked at like every worker. Then it forks: the child takes the program's streams, installs the
last filter and stops until the monitor has looked at it too; only then is anything executed that is not bunri's. The
worker stays: it reaps what the program leaves behind, and says how it ended. A program that was process 1 itself could
not be ended by the signals of its own terminal (pid_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import termios
from typing import NoReturn

import msgspec

from bunri.compartment import Compartment
from bunri.kernel import descriptors, prctl, seccomp
from bunri.policy import AT_START, Policy

PLACES = 6  # descriptors of the child while it waits: the program's three, and three pipes that go when it is executed
_NOT_EXECUTED = 127
_FAULT = struct.Struct("=i")


class Launch(msgspec.Struct):
    """What is executed. Bytes: the names of files need not be text."""

    argv: list[bytes]
    env: dict[str, bytes]
    cwd: bytes
    terminal: int | None  # which of its streams is the terminal that becomes its controlling one
    last_filter: bytes


class Refused(msgspec.Struct):
    """What the kernel did not allow: errno, and the path it was about, if any."""

    errno: int
    path: bytes


class Ended(msgspec.Struct):
    """How the program ended: an exit code, or the number of a signal."""

    code: int | None
    signal: int | None


class Launcher(Compartment):
    """Executes one program, and waits for it."""

    policy = Policy(user=AT_START)

    def __init__(self) -> None:
        self._pid = 0
        self._go = self._failed = -1

    def launch(self, what: Launch, streams: socket.socket) -> Refused | None:
        """Fork the process that is to execute it; it waits. Its standard streams come through `streams`."""
        with streams:
            _, handed, _, _ = socket.recv_fds(streams, 1, 3)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as process 1 it then ignores it; the program could send it one
        ready, say = os.pipe()
        wait, self._go = os.pipe()
        self._failed, fail = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _become(what, handed, say, wait, fail)
        for number in (*handed, say, wait, fail):
            os.close(number)
        with os.fdopen(ready, "rb") as pipe:
            return None if pipe.read(1) == b"r" else self._failure()

    def go(self) -> Refused | None:
        """It has been looked at: execute."""
        with contextlib.suppress(BrokenPipeError):  # it was ended; `program` says how
            os.write(self._go, b"g")
        os.close(self._go)
        return self._failure()

    def program(self) -> Ended:
        """Until it has ended; others that it left behind are reaped on the way."""
        while True:
            pid, status = os.wait()
            if pid == self._pid:
                break
        if os.WIFSIGNALED(status):
            return Ended(None, os.WTERMSIG(status))
        return Ended(os.WEXITSTATUS(status), None)

    def _failure(self) -> Refused | None:
        """What the child said before its end; nothing, when the program has taken its place."""
        with os.fdopen(self._failed, "rb") as pipe:
            word = pipe.read()
        return Refused(_FAULT.unpack(word[: _FAULT.size])[0], word[_FAULT.size :]) if word else None


def _become(what: Launch, handed: list[int], say: int, wait: int, fail: int) -> NoReturn:
    """The child: never returns, and no exception leaves it."""
    where = b""
    try:
        prctl.set_parent_death_signal(signal.SIGKILL)
        os.setsid()
        # Out of the way first: a number may be another's place.
        away = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, PLACES) for number in (*handed, say, wait, fail)]
        for place, number in enumerate(away):
            os.dup2(number, place, inheritable=place <= 2)
        say, wait, fail = range(3, PLACES)
        descriptors.close_all_but(range(PLACES))
        if what.terminal is not None:
            fcntl.ioctl(what.terminal, termios.TIOCSCTTY, 0)
        where = what.cwd
        os.chdir(what.cwd)
        where = b""
        _restore_signals()
        if what.last_filter:
            seccomp.set_filter(what.last_filter)
        os.write(say, b"r")
        if os.read(wait, 1) == b"g":
            where = what.argv[0]
            _execute(what)
    except OSError as fault:
        with contextlib.suppress(OSError):
            os.write(fail, _FAULT.pack(fault.errno or errno.EIO) + where)
    finally:
        os._exit(_NOT_EXECUTED)


def _execute(what: Launch) -> None:
    """Along PATH, as execvp(3): what may not be executed is remembered, and what is not there is not."""
    name, refused = what.argv[0], errno.ENOENT
    folders = [b""] if b"/" in name else what.env.get("PATH", os.defpath.encode()).split(b":")
    for folder in folders:
        try:
            os.execve(os.path.join(folder, name), what.argv, what.env)
        except OSError as fault:
            if fault.errno not in (errno.ENOENT, errno.ENOTDIR):
                refused = fault.errno or errno.EIO
    raise OSError(refused, os.strerror(refused))


def _restore_signals() -> None:
    """Python ignores some, and a handler of ours is none of the program's."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # those of the C library's threads
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
