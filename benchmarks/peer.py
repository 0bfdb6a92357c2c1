"""Runs in: a small interpreter of its own (-I -S -B), without bunri. The other end of what bunri is compared with.

    peer.py KIND DESCRIPTOR [MODULES PATH...]

ping: echoes packets. pipe: answers multiprocessing's messages. stream: echoes 1 MiB. forks: forks as often as asked;
each child answers and ends; when all are reaped it says so.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys

SIZE = 1 << 20  # bytes, of the large echo


def ping(number: int) -> None:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, number)
    while packet := peer.recv(4096):
        peer.send(packet)


def pipe(number: int) -> None:
    from multiprocessing.connection import Connection

    peer = Connection(number)
    while True:
        try:
            _, (value,) = peer.recv()
        except EOFError:
            return
        peer.send(value)


def stream(number: int) -> None:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, number)
    buffer = memoryview(bytearray(SIZE))
    while receive_all(peer, buffer):
        peer.sendall(buffer)


def receive_all(sock: socket.socket, buffer: memoryview) -> bool:
    """Fill the buffer; False at the end of the stream."""
    filled = 0
    while filled < len(buffer):
        count = sock.recv_into(buffer[filled:])
        if not count:
            return False
        filled += count
    return True


def forks(number: int) -> None:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, number)
    gc.freeze()
    while packet := peer.recv(64):
        for _ in range(int(packet)):
            pid = os.fork()
            if pid == 0:
                peer.send(b"here")
                os._exit(0)
            os.waitpid(pid, 0)
        peer.send(b"over")


KINDS = {"ping": ping, "pipe": pipe, "stream": stream, "forks": forks}

if __name__ == "__main__":
    kind, descriptor, *more = sys.argv[1:]
    if more:
        sys.path[:0] = more[1:]
        for module in more[0].split(","):
            importlib.import_module(module)
    KINDS[kind](int(descriptor))
