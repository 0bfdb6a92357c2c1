"""Connections, listening sockets and names, as services: exactly what was granted, made by a process that is nobody else."""

from __future__ import annotations

import os
import pwd
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import served
from marked import Mark

import bunri
from bunri.broker import Connector, Directory, Listener, Names
from bunri.broker.messages import Answer, AskNames, Denied, Refusal, Word, encode
from bunri.errors import InternalError
from bunri.kernel import procfs
from bunri.process import program
from bunri.process.brokers import BrokerProcess
from bunri.process.messages import Message, decode_up

ROOT = os.getuid() == 0


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server on loopback that answers with what it got, once per connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _serve_one(server: socket.socket) -> threading.Thread:
    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            peer.sendall(peer.recv(100)[::-1])

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection_to_the_one_address(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = _serve_one(server)
        with served.Reaches.start(Connector.to(host, server.getsockname()[1])) as worker:
            assert bunri.call(worker.talk, b"abc").result() == b"cba"
        thread.join()


def test_a_connection_to_a_unix_socket(granted: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(granted / "s"))
        os.chmod(granted / "s", 0o666)
        server.listen()
        thread = _serve_one(server)
        with served.Reaches.start(Connector.unix(granted / "s")) as worker:
            assert bunri.call(worker.talk, b"abc").result() == b"cba"
        thread.join()


def test_a_unix_socket_that_is_swapped_for_a_link_is_not_followed(granted: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(granted.parent / "other"))
        os.chmod(granted.parent / "other", 0o666)
        server.listen()
        (granted / "s").symlink_to("../other")
        with served.Reaches.start(Connector.unix(granted / "s")) as worker:
            with pytest.raises(bunri.PeerError):
                bunri.call(worker.talk, b"abc").result()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with served.Reaches.start(Connector.to("127.0.0.1", port)) as worker, pytest.raises(bunri.PeerError):
        bunri.call(worker.talk, b"x").result()


def test_an_unknown_name_is_said() -> None:
    with served.Reaches.start(Connector.to("no-such-host.invalid", 80)) as worker:
        with pytest.raises(bunri.PeerError):
            bunri.call(worker.talk, b"x").result()


def test_a_listening_socket_on_the_one_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with served.Listens.start(Listener.on(port)) as worker:
        with bunri.call(worker.listen).result() as listening:
            assert listening.getsockname() == ("127.0.0.1", port)
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                accepted, _ = listening.accept()
                accepted.close()


def test_names_are_looked_up() -> None:
    me = pwd.getpwuid(0)
    with served.LooksUp.start(Names.here()) as worker:
        found = bunri.call(worker.user, "root").result()
        assert found is not None and (found.uid, found.gid, found.home) == (0, me.pw_gid, me.pw_dir)
        assert bunri.call(worker.user, 0).result() == found
        assert bunri.call(worker.user, "no such user").result() is None
        group = bunri.call(worker.group, 0).result()
        assert group is not None and group.name == "root"
        for none in (-1, 1 << 32, (1 << 63) - 1, -(1 << 63)):
            assert bunri.call(worker.user, none).result() is None
            assert bunri.call(worker.group, none).result() is None
        assert "127.0.0.1" in bunri.call(worker.addresses, "localhost").result()


def test_a_broker_is_the_subject_and_has_nothing_else(granted: Path) -> None:
    """Looked at from outside: ids, capabilities, filter, descriptors."""
    folder = Directory.at(granted)
    with served.Uses.start(folder) as worker:
        bunri.call(worker.read, "file").result()
        agent = folder._agent  # type: ignore[attr-defined]
        directory = procfs.open_process(agent.pid)
        try:
            seen = procfs.status(directory)
            for _ in range(100):  # its copy of what it has just handed over is closed a little later
                numbers = procfs.descriptors(directory)
                if len(numbers) <= 6:
                    break
                threading.Event().wait(0.01)
        finally:
            os.close(directory)
    owner = granted.stat().st_uid
    assert seen.uids == (owner,) * 4
    assert (seen.effective, seen.permitted, seen.inheritable, seen.ambient) == (0, 0, 0, 0)
    assert seen.bounding == 0 or not ROOT
    assert seen.no_new_privs and seen.seccomp_mode == 2
    assert len(numbers) == 6  # 0 1 2, the monitor's socket, the directory, its own /proc/self/fd


def test_a_broker_ends_with_its_object(granted: Path) -> None:
    folder = Directory.at(granted)
    with served.Uses.start(folder) as worker:
        bunri.call(worker.read, "file").result()
        pid = folder._agent.pid  # type: ignore[attr-defined]
    del folder, worker
    for _ in range(500):
        if not os.path.exists(f"/proc/{pid}"):
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"the broker {pid} is still there")


def test_a_broker_that_dies_fails_its_calls_and_nobody_elses(granted: Path) -> None:
    folder = Directory.at(granted)
    with served.Uses.start(folder) as worker, served.Uses.start(Directory.at(granted)) as other:
        bunri.call(worker.read, "file").result()
        os.kill(folder._agent.pid, 9)  # type: ignore[attr-defined]
        with pytest.raises(bunri.PeerError):
            bunri.call(worker.read, "file").result()
        assert bunri.call(other.read, "file").result() == b"granted\n"
    assert program.current() is not None


def test_an_answer_with_more_than_one_descriptor_ends_its_sender(tmp_path: Path) -> None:
    """And leaves none of them here."""
    mark = Mark(tmp_path / "sent")
    here = program.current()
    broker = BrokerProcess(here, "a broker that lies")
    with socket.socket(fileno=os.dup(broker.hand_over())) as theirs, mark.path.open() as file:
        broker.handed_over()
        call = broker.ask(AskNames)
        socket.send_fds(theirs, [encode(Answer(1))], [file.fileno()] * 3)
        with pytest.raises(InternalError, match="3 descriptors"):
            call.result(10)
        until = time.monotonic() + 10
        while mark.still_open() > 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert mark.still_open() == 1
        assert theirs.recv(4096) and theirs.recv(1) == b""  # after the question: its own socket is closed


@pytest.mark.parametrize("args", [(), (1, 2, 3, 4, 5), tuple(range(7))])
def test_a_refusal_told_without_its_six_registers_is_no_message(args: tuple[int, ...]) -> None:
    told = encode(Denied(1, args, 1, "broker"))  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError):
        decode_up(told)


def test_one_that_talks_without_end_has_no_more_than_its_turn() -> None:
    """A broker may be taken over by the names that it reads."""
    here = program.current()

    class Talker(BrokerProcess):
        def on_message(self, message: Message | Word, descriptors: list[int]) -> bool:
            heard.append(message)
            if len(heard) == 1:
                here.supervisor.run_soon(lambda: turns.append(len(heard)))
            return False

    heard: list[object] = []
    turns: list[int] = []
    broker = Talker(here, "a broker that talks")
    with socket.socket(fileno=os.dup(broker.hand_over())) as theirs:
        for number in range(100):
            theirs.send(encode(Refusal(number, 1, "")), socket.MSG_DONTWAIT)
        broker.handed_over()
        until = time.monotonic() + 10
        while len(heard) < 100 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(heard) == 100
    assert turns and turns[0] < 100


def test_its_socket_is_not_closed_under_one_who_hears_it() -> None:
    """The number could be another socket's by then: `process.denials` hears it on the caller's thread."""
    here = program.current()
    hears, go_on = threading.Event(), threading.Event()

    class Slow(BrokerProcess):
        def on_message(self, message: Message | Word, descriptors: list[int]) -> bool:
            hears.set()
            return not go_on.wait(10)

    broker = Slow(here, "a broker")
    with socket.socket(fileno=os.dup(broker.hand_over())) as theirs:
        theirs.send(encode(Refusal(1, 1, "")))
        broker._theirs.close()
        threads = [threading.Thread(target=broker.hear), threading.Thread(target=broker.end)]
        threads[0].start()
        assert hears.wait(10)
        threads[1].start()
        time.sleep(0.2)
        open_meanwhile = broker._control.fileno() >= 0
        go_on.set()
        for thread in threads:
            thread.join(10)
    assert open_meanwhile and broker._control.fileno() < 0
