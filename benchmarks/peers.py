"""Runs in: the benchmark. Starts the processes that bunri is compared with, and talks to them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.measure import Skipped
from benchmarks.peer import SIZE, receive_all

PEER = Path(__file__).with_name("peer.py")
MESSAGE = bytes(24)  # as long as bunri's null call on the wire
LAYERS = ("--unshare-all", "--new-session", "--die-with-parent", "--cap-drop", "ALL", "--clearenv")
ROOT = ("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
        "--symlink", "usr/lib64", "/lib64")  # fmt: skip


@contextlib.contextmanager
def started(kind: str, sort: socket.SocketKind, *arguments: str) -> Generator[socket.socket, None, None]:
    """Our end of the socket to a fresh peer. It ends when we close ours."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, sort)
    number = theirs.fileno()
    command = [sys.executable, "-I", "-S", "-B", str(PEER), kind, str(number), *arguments]
    with ours, subprocess.Popen(command, pass_fds=[number]) as process:
        theirs.close()
        try:
            yield ours
        finally:
            ours.close()
            process.wait(10)


@contextlib.contextmanager
def ping() -> Generator[Callable[[], object], None, None]:
    """One round trip of a bare packet."""
    with started("ping", socket.SOCK_SEQPACKET) as sock:

        def once() -> None:
            sock.send(MESSAGE)
            sock.recv(4096)

        once()
        yield once


@contextlib.contextmanager
def pipe() -> Generator[Callable[[], object], None, None]:
    """One call over multiprocessing's connection: a name and arguments there, a value back."""
    with started("pipe", socket.SOCK_STREAM) as sock:
        connection = Connection(os.dup(sock.fileno()))

        def once() -> None:
            connection.send(("same", (7,)))
            connection.recv()

        once()
        try:
            yield once
        finally:
            connection.close()


@contextlib.contextmanager
def stream() -> Generator[Callable[[], object], None, None]:
    """1 MiB there and back; both ends use the same buffers again."""
    with started("stream", socket.SOCK_STREAM) as sock:
        out, back = bytes(SIZE), memoryview(bytearray(SIZE))

        def once() -> None:
            sock.sendall(out)
            receive_all(sock, back)

        once()
        yield once


@contextlib.contextmanager
def forks(*modules: str) -> Generator[Callable[[int], float], None, None]:
    """Bare forks to their first answers, one after the other, of an interpreter that has imported `modules`: the
    seconds that they took. The end of the last one is waited for, and is not in them."""
    arguments = (",".join(modules), *(path for path in sys.path if path)) if modules else ()
    with started("forks", socket.SOCK_SEQPACKET, *arguments) as sock:

        def some(count: int) -> float:
            begun = time.perf_counter()
            sock.send(b"%d" % count)
            for _ in range(count):
                sock.recv(64)
            taken = time.perf_counter() - begun
            sock.recv(64)
            return taken

        some(3)
        yield some


@contextlib.contextmanager
def oslo(count: int) -> Generator[Callable[[], float], None, None]:
    """`count` calls of an oslo.privsep entry point at a time: the seconds of one."""
    if importlib.util.find_spec("oslo_privsep") is None:
        raise Skipped("oslo.privsep is not installed: pip install 'bunri[bench]'")
    command = [sys.executable, PEER.with_name("oslo_peer.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        asks, answers = process.stdin, process.stdout

        def some() -> float:
            print(count, file=asks, flush=True)
            return float(answers.readline())

        some()
        try:
            yield some
        finally:
            asks.close()
            process.wait(10)


def bubblewrap() -> Callable[[], object]:
    """bwrap with the like layers, from its start to the end of /bin/true in it."""
    program = shutil.which("bwrap")
    if program is None:
        raise Skipped("bwrap is not installed")
    command = [program, *LAYERS, *ROOT, "/bin/true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise Skipped(f"bwrap cannot do it here: {tried.stderr.strip()}")

    def once() -> None:
        pid = os.posix_spawn(program, command, {})
        os.waitpid(pid, 0)

    return once
