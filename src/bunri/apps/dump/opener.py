"""Runs in: the opener and its zygote. Holds the packet socket, and never sees a packet.

The monitor makes the socket, which takes CAP_NET_RAW, and hands it over before it is bound: until then it receives
nothing. The opener has no capability, no file, no network; its filter allows bind, setsockopt and waiting besides.
The order (research: a filter that is set late lets packets of the time before through):

    reject everything -> ring -> bind -> drain -> the real filter -> lock it

What it then does is wait for the kernel and ring the decoder's bell.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import select
import socket
import struct
from typing import Annotated, Final

import bunri
from bunri import seccomp
from bunri.apps.dump.messages import Counted, Instruction

_SOL_PACKET: Final = 263
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION = 1, 5, 6, 10
_V3: Final = 2
_PROMISCUOUS: Final = 1
_ATTACH_FILTER, _LOCK_FILTER = 26, 44
_ALL: Final = 0x0003  # ETH_P_ALL
_REJECT: Final = [(0x06, 0, 0, 0)]
_PAUSE: Final = 0.01  # seconds between two bells: the socket stays readable until the decoder gave its block back

POLICY: Final = bunri.Policy(
    memory="128M",
    cpu=None,
    syscalls=[
        seccomp.allow("bind", "setsockopt", "getsockopt", reason="the packet socket that it was handed"),
    ],
)


class Opener(bunri.Compartment):
    """Binds the packet socket, and waits for it."""

    policy = POLICY

    def __init__(self, packets: Annotated[socket.socket, bunri.Datagram], bell: bunri.File) -> None:
        self._socket = packets
        self._bell = bell
        self._received = self._dropped = 0

    def open(
        self, index: int, program: list[Instruction], block: int, blocks: int, wait: int, promiscuous: int
    ) -> None:
        """Bind to the interface with this index (0: all) and fill `blocks` blocks, each at most `wait` milliseconds."""
        sock = self._socket
        self._filter(_REJECT)
        sock.setsockopt(_SOL_PACKET, _VERSION, struct.pack("=i", _V3))
        frame = 2048
        ring = struct.pack("=7I", block, blocks, frame, block // frame * blocks, wait, 0, 0)
        sock.setsockopt(_SOL_PACKET, _RX_RING, ring)
        self._bind(index)
        if promiscuous and index:
            sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("=iHH8s", index, _PROMISCUOUS, 0, b""))
        self._count()  # what was rejected counts for nobody
        self._received = self._dropped = 0
        self._filter(program)
        sock.setsockopt(socket.SOL_SOCKET, _LOCK_FILTER, 1)

    def _filter(self, program: list[Instruction]) -> None:
        instructions = b"".join(struct.pack("=HBBI", *each) for each in program)
        buffer = ctypes.create_string_buffer(instructions, len(instructions))
        head = struct.pack("@HP", len(program), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, head)

    def _bind(self, index: int) -> None:
        """By number: Python's own bind looks the name up, which takes calls that are not granted here."""
        address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(_ALL), index, 0, 0, 0, b"")
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.bind(self._socket.fileno(), address, len(address)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    async def watch(self) -> int:
        """Ring the bell whenever a block is full, or its time is over, until the socket fails: its errno."""
        poll = select.epoll()
        poll.register(self._socket.fileno(), select.EPOLLIN)
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[int] = loop.create_future()

        def ring() -> None:
            loop.remove_reader(poll.fileno())
            is_failure = any(mask & select.EPOLLERR for _, mask in poll.poll(0))
            if is_failure and (fault := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                failed.set_result(fault)
                return
            with contextlib.suppress(BlockingIOError):  # its owner has filled it up, and is rung often enough
                os.write(self._bell.fileno(), struct.pack("=Q", 1))
            loop.call_later(_PAUSE, wait)

        def wait() -> None:
            if not failed.done():
                loop.add_reader(poll.fileno(), ring)

        wait()
        try:
            return await failed
        finally:
            poll.close()

    async def counted(self) -> Counted:
        """Packets received and dropped since `open`."""
        self._count()
        return Counted(self._received, self._dropped)

    def _count(self) -> None:
        # Asking sets the kernel's counters back to 0.
        received, dropped, _ = struct.unpack("=III", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12))
        self._received += received
        self._dropped += dropped
