"""Runs in: the test process. A small file goes out whole; of any other, what is left is what the loop goes on with."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from bunri.apps.ftpd.files import OpenFile
from bunri.apps.ftpd.transfers import AT_ONCE, send_at_once


@contextlib.contextmanager
def opened(place: Path, size: int, at: int = 0) -> Generator[OpenFile]:
    (place / "file").write_bytes(os.urandom(size))
    file = OpenFile(os.open(place / "file", os.O_RDONLY), "rb", "file")
    with contextlib.closing(file):
        file.seek(at)
        yield file


def all_of(peer: socket.socket) -> bytes:
    with peer.makefile("rb") as reader:
        return reader.read()


@pytest.mark.parametrize(
    ("size", "at"), [(0, 0), (1, 0), (AT_ONCE - 1, 0), (5000, 4999), (5000, 5000), (AT_ONCE + 9, 10)]
)
def test_a_small_file_is_sent_whole_from_where_it_stands(tmp_path: Path, size: int, at: int) -> None:
    ours, peer = socket.socketpair()
    with ours, peer, opened(tmp_path, size, at) as file:
        ours.setblocking(False)
        sent, is_whole = send_at_once(ours, file)
        assert (sent, is_whole) == (size - at, True)
        ours.close()
        assert all_of(peer) == (tmp_path / "file").read_bytes()[at:]


def test_what_is_left_of_a_large_file_stands_where_the_file_says(tmp_path: Path) -> None:
    ours, peer = socket.socketpair()
    with ours, peer, opened(tmp_path, AT_ONCE + 1) as file:
        ours.setblocking(False)
        assert send_at_once(ours, file) == (AT_ONCE, False)
        assert file.tell() == AT_ONCE
        ours.close()
        assert all_of(peer) == (tmp_path / "file").read_bytes()[:AT_ONCE]


def test_a_socket_without_room_is_left_to_the_loop(tmp_path: Path) -> None:
    ours, peer = socket.socketpair()
    with ours, peer, opened(tmp_path, 100, at=1) as file:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while ours.send(bytes(1 << 16)):
                continue
        assert send_at_once(ours, file) == (0, False)
        assert file.tell() == 1


def test_a_peer_that_has_gone_is_left_to_the_loop(tmp_path: Path) -> None:
    ours, peer = socket.socketpair()
    with ours, opened(tmp_path, 100) as file:
        peer.close()
        assert send_at_once(ours, file) == (0, False) and file.tell() == 0
