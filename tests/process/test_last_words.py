"""Who ends without reading what was sent to it is heard all the same: unix(7) tells ECONNRESET first, and once."""

from __future__ import annotations

import socket
import time

import parts
import pytest

import bunri
from bunri.channel.link import Link


@pytest.mark.parametrize("takes", [False, True], ids=["plain", "with descriptors"])
def test_the_last_words_are_heard_by_who_waits_for_them(takes: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        link = Link(ours, takes=takes)
        link.send(b"unread")
        theirs.send(b"last words")
        theirs.close()
        assert link.receive() == (b"last words", [])
        assert link.receive() == (b"", [])


@pytest.mark.parametrize("takes", [False, True], ids=["plain", "with descriptors"])
def test_the_last_words_of_a_worker_are_heard(takes: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        link = Link(ours, takes=takes)
        link.send(b"unread")
        theirs.send(b"last words")
        theirs.close()
        assert link.has_unread()
        assert link.receive_now() == (b"last words", [])
        assert not link.has_unread()
        assert link.receive_now() == (b"", [])


def test_the_kernel_tells_the_reset_first() -> None:
    """The control: what a plain recv(2) gets there."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.send(b"unread")
        theirs.send(b"last words")
        theirs.close()
        with pytest.raises(ConnectionResetError):
            ours.recv(64)
        assert ours.recv(64) == b"last words"


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.2])
def test_a_failing_init_is_heard_however_late_somebody_listens(seconds: float) -> None:
    """Its end is reported on another socket than its error."""
    for _ in range(5):
        worker = parts.Fails.start()
        time.sleep(seconds)
        with pytest.raises(bunri.RemoteError, match="RuntimeError: no"):
            worker.ping()
