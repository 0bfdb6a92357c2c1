"""Runs in: the test process, as monitor. Programs that know nothing of bunri, and their granted connections.

Several processes, threads and programs one after the other: each call's memory is asked for when it is made.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_spawn import SHELL, output_of, python, shell

import bunri
from bunri import net
from bunri.broker.messages import Given, NotGiven, Want, Word
from bunri.kernel import procfs

ASK = """
import socket, sys
def ask(port):
    try:
        with socket.create_connection(("127.0.0.1", port)) as s:
            return s.recv(100).decode()
    except OSError as fault:
        return type(fault).__name__
"""


class Server:
    """Says its name to whoever connects."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            with peer:
                peer.sendall(self._name)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    made = Server(b"granted"), Server(b"other")
    try:
        yield made
    finally:
        for server in made:
            server.close()


def policy_for(*grants: net.NetGrant) -> bunri.Policy:
    return SHELL.with_(network=grants)


def test_only_the_granted_address_can_be_connected_to(servers: tuple[Server, Server]) -> None:
    granted, other = servers
    program = f"{ASK}\nprint(ask({granted.port}), ask({other.port}))"
    plain = subprocess.run([python(), "-c", program], capture_output=True, text=True, check=True)
    assert plain.stdout == "granted other\n"
    policy = policy_for(net.connect("127.0.0.1", granted.port))
    assert output_of([python(), "-c", program], policy)[0] == "granted PermissionError\n"


def test_processes_with_the_same_numbers_each_get_their_own(servers: tuple[Server, Server]) -> None:
    """Parent and children make their sockets before any of them connects."""
    one, two = servers
    program = f"""
import os, socket, time
for port in ({one.port}, {two.port}) * 4:
    if os.fork() == 0:
        s = socket.socket()
        time.sleep(0.3)
        s.connect(("127.0.0.1", port))
        print(port, s.recv(100).decode(), flush=True)
        os._exit(0)
for _ in range(8):
    os.wait()
"""
    policy = policy_for(net.connect("127.0.0.1", one.port), net.connect("127.0.0.1", two.port))
    lines = output_of([python(), "-c", program], policy)[0].splitlines()
    assert sorted(lines) == sorted([f"{one.port} granted", f"{two.port} other"] * 4)


def test_threads_connect_at_the_same_time(servers: tuple[Server, Server]) -> None:
    granted, _ = servers
    program = f"""{ASK}
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    print(set(pool.map(lambda _: ask({granted.port}), range(20))))"""
    policy = policy_for(net.connect("127.0.0.1", granted.port))
    assert output_of([python(), "-c", program], policy)[0] == "{'granted'}\n"


def test_a_client_everybody_knows(servers: tuple[Server, Server], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (tmp_path / "page").write_text("the page")
    with subprocess.Popen(
        [python(), "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as web:  # fmt: skip
        try:
            assert web.stdout is not None
            port = int(web.stdout.readline().split("port ")[1].split()[0])
            policy = policy_for(net.connect("localhost", port))
            command = (
                f"curl -sS http://localhost:{port}/page; curl -sS http://127.0.0.1:{servers[1].port}/ || echo refused"
            )
            text, _ = shell(command, policy)
        finally:
            web.kill()
    assert text.startswith("the page") and text.endswith("refused\n")


@pytest.mark.parametrize("call", ["connect", "bind", "listen"])
def test_a_number_under_which_nothing_stands_is_an_error_and_no_wait_without_end(call: str) -> None:
    program = f"""
import ctypes
libc = ctypes.CDLL(None)
print([libc.{call}(number, b"\\2\\0\\0\\x09\\x7f\\0\\0\\1" + bytes(8), 16) for number in (0, 77, 99999, -1)])"""
    policy = policy_for(net.connect("127.0.0.1", 9), net.listen(9)).with_(wall="20s")
    assert output_of([python(), "-c", program], policy)[0] == "[-1, -1, -1, -1]\n"


def test_a_granted_unix_socket_and_no_other(folders: tuple[Path, Path]) -> None:
    open_, _ = folders
    names = ("granted", "other")
    with socket.socket(socket.AF_UNIX) as granted, socket.socket(socket.AF_UNIX) as other:
        for name, sock in zip(names, (granted, other), strict=True):
            sock.bind(str(open_ / name))
            os.chmod(open_ / name, 0o777)
            sock.listen()
        program = f"""
import socket
for name in {names!r}:
    try:
        socket.socket(socket.AF_UNIX).connect({str(open_)!r} + "/" + name)
        print("connected")
    except OSError as fault:
        print(type(fault).__name__)
"""
        text, _ = output_of([python(), "-c", program], policy_for(net.unix(open_ / "granted")))
    assert text == "connected\nPermissionError\n"


def test_a_server_on_the_granted_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = bunri.spawn(
        [python(), "-u", "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        policy_for(net.listen(port)),
        stdout=bunri.PIPE,
        stderr=bunri.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    with process.stdout as out, process.stderr:
        assert b"Serving" in os.read(out.fileno(), 1000)
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert peer.recv(100).startswith(b"HTTP/1.0 200")
        process.signal(9)
        process.wait()


def test_a_broker_that_was_taken_over_gets_no_memory_but_the_workers(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names it reads are hostile. It asks for its monitor's memory, for a neighbour's, and for one that is gone."""
    policy = policy_for(net.connect("127.0.0.1", servers[0].port))
    mine, neighbour = (bunri.spawn(["sleep", "1000"], policy) for _ in range(2))
    attendant = mine._owner._worker.attendant  # type: ignore[attr-defined]
    told: list[Word] = []
    monkeypatch.setattr(attendant._broker, "tell", lambda word, descriptors=(): told.append(word))
    for pid in (os.getpid(), neighbour.pid, 1, 999_999_999, mine.pid):
        attendant._give(Want(pid))
    assert told == [NotGiven()] * 4 + [Given(0)]
    for process in (mine, neighbour):
        process.signal(9)
        process.wait()


def test_what_its_calls_cost_the_monitor_is_its_own_time() -> None:
    """Each asks the monitor for memory. What that takes counts beside the time of the program and its broker."""
    program = """
import ctypes
libc = ctypes.CDLL(None)
for _ in range(5000):
    libc.connect(0, 0, 0)
print("done", flush=True)
input()
"""
    process = bunri.spawn(
        [python(), "-c", program], policy_for(net.connect("127.0.0.1", 9)), stdin=bunri.PIPE, stdout=bunri.PIPE
    )
    worker = process._owner._worker  # type: ignore[attr-defined]
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        before = time.process_time_ns()
        assert os.read(process.stdout.fileno(), 10) == b"done\n"
        used = time.process_time_ns() - before
        counted = worker.attendant.cpu_clock() - procfs.cpu_time_ns(worker.attendant._broker.pid)
        assert used / 2 < counted
        process.signal(9)
        process.wait()
