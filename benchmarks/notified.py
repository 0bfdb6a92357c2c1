"""Runs in: an interpreter of its own. Two lines of figures: the seconds of calls that stand still until another process
has answered (seccomp_unotify(2)), without the sync wake-up flag and with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

from bunri import seccomp
from bunri.kernel import notify, prctl
from bunri.kernel import seccomp as install

SAMPLES = 40
CALLS = 50  # a sample


def figures(*, same_processor: bool) -> list[float]:
    """Seconds of one call each."""
    told, tells = socket.socketpair()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _ask(tells, writer)
        finally:
            os._exit(1)
    tells.close()
    os.close(writer)
    _, (listener, *_), _, _ = socket.recv_fds(told, 1, 1)
    if same_processor:
        notify.wake_on_same_processor(listener)
    told.send(b"g")
    with contextlib.suppress(OSError):  # when the other one has ended
        for _ in range(SAMPLES * CALLS):
            called = notify.receive(listener)
            if called is not None:
                notify.answer(listener, called.id, 7)
    with open(reader) as file:
        found = [float(word) for word in file.read().split()]
    os.waitpid(pid, 0)
    os.close(listener)
    told.close()
    if len(found) != SAMPLES:
        raise OSError("the process that was to be answered has ended early")
    return found


def _ask(tells: socket.socket, writer: int) -> None:
    rules = [*seccomp.attack_rules(), seccomp.notify("getppid", reason="what is measured")]
    program = seccomp.compile(rules, arch=os.uname().machine, default=seccomp.Action.ALLOW)
    prctl.set_no_new_privs()
    listener = install.set_filter(program.to_bytes(), install.FLAG_NEW_LISTENER)
    socket.send_fds(tells, [b"l"], [listener])
    os.close(listener)
    tells.recv(1)
    found: list[float] = []
    for _ in range(SAMPLES):
        begun = time.perf_counter()
        for _ in range(CALLS):
            os.getppid()
        found.append((time.perf_counter() - begun) / CALLS)
    os.write(writer, " ".join(map(repr, found)).encode())
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(60)
    for flag in (False, True):
        print(*figures(same_processor=flag))
