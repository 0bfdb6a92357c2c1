"""Runs in: the zygotes of the pre-login and the session worker, before any worker. Short talks with nobody.

What CPython has run so often it has specialised (PEP 659), and its later runs write to fewer pages, each of which every
worker would have to copy.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

TIMES = 12


def rehearse(said: bytes, talk: Callable[[socket.socket], object]) -> None:
    """Let `talk` serve a control connection on which this is said; the last of it ends the talk."""
    for _ in range(TIMES):
        peer, control = socket.socketpair()
        with peer, control:
            peer.sendall(said)
            talk(control)
