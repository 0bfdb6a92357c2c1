"""A worker that is granted an address reaches that one, by libraries that know nothing of it, and nothing else."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import brokered
import pytest

import bunri
from bunri import HostError, User, net


def towards(*grants: net.NetGrant, threads: int = 0) -> bunri.Policy:
    return brokered.Connects.policy.with_(network=grants, threads=threads)


@pytest.fixture
def echo(port: int) -> Iterator[int]:
    """A server on that port; it answers each connection with what it got, backwards."""
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    data = peer.recv(100)
                    if data:
                        peer.sendall(data[::-1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield port
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("timeout", [None, 5.0], ids=["blocking", "with a timeout"])
def test_create_connection_works_as_it_is(echo: int, timeout: float | None) -> None:
    with brokered.Connects.start_under(towards(net.connect("127.0.0.1", echo))) as worker:
        for _ in range(3):
            assert worker.talk("127.0.0.1", echo, b"abc", timeout) == b"cba"


def test_a_socket_whose_connection_was_refused_may_try_again(echo: int, nobody: int) -> None:
    code = f"""
s = socket.socket()
got = [s.connect_ex(("127.0.0.1", {nobody})) for _ in range(3)]
s.connect(("127.0.0.1", {echo}))
s.sendall(b"abc")
result = [*map(errno.errorcode.get, got), s.recv(10)]
"""
    grants = net.connect("127.0.0.1", echo), net.connect("127.0.0.1", nobody)
    with brokered.Connects.start_under(towards(*grants)) as worker:
        assert worker.run_code(code) == "['ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED', b'cba']"


def test_a_granted_name_is_looked_up_in_the_worker_too(echo: int) -> None:
    with brokered.Connects.start_under(towards(net.connect("localhost", echo))) as worker:
        assert worker.talk("localhost", echo, b"abc") == b"cba"
        with pytest.raises(bunri.PeerError, match="gaierror"):
            worker.talk("another.example", echo, b"abc")


def test_a_name_that_nobody_knows_is_refused_at_the_start() -> None:
    import unknown

    with pytest.raises(HostError, match=r"no-such-host\.invalid"):
        unknown.Unknown.start()


def test_urllib_works_as_it_is(port: int, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("a page")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        with brokered.Connects.start_under(towards(net.connect("127.0.0.1", port))) as worker:
            assert worker.get(f"http://127.0.0.1:{port}/page") == b"a page"
        server.shutdown()
        thread.join()


def test_nobody_there_is_said_as_ever(port: int) -> None:
    with brokered.Connects.start_under(towards(net.connect("127.0.0.1", port))) as worker:
        with pytest.raises(bunri.PeerError, match="refused"):
            worker.talk("127.0.0.1", port, b"x")


_CALL_CONNECT = """
libc.socket.restype = libc.connect.restype = ctypes.c_int
s = libc.socket(FAMILY, 1, 0)
address = ADDRESS
result = 'connected' if s >= 0 and libc.connect(s, address, len(address)) == 0 else errno.errorcode[ctypes.get_errno()]
"""


def dial(worker: brokered.Connects, family: int, address: bytes) -> str:
    """By the C library itself: nothing of Python's looks at the address before."""
    return worker.run_code(_CALL_CONNECT.replace("FAMILY", str(family)).replace("ADDRESS", repr(address)))


def inet(host: str, port: int) -> bytes:
    return b"\2\0" + port.to_bytes(2, "big") + socket.inet_aton(host) + bytes(8)


def inet6(host: str, port: int) -> bytes:
    return b"\n\0" + port.to_bytes(2, "big") + bytes(4) + socket.inet_pton(socket.AF_INET6, host) + bytes(4)


def test_nothing_else_is_reached(echo: int) -> None:
    """Another port, another address, the same by another spelling, a name of a socket: refused, whoever listens."""
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket(socket.AF_UNIX) as abstract:
        there = other.getsockname()[1]
        abstract.bind(b"\0bunri-test-abstract-%d" % os.getpid())
        abstract.listen()
        with brokered.Connects.start_under(towards(net.connect("127.0.0.1", echo))) as worker:
            assert dial(worker, 2, inet("127.0.0.1", echo)) == "connected"
            assert dial(worker, 10, inet6("::ffff:127.0.0.1", echo)) == "connected"  # it is that address
            assert dial(worker, 2, inet("127.0.0.1", there)) == "EACCES"
            assert dial(worker, 2, inet("127.0.0.2", echo)) == "EACCES"
            assert dial(worker, 2, inet("0.0.0.0", echo)) == "EACCES"
            assert dial(worker, 10, inet6("::1", echo)) == "EACCES"
            assert dial(worker, 10, inet6("::ffff:127.0.0.1", there)) == "EACCES"
            assert dial(worker, 1, b"\1\0\0bunri-test-abstract-%d" % os.getpid()) == "EPERM"
            assert dial(worker, 2, b"\1\0/run/x\0") == "EACCES"
            assert dial(worker, 2, b"\0\0" + bytes(14)) == "EAFNOSUPPORT"
            assert dial(worker, 2, b"\2") == "EINVAL"
            assert dial(worker, 16, inet("127.0.0.1", echo)) == "EPERM"  # netlink
            for kind in ("SOCK_DGRAM", "SOCK_RAW", "SOCK_SEQPACKET"):
                assert worker.run_code(f"socket.socket(socket.AF_INET, socket.{kind}); result = 'made'") == "EPERM"


def test_an_address_of_another_family_is_refused_and_is_nobodys_end(port: int, unix_path: str) -> None:
    """Each is granted; the socket is of another kind."""
    network = [net.connect("127.0.0.1", port), net.listen(port), net.unix(unix_path)]
    addresses = inet("127.0.0.1", port), inet6("::ffff:127.0.0.1", port), b"\1\0" + unix_path.encode() + b"\0"
    with brokered.Everywhere.start_under(brokered.Everywhere.policy.with_(network=network)) as worker:
        for call in ("connect", "bind"):
            code = f"""
result = []
for address in {addresses!r}:
    for family in 2, 10, 1:
        s = libc.socket(family, 1, 0)
        got = libc.{call}(s, address, len(address))
        if got or family != address[0]:
            result.append((family, address[0], got, errno.errorcode[ctypes.get_errno()]))
            libc.close(s)
"""
            told = worker.run_code(code)
            assert told.count("-1, 'EAFNOSUPPORT'") == (6 if call == "connect" else 4), told
            assert ", 0, " not in told, told


def test_a_connected_socket_is_not_led_elsewhere(echo: int) -> None:
    """AF_UNSPEC takes a connection away; what then is connected again goes through the broker, or nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        with brokered.Connects.start_under(towards(net.connect("127.0.0.1", echo))) as worker:
            code = f"""
s = socket.create_connection(('127.0.0.1', {echo}))
un = b'\\0\\0' + bytes(14)
first = libc.connect(s.fileno(), un, 16), errno.errorcode.get(ctypes.get_errno())
there = {inet("127.0.0.1", other.getsockname()[1])!r}
second = libc.connect(s.fileno(), there, 16), errno.errorcode.get(ctypes.get_errno())
third = libc.bind(s.fileno(), there, 16), errno.errorcode.get(ctypes.get_errno())
fourth = libc.listen(s.fileno(), 1), errno.errorcode.get(ctypes.get_errno())
result = first, second, third, fourth
"""
            refused = "(-1, 'EPERM')"
            assert worker.run_code(code) == f"({refused}, {refused}, {refused}, {refused})"


def test_the_number_of_a_socket_is_only_a_hint(echo: int) -> None:
    """Another descriptor under that number, none, or one that does not exist: only the worker loses by it."""
    with brokered.Connects.start_under(towards(net.connect("127.0.0.1", echo))) as worker:
        code = f"""
s = socket.socket()
number = s.detach()
r, w = os.pipe()
os.dup2(r, number)
got = [libc.connect(number, {inet("127.0.0.1", echo)!r}, 16)]
os.close(number)
got.append(libc.connect(number, {inet("127.0.0.1", echo)!r}, 16))
got.append(libc.connect(9999, {inet("127.0.0.1", echo)!r}, 16))
got.append(libc.connect(3, {inet("127.0.0.1", echo)!r}, 16))
got.append(libc.connect(-1, {inet("127.0.0.1", echo)!r}, 16))
result = got
"""
        worker.run_code(code.replace("os.pipe()", "(0, 0)"))
        assert worker.talk("127.0.0.1", echo, b"abc") == b"cba"


def test_many_sockets_are_not_kept(echo: int) -> None:
    """A worker that makes sockets without end uses up its own descriptors, and its broker goes on."""
    with brokered.Connects.start_under(towards(net.connect("127.0.0.1", echo))) as worker:
        code = (
            "kept = []\ntry:\n while True: kept.append(socket.socket())\nexcept OSError as fault: result = fault.errno"
        )
        assert worker.run_code(code) == "24"
        assert worker.talk("127.0.0.1", echo, b"abc") == b"cba"


def test_a_listening_socket_on_the_granted_port(port: int) -> None:
    policy = brokered.Serves.policy.with_(network=[net.listen(port)])
    with brokered.Serves.start_under(policy) as worker:
        for host in ("127.0.0.1", "0.0.0.0"):
            call = bunri.call(worker.answer_once, host, port)
            for _ in range(200):
                try:
                    peer = socket.create_connection(("127.0.0.1", port), timeout=5)
                    break
                except ConnectionRefusedError:
                    threading.Event().wait(0.02)
            with peer:
                peer.sendall(b"abc")
                assert peer.recv(100) == b"cba"
            assert call.result() == b"abc"
        assert worker.run_code(f"socket.create_server(('127.0.0.1', {port + 1}))") == "EACCES"
        assert worker.run_code("s = socket.socket(); s.bind(('127.0.0.1', 0))") == "EACCES"
        assert worker.run_code("s = socket.socket(); s.listen(1)") == "EACCES"  # the kernel would choose a port
        assert worker.run_code(f"socket.create_connection(('127.0.0.1', {port}))") == "EACCES"


def test_a_unix_socket_and_no_other(unix_path: str) -> None:
    folder = os.path.dirname(unix_path)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        for each, path in ((server, unix_path), (other, f"{folder}/other")):
            each.bind(path)
            os.chmod(path, 0o666)
            each.listen()
        policy = brokered.Unix.policy.with_(network=[net.unix(unix_path)], user=User.dynamic())
        with brokered.Unix.start_under(policy) as worker:
            dial = "s = socket.socket(socket.AF_UNIX); s.connect(PATH); result = 'connected'"
            assert worker.run_code(dial.replace("PATH", repr(unix_path))) == "connected"
            assert worker.run_code(dial.replace("PATH", repr(f"{folder}/other"))) == "EACCES"
            assert worker.run_code(dial.replace("PATH", repr(f"{folder}/../{folder[5:]}/s"))) == "EACCES"
            assert worker.run_code(dial.replace("PATH", "b'\\0abstract'")) == "EACCES"
            assert worker.run_code("socket.socket(); result = 'made'") == "EPERM"
            os.unlink(unix_path)
            os.symlink("other", unix_path)
            assert worker.run_code(dial.replace("PATH", repr(unix_path))) == "ENOTSOCK"
