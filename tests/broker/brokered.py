"""The compartments of the tests of transparent brokers: code and libraries that know nothing of bunri.

What is known only when a test runs is narrowed from these ranges: `network` is no hole of a policy.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import socket
import sqlite3
import struct
import threading
import urllib.request
from io import BytesIO

import psycopg
import redis
from PIL import Image

import bunri
from bunri import AT_START, net

PORTS = range(54300, 54364)
SOCKETS = [f"/tmp/bunri-test-unix-{number}/s" for number in range(8)]
TOWARDS = [net.connect(host, port) for host in ("127.0.0.1", "::1", "localhost") for port in PORTS]

libc = ctypes.CDLL(None, use_errno=True)
CODE = {"ctypes": ctypes, "errno": errno, "libc": libc, "os": os, "secrets": secrets, "socket": socket, "struct": struct,
        "threading": threading}  # fmt: skip


def run(code: str, **more: object) -> str:
    """Run attacker's code; what it puts into `result`, or the name of the errno it was refused with."""
    space: dict[str, object] = {**CODE, **more}

    def call(number: int, *args: object) -> str:
        ctypes.set_errno(0)
        value = libc.syscall(number, *args)
        return "ok" if value >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")

    space["call"] = call
    try:
        exec(code, space)
    except OSError as fault:
        return errno.errorcode.get(fault.errno or 0, type(fault).__name__)
    return str(space.get("result"))


class Brokered(bunri.Compartment):
    """Opens what it likes; what that comes to is its broker's to say."""

    policy = bunri.Policy(files=AT_START, user=AT_START, threads=AT_START, cpu=AT_START)

    @classmethod
    def warm_up(cls) -> None:
        Image.init()

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def write(self, path: str, data: bytes, mode: str = "wb") -> int:
        with open(path, mode) as file:
            return int(file.write(data))

    def picture(self, path: str) -> tuple[int, int]:
        with Image.open(path) as image:
            image.load()
            return image.size

    def rows(self, path: str) -> list[str]:
        with sqlite3.connect(path) as database:
            return [str(row[0]) for row in database.execute("select word from words order by word")]

    def run_code(self, code: str) -> str:
        return run(code)


class Connects(bunri.Compartment):
    """Connects where it likes; what that comes to is its broker's to say."""

    policy = bunri.Policy(network=TOWARDS, threads=AT_START)

    @classmethod
    def warm_up(cls) -> None:
        urllib.request.build_opener()

    def talk(self, host: str, port: int, data: bytes, timeout: float | None = None) -> bytes:
        with socket.create_connection((host, port), timeout=timeout) as peer:
            peer.sendall(data)
            return peer.recv(1000)

    def get(self, url: str) -> bytes:
        with urllib.request.urlopen(url) as answer:
            return bytes(answer.read())

    def query(self, conninfo: str, statement: str) -> list[str]:
        with psycopg.connect(conninfo) as connection:
            return [str(row[0]) for row in connection.execute(statement).fetchall()]  # type: ignore[call-overload]

    def run_code(self, code: str) -> str:
        return run(code)


class Everywhere(bunri.Compartment):
    """Makes sockets of every family that there is."""

    policy = bunri.Policy(network=[*TOWARDS, *map(net.listen, PORTS), *map(net.unix, SOCKETS)])

    def run_code(self, code: str) -> str:
        return run(code)


class Unix(bunri.Compartment):
    """Connects to Unix sockets."""

    policy = bunri.Policy(user=AT_START, network=[net.unix(path) for path in SOCKETS])

    def ping(self, path: str) -> str:
        client = redis.Redis(unix_socket_path=path)
        try:
            client.set("word", "brokered")
            return str(client.get("word"))
        finally:
            client.close()

    def run_code(self, code: str) -> str:
        return run(code)


class Serves(bunri.Compartment):
    """Listens where it likes; what that comes to is its broker's to say."""

    policy = bunri.Policy(network=[net.listen(port) for port in PORTS])

    def answer_once(self, host: str, port: int) -> bytes:
        with socket.create_server((host, port)) as server:
            peer, _ = server.accept()
            with peer:
                data = peer.recv(100)
                peer.sendall(data[::-1])
                return data

    def run_code(self, code: str) -> str:
        return run(code)


def a_picture() -> bytes:
    """A small PNG."""
    data = BytesIO()
    Image.new("RGB", (64, 48), "navy").save(data, "PNG")
    return data.getvalue()
