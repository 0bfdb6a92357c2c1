"""Runs in: the benchmark and its workers. What a broker costs: opens and connects that it does for a worker, beside the
same that the worker does itself; and the notification alone, with and without the sync wake-up flag."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import bunri
from benchmarks.measure import Cores, Row, Skipped, compared, interleaved, placed
from bunri import AT_START, Policy, Via, fs, net

AT_ONCE = 32
COUNT = 320  # a sample
PORTS = range(54400, 54432)
TOWARDS = [net.connect("127.0.0.1", port) for port in PORTS]
NOTIFIED = Path(__file__).with_name("notified.py")


def _open(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _connect(port: int) -> None:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.connect(("127.0.0.1", port))
    finally:
        made.close()


def _seconds(count: int, callers: int, work: Callable[[], None]) -> float:
    """Of one of `count` things, done by so many threads at once."""

    def some() -> None:
        for _ in range(count // callers):
            work()

    threads = [threading.Thread(target=some) for _ in range(callers - 1)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    some()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begun) / (count // callers * callers)


class Asking(bunri.Compartment):
    """Opens and connects."""

    policy = Policy(files=AT_START, network=TOWARDS, threads=AT_ONCE, memory="1G")

    def opens(self, path: str, count: int, callers: int) -> float:
        return _seconds(count, callers, lambda: _open(path))

    def connects(self, port: int, count: int, callers: int) -> float:
        return _seconds(count, callers, lambda: _connect(port))


def brokered() -> Iterator[Row]:
    """Opens and connects through a broker, beside plain ones, by one caller and by many at once."""
    with tempfile.TemporaryDirectory(prefix="bunri-") as folder, _server() as port:
        os.chmod(folder, 0o755)
        path = Path(folder, "file")
        path.write_text("words\n")
        path.chmod(0o644)
        by_broker = Asking.policy.with_(
            files=[fs.read(folder, via=Via.BROKER)], network=[net.connect("127.0.0.1", port)]
        )
        by_itself = Asking.policy.with_(files=[fs.read(folder)], network=[])
        with Asking.start_under(by_broker) as asking, Asking.start_under(by_itself) as plain:
            for callers in (1, AT_ONCE):
                yield from _compared(asking, plain, str(path), port, callers)
    yield from _flag()


def _compared(asking: Asking, plain: Asking, path: str, port: int, callers: int) -> Iterator[Row]:
    subjects = {
        "brokered open": lambda: asking.opens(path, COUNT, callers),
        "plain open": lambda: plain.opens(path, COUNT, callers),
        "brokered connect": lambda: asking.connects(port, COUNT, callers),
        "plain connect": lambda: _seconds(COUNT, callers, lambda: _connect(port)),
    }
    with placed(Cores.ONE if callers == 1 else Cores.ANY):
        interleaved(1, 1, subjects)
        found = interleaved(20, 1, subjects)
    many = f", {callers} at once" if callers > 1 else ", one core"
    at_most = 8 if callers == 1 else None
    yield compared(f"brokered open{many}", found["brokered open"], "by itself", found["plain open"], at_most)
    yield compared(f"brokered connect{many}", found["brokered connect"], "unconfined", found["plain connect"], None)


def _flag() -> Iterator[Row]:
    for cores in (Cores.ONE, Cores.ANY):
        with placed(cores):
            done = subprocess.run([sys.executable, NOTIFIED], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Skipped(f"no notification here: {done.stderr.strip().splitlines()[-1]}")
        without, with_flag = ([float(word) for word in line.split()] for line in done.stdout.splitlines())
        yield compared(f"notified call, sync flag, {cores.value}", with_flag, "without", without, None)


@contextlib.contextmanager
def _server() -> Generator[int]:
    """A port of loopback whose connections are taken and closed."""
    with _listening() as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listening.accept()[0].close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _listening() -> socket.socket:
    for port in PORTS:
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port), backlog=1024)
    raise Skipped(f"every port from {PORTS[0]} to {PORTS[-1]} is taken")
