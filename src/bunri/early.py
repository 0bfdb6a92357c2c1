"""Runs in: the monitor, before most of bunri is imported. The two interpreters that a first start of a worker waits for.

The probe tries what this host can do (confine/_probe.py). The base zygote imports bunri, for all others to be forked
from it (process/_boot.py). Both are fresh interpreters that need nothing of what this process still imports. So a
command that is going to start workers calls `begin` first, and all three import at the same time. What was not begun
is started when it is asked for; what nobody asked for is killed at the end.

This module imports little itself: what it imports, the two wait for.
"""

from __future__ import annotations

import atexit
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Final

_BUNRI: Final = os.path.dirname(os.path.abspath(__file__))
_PROBE: Final = os.path.join(_BUNRI, "confine", "_probe.py")
_BOOT: Final = os.path.join(_BUNRI, "process", "_boot.py")
_FRESH: Final = ("-I", "-S", "-B")  # no variable, no site-packages, nothing written
_KEPT: Final = (
    "LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY", "TZ",
)  # fmt: skip

# The C library else reserves 64 MiB of addresses for each thread (mallopt(3)), and addresses are what memory is bounded
# by. It reads this when a zygote is executed; workers do not see it.
ONE_HEAP: Final = {"MALLOC_ARENA_MAX": "1"}


class Zygote:
    """A base zygote to which nothing was said yet."""

    def __init__(self, *, own_namespace: bool, modules: tuple[str, ...] = ()) -> None:
        self.own_namespace = own_namespace
        self.control, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.output, writer = os.pipe2(os.O_CLOEXEC)  # what it prints
        number = self.theirs.fileno()
        arguments = [str(number), "own" if own_namespace else "none", ",".join(modules), *own_path()]
        try:
            self.process = subprocess.Popen(
                [sys.executable, *_FRESH, _BOOT, *arguments],
                stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, pass_fds=(number,),
                env={**kept_environment(), **ONE_HEAP}, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError:
            self.let_go()
            raise
        finally:
            os.close(writer)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.let_go()

    def let_go(self) -> None:
        """Close what this process has of it."""
        self.control.close()
        self.theirs.close()
        os.close(self.output)


class _Begun:
    """What was begun, and nobody has asked for yet."""

    probe: subprocess.Popen[bytes] | None = None
    zygote: Zygote | None = None

    def take(self) -> tuple[subprocess.Popen[bytes] | None, Zygote | None]:
        """Both; from now on they are the caller's."""
        begun = self.probe, self.zygote
        self.probe = self.zygote = None
        return begun


_begun = _Begun()


def begin(*modules: str) -> None:
    """Start both. For an ordinary user only the probe: in which namespaces his zygote lives, the host decides.

    `modules` are bunri's own, and those only: the base zygote has the rights of whoever starts it. They are loaded in it
    before anybody asks, and a role that needs them has them already."""
    with suppress(OSError):  # told to whoever asks
        _begun.probe = _begun.probe or _start_probe()
        if os.geteuid() == 0:
            _begun.zygote = _begun.zygote or Zygote(own_namespace=False, modules=modules)


@contextmanager
def imports() -> Generator[None]:
    """Import without the garbage collector: what modules are made of stays, and is looked through neither now nor at
    the end of the program, where that would take longer than all else."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def probe() -> subprocess.Popen[bytes]:
    """The probe; its standard output is JSON. OSError where no interpreter can be started."""
    begun, _begun.probe = _begun.probe, None
    return begun or _start_probe()


def zygote(*, own_namespace: bool) -> Zygote:
    """A base zygote. One that was begun otherwise than the host now wants it is ended."""
    begun, _begun.zygote = _begun.zygote, None
    if begun is not None and begun.own_namespace is own_namespace:
        return begun
    if begun is not None:
        begun.close()
    return Zygote(own_namespace=own_namespace)


def own_path() -> tuple[str, ...]:
    """The folders that hold bunri and msgspec: all that the base zygote needs beside the standard library."""
    return tuple(dict.fromkeys((os.path.dirname(_BUNRI), *_folders_of("msgspec"))))


def _folders_of(name: str) -> Iterator[str]:
    spec = find_spec(name)
    for package in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield os.path.dirname(os.path.abspath(package))


def kept_environment() -> dict[str, str]:
    """What a zygote has of this process's environment: language and time zone (DESIGN 3.4)."""
    found = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {name: value for name, value in found.items() if value.isprintable()}  # what is no text cannot be told


def _start_probe() -> subprocess.Popen[bytes]:
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return subprocess.Popen(
        [sys.executable, *_FRESH, _PROBE, _BUNRI],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kept, cwd="/",
    )  # fmt: skip


@atexit.register
def _end() -> None:
    """Nobody asked."""
    process, zygote = _begun.take()
    if process is not None:
        with process:
            process.kill()
    if zygote is not None:
        zygote.close()


def _let_go_in_child() -> None:
    """What was begun is the parent's."""
    process, zygote = _begun.take()
    if process is not None:
        process.returncode = 0  # not ours to wait for
    if zygote is not None:
        zygote.process.returncode = 0
        zygote.let_go()


os.register_at_fork(after_in_child=_let_go_in_child)
