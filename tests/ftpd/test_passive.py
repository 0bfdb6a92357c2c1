"""Runs in: the test process. The ports on which peers are waited for, in a running server."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from ftplib import FTP, error_temp
from pathlib import Path

import pytest
from ftp_served import ROOT, Served, serving, written

from bunri.apps.ftpd.broker import _ports

pytestmark = pytest.mark.slow


def free_ports(count: int) -> int:
    """The first of so many that nobody has at this moment."""
    for first in range(20000, 30000, count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no ports")


@contextlib.contextmanager
def waiting_on(folder: Path, pub: Path, count: int, **more: str | int) -> Iterator[tuple[Served, range]]:
    first = free_ports(count)
    options = {"pasv_min_port": first, "pasv_max_port": first + count - 1, **more}
    file = written(folder / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="", **options)
    with serving(folder, str(file)) as server:
        yield server, range(first, first + count)


def hello(ftp: FTP) -> bytes:
    got: list[bytes] = []
    ftp.retrbinary("RETR hello", got.append)
    return b"".join(got)


def test_ports_are_those_of_the_range_and_are_used_again_at_once(place: Path, pub: Path) -> None:
    """A port of which a connection has just ended waits for a minute, which is not waited for."""
    with waiting_on(place, pub, 3) as (server, ports), server.login() as one, server.login() as other:
        for _ in range(20):
            assert hello(one) == hello(other) == b"hello\n"
        found = {ftp.makepasv()[1] for _ in range(30) for ftp in (one, other)}
        assert found == set(ports)


def test_a_port_that_another_session_listens_on_is_not_had(place: Path, pub: Path) -> None:
    with waiting_on(place, pub, 1) as (server, ports), server.login() as one, server.login() as other:
        assert one.makepasv()[1] == ports[0]
        with pytest.raises(error_temp, match="425 No port is free"):
            other.makepasv()
        assert one.makepasv()[1] == ports[0]  # what it has it gives back first
        assert hello(one) == b"hello\n"
        assert hello(other) == b"hello\n"


def test_sockets_in_hand_keep_no_port_from_others(place: Path, pub: Path) -> None:
    """A session that fetches many files has been handed some ahead: they are nobody's until it listens."""
    with waiting_on(place, pub, 2) as (server, _), server.login() as one, server.login() as other:
        for _ in range(5):
            assert hello(one) == b"hello\n"
        first, second = other.makepasv()[1], one.makepasv()[1]
        assert first != second


def test_a_peer_who_does_not_come_is_not_waited_for_forever(place: Path, pub: Path) -> None:
    with waiting_on(place, pub, 2, accept_timeout=1) as (server, _), server.login() as ftp:
        host, port = ftp.makepasv()
        assert ftp.sendcmd("RETR hello").startswith("150")
        with pytest.raises(error_temp, match="425"):
            ftp.voidresp()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))
        assert hello(ftp) == b"hello\n"


def test_a_peer_who_comes_late_is_let_in(place: Path, pub: Path) -> None:
    with waiting_on(place, pub, 2) as (server, _), server.login() as ftp:
        host, port = ftp.makepasv()
        ftp.putcmd("RETR hello")
        assert ftp.getresp().startswith("150")
        with socket.create_connection((host, port)) as data:
            assert data.recv(100) == b"hello\n"
        assert ftp.voidresp().startswith("226")


def run_in_a_network(setting_up: str, program: str) -> None:
    """This program, in a network namespace of its own that the shell has set up."""
    command = ["unshare", "-n", "sh", "-c", f'{setting_up}; exec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


makes_a_network = pytest.mark.skipif(not ROOT or not shutil.which("unshare"), reason="makes a network of its own")

MANY = """
import asyncio, socket
from bunri.apps.ftpd.broker import DataHere
from bunri.apps.ftpd.config import Config

async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        control = server.accept()[0]
        data = DataHere(control, Config(listen=True, anonymous_enable=True), None, only_tls=False)
        for number in range(100):
            listener = (await data.passive(1))[0]
            listener.listen(1)
            with socket.create_connection(listener.getsockname()) as peer:
                listener.accept()[0].close()
                assert peer.recv(1) == b""
            listener.close()
        socket.create_connection(server.getsockname()).close()

asyncio.run(main())
"""


@makes_a_network
def test_many_small_files_leave_ports_for_others() -> None:
    """More than there are in the kernel's range, each of which waits for a minute; then a connection from here."""
    run_in_a_network("ip link set lo up; echo 40000 40039 > /proc/sys/net/ipv4/ip_local_port_range", MANY)


LINK_LOCAL = """
import asyncio, socket
from bunri.apps.ftpd.broker import DataHere
from bunri.apps.ftpd.config import Config

async def main() -> None:
    with socket.socket(socket.AF_INET6) as server, socket.socket(socket.AF_INET6) as peer:
        link = socket.if_nametoindex("lo")
        server.bind(("fe80::1", 0, 0, link))
        server.listen(2)
        peer.bind(("fe80::2", 0, 0, link))
        peer.connect(server.getsockname())
        data = DataHere(server.accept()[0], Config(listen=True, anonymous_enable=True), None, only_tls=False)
        listener = (await data.passive(1))[0]
        listener.listen(2)
        for source, comes in ("fe80::1", False), ("fe80::2", True):
            with socket.socket(socket.AF_INET6) as other:
                other.settimeout(0.3)
                other.bind((source, 0, 0, link))
                assert (other.connect_ex(("fe80::1", listener.getsockname()[1], 0, link)) == 0) is comes, source
        assert listener.accept()[1][0].partition("%")[0] == "fe80::2"
        with socket.socket(socket.AF_INET6) as active:
            active.bind(("fe80::2", 0, 0, link))
            active.listen(1)
            (await data.connect(active.getsockname()[1], False)).close()

asyncio.run(main())
"""


@makes_a_network
def test_addresses_of_one_link_are_data_connections_too() -> None:
    run_in_a_network("ip link set lo up; for n in 1 2; do ip addr add fe80::$n/64 dev lo nodad; done", LINK_LOCAL)


@pytest.mark.parametrize(
    ("low", "high", "possible"),
    [(0, 0, range(1024, 65536)), (4000, 4002, range(4000, 4003)), (0, 1100, range(1024, 1101)),
     (65000, 0, range(65000, 65536)), (80, 1030, range(1024, 1031))],
)  # fmt: skip
def test_ports_are_tried_by_chance_and_none_is_left_out(low: int, high: int, possible: range) -> None:
    tried = list(_ports(low, high))
    assert set(tried) <= set(possible)
    assert len(possible) > 2000 or set(tried) == set(possible)
    assert len({next(_ports(low, high)) for _ in range(50)}) > 1
