"""Real servers and their own clients: a worker with net.connect talks to PostgreSQL, one with net.unix to Redis."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import brokered
import psycopg
import pytest

import bunri
from bunri import User, net

ROOT = os.getuid() == 0
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def running(command: list[str], is_up: Callable[[], bool], user: pwd.struct_passwd | None) -> Generator[None]:
    """The server, as that user, until the block is left; ended by its pid, with all that it started."""
    ids = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        start_new_session=True, **ids,
    )  # type: ignore[call-overload]  # fmt: skip
    try:
        until = time.monotonic() + 20
        while not is_up():
            assert server.poll() is None and time.monotonic() < until, f"{command[0]} does not come up"
            time.sleep(0.02)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def answers(port: int) -> bool:
    """PostgreSQL listens before it has started up."""
    try:
        psycopg.connect(f"host=127.0.0.1 port={port} user=tester dbname=postgres").close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def database(port: int) -> Iterator[int]:
    """The port of a PostgreSQL of its own, on loopback, with no Unix socket."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if Path("/usr/lib/postgresql").is_dir() else []
    if not found:
        pytest.skip("PostgreSQL is not installed")
    try:
        user = pwd.getpwnam("postgres") if ROOT else None
        pwd.getpwuid(os.getuid())
    except KeyError:
        pytest.skip("PostgreSQL runs as a user with an account only, and this one has none")
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="bunri-test-pg-"))
    try:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        ids = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}
        made = [
            str(found[-1]),
            "--no-sync",
            "-A",
            "trust",
            "-U",
            "tester",
            "-E",
            "UTF8",
            "--no-locale",
            "-D",
            f"{folder}/data",
        ]
        subprocess.run(made, check=True, capture_output=True, cwd="/", timeout=60, **ids)  # type: ignore[call-overload]
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(port), "fsync": "off",
                   "shared_buffers": "4MB", "max_connections": "10", "autovacuum": "off"}  # fmt: skip
        command = [str(found[-1].with_name("postgres")), "-D", f"{folder}/data"]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with running(command, lambda: answers(port), user):
            yield port
    finally:
        shutil.rmtree(folder)


def test_a_worker_talks_to_a_real_postgresql_and_to_nothing_else(database: int) -> None:
    policy = brokered.Connects.policy.with_(network=[net.connect("127.0.0.1", database)], threads=0)
    conninfo = f"host=127.0.0.1 port={database} user=tester dbname=postgres sslmode=disable"
    with socket.create_server(("127.0.0.1", 0)) as other, brokered.Connects.start_under(policy) as worker:
        assert worker.query(conninfo, "select 40 + 2") == ["42"]
        assert worker.query(conninfo, "select count(*) from pg_class") != ["0"]
        assert worker.query(conninfo, "select inet_server_port()") == [str(database)]
        elsewhere = other.getsockname()[1]
        with pytest.raises(bunri.PeerError, match="OperationalError"):
            worker.query(conninfo.replace(f"port={database}", f"port={elsewhere}"), "select 1")
        assert worker.run_code(f"socket.create_connection(('127.0.0.1', {elsewhere}))") == "EACCES"
        assert worker.run_code(f"socket.create_connection(('127.0.0.2', {database}))") == "EACCES"


def test_a_worker_without_the_grant_does_not_reach_it(database: int) -> None:
    policy = brokered.Connects.policy.with_(network=[], threads=0)
    with brokered.Connects.start_under(policy) as worker:
        assert worker.run_code(f"socket.create_connection(('127.0.0.1', {database}))") == "EPERM"


def test_a_worker_talks_to_a_real_redis_by_its_unix_socket(unix_path: str) -> None:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("Redis is not installed")
    folder = os.path.dirname(unix_path)
    user = pwd.getpwnam("nobody") if ROOT else None
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    command = [server, "--port", "0", "--unixsocket", unix_path, "--unixsocketperm", "777", "--save", "",
               "--appendonly", "no", "--dir", folder]  # fmt: skip
    with running(command, lambda: os.path.exists(unix_path), user):
        policy = brokered.Unix.policy.with_(network=[net.unix(unix_path)], user=User.dynamic())
        with brokered.Unix.start_under(policy) as worker:
            assert worker.ping(unix_path) == "b'brokered'"
            assert worker.run_code("s = socket.socket(socket.AF_UNIX); s.connect('/run/other')") == "EACCES"
            assert worker.run_code("socket.socket(socket.AF_INET)") == "EPERM"
