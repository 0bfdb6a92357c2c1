"""File, Mapped, Secret as values of this process."""

from __future__ import annotations

import copy
import mmap
import os
import pickle
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bunri
from bunri.errors import UsageError
from bunri.policy import Access


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def test_a_file_is_read_and_written(folder: Path) -> None:
    with bunri.File.open(folder / "a", "w") as file, file.as_file() as stream:
        stream.write(b"abc")
    with bunri.File.open(folder / "a", "a") as file, file.as_file() as stream:
        stream.write(b"d")
    with bunri.File.open(folder / "a") as file, file.as_file() as stream:
        assert stream.read() == b"abcd"


def test_a_file_owns_its_descriptor() -> None:
    reader, writer = os.pipe()
    file = bunri.File(reader)
    assert file.fileno() == reader
    file.close()
    file.close()
    assert file.closed
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(reader)
    with pytest.raises(ValueError, match="closed"):
        file.fileno()
    os.close(writer)


def test_as_file_takes_the_descriptor_over() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    file = bunri.File(reader)
    with file.as_file():
        assert file.closed
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(reader)


def test_a_file_left_open_is_closed_with_a_warning() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.warns(ResourceWarning, match="unclosed <File"):
        bunri.File(reader)  # nobody keeps it
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(reader)


def test_a_file_that_could_not_be_made_takes_nothing() -> None:
    number = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(UsageError, match="openat"):
            bunri.File(number)
        os.fstat(number)  # still the caller's
    finally:
        os.close(number)


@pytest.mark.parametrize("path", ["/", "/proc/self/exe"])
def test_a_descriptor_that_names_a_place_is_refused(path: str) -> None:
    number = os.open(path, os.O_PATH)
    try:
        with pytest.raises(UsageError, match="way out"):
            bunri.File(number)
    finally:
        os.close(number)


def test_a_socket_is_no_file() -> None:
    left, right = socket.socketpair()
    with left, right, pytest.raises(UsageError, match=r"socket\.socket"):
        bunri.File(left.fileno())


def test_an_unknown_mode_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="r, w, a, x"):
        bunri.File.open("/dev/null", "rw")


def test_a_new_file_is_private(folder: Path) -> None:
    with bunri.File.open(folder / "a", "x"):
        assert (folder / "a").stat().st_mode & 0o077 == 0


def test_an_opened_file_is_not_inherited() -> None:
    with bunri.File.open("/dev/null") as file:
        assert not os.get_inheritable(file.fileno())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_handles_refuse_pickle_with_the_way_out(protocol: int) -> None:
    with bunri.File.open("/dev/null") as file:
        for handle in (file, bunri.Secret(b"x"), bunri.Mapped(0, 1)):
            with pytest.raises(UsageError, match="Pass it"):
                pickle.dumps(handle, protocol)
            with pytest.raises(UsageError):
                copy.copy(handle)


def test_a_mapping_is_read(folder: Path) -> None:
    with (folder / "m").open("w+b") as file:
        file.write(b"abc")
        file.flush()
        mapped = bunri.Mapped(file.fileno(), 3, Access.READ)
        with mapped.buffer as view:
            assert bytes(view) == b"abc"
            assert view.readonly


@pytest.mark.parametrize(("length", "access"), [(0, Access.READ), (-1, Access.READ), (1, "read"), (1, True)])
def test_a_mapping_of_nothing_or_with_a_boolean_is_refused(length: int, access: Any) -> None:
    with pytest.raises(UsageError):
        bunri.Mapped(0, length, access)


def test_a_received_mapping_has_no_descriptor() -> None:
    with mmap.mmap(-1, 10) as memory, pytest.raises(ValueError, match="no descriptor"):
        bunri.Mapped.from_mapping(memory, Access.READ).fileno()


def test_a_secret_shows_nothing() -> None:
    secret = bunri.Secret("geheim")
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>9}", f"{secret!r}", "%s" % secret, repr([secret])]  # noqa: UP031
    assert not any("geheim" in text for text in shown)
    assert all("***" in text for text in shown)


def test_a_secret_is_compared_and_wiped() -> None:
    secret, same = bunri.Secret("geheim"), bunri.Secret(b"geheim")
    assert secret == same
    assert secret != bunri.Secret("geheil")
    assert secret != bunri.Secret("g")
    assert secret != b"geheim"
    seen = secret.reveal()
    assert type(seen) is bytearray
    secret.wipe()
    assert seen == bytes(6)
    assert secret != same


def test_a_secret_has_no_hash() -> None:
    with pytest.raises(TypeError, match="hash"):
        hash(bunri.Secret(b"x"))


def test_a_secret_copies_what_it_is_made_of() -> None:
    data = bytearray(b"abc")
    secret = bunri.Secret(data)
    data[:] = b"xyz"
    assert secret.reveal() == b"abc"
