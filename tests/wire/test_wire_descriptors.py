"""Real descriptors through a message: what is handed on, what is refused, and that none is left open either way."""

from __future__ import annotations

import gc
import os
import select
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import pytest
from wire_parts import interface, taking

import bunri
from bunri.channel.handles import IncomingHandles, OutgoingHandles
from bunri.errors import ProtocolError, UsageError
from bunri.process import program
from bunri.service import Service, raises
from bunri.wire import contract_of

pack = msgspec.msgpack.encode
MERSENNE: Final = 2**61 - 1  # CPython's hash of a number is its remainder


@pytest.fixture(autouse=True)
def _none_left_open() -> Iterator[None]:
    program.close()  # zygotes of earlier tests, and their spare workers, would open and close others meanwhile
    gc.freeze()  # what was there before need not be looked through
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    gc.unfreeze()
    assert len(os.listdir("/proc/self/fd")) == before


def sink() -> OutgoingHandles:
    return OutgoingHandles(lambda service, contract: 1)


def source(*descriptors: int) -> IncomingHandles:
    return IncomingHandles(list(descriptors), lambda number, contract: None)


def refused(descriptor: int, annotation: Any = bunri.File) -> None:
    """A worker sends this descriptor where `annotation` is declared."""
    try:
        with pytest.raises(ProtocolError):
            taking(annotation).decode_arguments(pack([0]), source(os.dup(descriptor)), None)[0].close()
    finally:
        os.close(descriptor)


def test_a_regular_file_arrives_with_an_offset_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    method = taking(bunri.File)
    with bunri.File.open(tmp_path / "a") as lent:
        os.lseek(lent.fileno(), 5, os.SEEK_SET)
        out = sink()
        body, _ = method.encode_arguments((lent,), out)
        with method.decode_arguments(body, source(*out.descriptors), None)[0] as came:
            assert os.read(came.fileno(), 2) == b"01"
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(came.fileno(), b"x")
        assert os.read(lent.fileno(), 2) == b"56"


def test_a_connected_socket_arrives_as_the_socket_it_is() -> None:
    method = taking(socket.socket)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        out = sink()
        body, _ = method.encode_arguments((theirs,), out)
        with method.decode_arguments(body, source(*out.descriptors), None)[0] as came:
            assert (came.family, came.type) == (theirs.family, theirs.type)
            came.sendall(b"hello")
            assert ours.recv(5) == b"hello"


def test_a_directory_is_refused_in_both_directions() -> None:
    refused(os.open("/", os.O_RDONLY))
    place = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(UsageError, match="way out of every root"):
            bunri.File(place)
    finally:
        os.close(place)


def test_a_descriptor_that_only_names_a_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    refused(os.open(tmp_path / "a", os.O_PATH))


def test_a_file_of_proc_is_refused() -> None:
    refused(os.open("/proc/self/status", os.O_RDONLY))


def test_a_socket_is_no_file_and_a_pipe_no_socket() -> None:
    refused(socket.socket(socket.AF_UNIX).detach())
    reading, writing = os.pipe()
    os.close(writing)
    refused(reading, socket.socket)


def test_a_datagram_socket_stands_only_where_it_is_declared() -> None:
    refused(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(), socket.socket)
    refused(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach(), Annotated[socket.socket, bunri.Datagram])


def test_a_socket_of_another_family_is_refused() -> None:
    refused(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(), socket.socket)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what was claimed before the fault goes with the collector
def test_a_handle_named_twice_or_not_at_all_ends_the_sender() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ProtocolError, match="twice"):
        taking(bunri.File, bunri.File).decode_arguments(pack([0, 0]), source(os.dup(reading)), None)
    with pytest.raises(ProtocolError, match="no value"):
        taking(bunri.File).decode_arguments(pack([0]), source(os.dup(reading), os.dup(reading)), None)
    os.close(reading)
    os.close(writing)


def test_a_secret_shows_itself_to_nobody() -> None:
    method = taking(bunri.Secret)
    body, _ = method.encode_arguments((bunri.Secret("hunter2"),), None)
    came = method.decode_arguments(body, None, None)[0]
    assert came.reveal() == b"hunter2"
    assert "hunter2" not in f"{came!r} {came} {came:>9}"
    came.wipe()
    assert came.reveal() == bytes(7)


# Faults that are open in the sources; each marker goes when its fault does.


def test_a_message_that_could_not_be_made_leaves_no_duplicate_open() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    out = sink()
    try:
        with bunri.File(reading) as lent, pytest.raises(UsageError):
            taking(bunri.File, int).encode_arguments((lent, "no number"), out)
        open_ones = [number for number in out.descriptors if os.path.exists(f"/proc/self/fd/{number}")]
    finally:
        for number in out.descriptors:
            os.close(number)
    assert not open_ones


def test_a_bad_value_beside_a_handle_is_the_senders_error_too() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    out = sink()
    try:
        with bunri.File(reading) as lent, pytest.raises(UsageError):
            taking(bunri.File, str).encode_arguments((lent, "a\0b"), out)
    finally:
        for number in out.descriptors:
            os.close(number)


def _epoll() -> int:
    with select.epoll() as polling:
        return os.dup(polling.fileno())


@pytest.mark.parametrize("make", [lambda: os.pidfd_open(os.getpid()), lambda: _epoll()])
def test_a_kernel_object_that_is_no_file_is_refused(make: Any) -> None:
    refused(make())


def test_keys_made_to_collide_are_refused() -> None:
    keys = [str(uuid.UUID(int=5 + number * MERSENNE)) for number in range(200)]
    with pytest.raises(ProtocolError, match="same hash"):
        taking(dict[uuid.UUID, int]).decode_arguments(pack([[keys, [1] * len(keys)]]), None, None)


def test_services_may_name_each_other() -> None:
    def give(self: Any) -> None: ...

    def back(self: Any) -> None: ...

    one, two = interface(give=give), interface(back=back)
    give.__annotations__ = {"return": two}
    back.__annotations__ = {"return": one}
    contract_of(one)


class Failing(Service):
    @raises(ValueError)
    def work(self) -> None: ...


def test_a_declared_builtin_can_always_be_rebuilt() -> None:
    contract_of(Failing).methods[0].decode_exception(b"\0" + pack("text"))
    with pytest.raises(UsageError, match="from its text alone"):
        raises(UnicodeDecodeError)


def test_the_text_of_a_declared_exception_cannot_steer_a_terminal() -> None:
    assert "\x1b" not in str(contract_of(Failing).methods[0].decode_exception(b"\0" + pack("\x1b[2J")))


def test_opening_a_directory_leaves_nothing_open() -> None:
    probe = os.dup(0)  # the number that the next descriptor gets
    os.close(probe)
    with pytest.raises(UsageError):
        bunri.File.open("/")
    left = os.path.exists(f"/proc/self/fd/{probe}")
    if left:
        os.close(probe)
    assert not left


def test_a_packet_socket_travels_down_and_never_up() -> None:
    """A monitor may hand its worker one; from a worker it would be one that it was never given."""
    try:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        pytest.skip("a packet socket takes CAP_NET_RAW")
    method = taking(Annotated[socket.socket, bunri.Datagram])
    down = IncomingHandles([os.dup(packets.fileno())], lambda number, contract: None, trusted=True)
    with method.decode_arguments(pack([0]), down, None)[0] as taken:
        assert taken.family == socket.AF_PACKET
    refused(packets.detach(), Annotated[socket.socket, bunri.Datagram])


def test_more_than_sixteen_objects_in_a_message_are_refused_by_the_receiver() -> None:
    came = IncomingHandles([], lambda number, contract: object())
    with pytest.raises(ProtocolError, match="16 objects"):
        taking(list[Failing]).decode_arguments(pack([[1] * 17]), came, None)
