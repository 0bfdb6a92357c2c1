"""Runs in: the decoder, confined. The ring of blocks that the kernel writes packets to: TPACKET_V3, packet_mmap.rst.

The kernel fills a block and gives it to us by its status; we give it back by writing the status last. The decoder that
was here before may have written anything into this memory, so lengths and offsets are checked against the block.
`progress` says where we are: block, packet, and the packet that the batch at work began with. By these three numbers
another decoder goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
from collections.abc import Iterator
from typing import Final

import bunri
from bunri.apps.dump.capture import Packet
from bunri.apps.dump.messages import Place, RingShape

_KERNEL: Final = 0
_BLOCK: Final = struct.Struct("=IIIII")  # version, offset of private, status, packets, offset of the first
_PACKET: Final = struct.Struct("=IIIIIIHHII H").unpack_from
_LINK: Final = struct.Struct("=HHIHBB8s").unpack_from  # struct sockaddr_ll, 48 bytes behind
PLACE: Final = struct.Struct("=QQQ")
_VLAN, _VLAN_KIND = 1 << 4, 1 << 6  # TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID
_OUTGOING: Final = 4
_SMALL: Final = 48


class Ring:
    """Walks the blocks in order."""

    def __init__(
        self, shape: RingShape, memory: memoryview, progress: memoryview, bell: bunri.File, start: Place
    ) -> None:
        self._shape = shape
        self._memory = memory
        self._progress = progress
        self._bell = bell
        self._block = start.block
        self._skip = start.packet
        self._nano = shape.nanoseconds
        PLACE.pack_into(progress, 0, start.block, start.packet, start.packet)

    @property
    def _is_ours(self) -> bool:
        """Whether the kernel has filled the block at which we are."""
        status = int(_BLOCK.unpack_from(self._memory, self._block * self._shape.block_size)[2])
        return status & 1 != _KERNEL

    def block(self, seconds: float) -> Iterator[Packet]:
        """The packets of the next block; none, where the kernel has not filled it `seconds` later, or the bell rings for
        nothing."""
        if not self._is_ours:
            rung, _, _ = select.select([self._bell], [], [], seconds)
            if rung and not self._is_ours:
                self._hush()
            if not self._is_ours:
                return
        yield from self._walk(1 << 32)
        base = self._block * self._shape.block_size
        struct.pack_into("=I", self._memory, base + 8, _KERNEL)
        self._block = (self._block + 1) % self._shape.blocks
        self._skip = 0
        PLACE.pack_into(self._progress, 0, self._block, 0, 0)

    def _hush(self) -> None:
        """Read the bell: a ring while we look again is not lost, for we look after it."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell.fileno(), 8)

    def _offsets(self) -> Iterator[int]:
        size = self._shape.block_size
        base = self._block * size
        _, _, _, count, at = _BLOCK.unpack_from(self._memory, base)
        for _ in range(min(count, size // _SMALL)):
            if at + 68 > size:
                return
            yield base + at
            step = int(struct.unpack_from("=I", self._memory, base + at)[0])
            if step == 0:
                return
            at += step

    def before(self, stop: int) -> Iterator[Packet]:
        """The packets from the place where we start up to the one with this number in the same block."""
        return self._walk(stop)

    def _walk(self, stop: int) -> Iterator[Packet]:
        progress = self._progress
        pack = PLACE.pack_into
        first = self._skip
        for index, at in enumerate(self._offsets()):
            if index < first:
                continue
            if index >= stop:
                return
            pack(progress, 0, self._block, index, first)
            packet = self._packet(at)
            if packet is not None:
                yield packet

    def here(self) -> Packet | None:
        """The packet at the place where we start; None where there is none."""
        if self._is_ours:
            for index, at in enumerate(self._offsets()):
                if index == self._skip:
                    return self._packet(at)
        return None

    def _packet(self, at: int) -> Packet | None:
        memory, shape = self._memory, self._shape
        _, second, nano, captured, length, status, mac, _, _, tag, kind = _PACKET(memory, at)
        end = (self._block + 1) * shape.block_size
        _, protocol, index, hardware, packet_type, size, address = _LINK(memory, at + 48)
        if index == shape.loopback and packet_type == _OUTGOING:
            return None  # it comes again, as an incoming one
        if shape.direction and (packet_type == _OUTGOING) is not (shape.direction == "out"):
            return None
        data = bytes(memory[at + mac : min(at + mac + captured, end)])
        if shape.cooked == 2:
            big = struct.unpack(">H", struct.pack("=H", protocol))[0]
            data = struct.pack(">HHIHBB8s", big, 0, index, hardware, packet_type, size, address) + data
            length += 20
        elif shape.cooked == 1:
            big = struct.unpack(">H", struct.pack("=H", protocol))[0]
            data = struct.pack(">HHH8sH", packet_type, hardware, size, address, big) + data
            length += 16
        if status & _VLAN and shape.cooked != 2 and len(data) >= 14:
            # The kernel took the tag out of the frame: put it back where it was.
            where = 14 if shape.cooked else 12
            data = (
                data[:where] + struct.pack(">HH", kind if status & _VLAN_KIND else 0x8100, tag & 0xFFFF) + data[where:]
            )
            length += 4
        return Packet(second, nano if self._nano else nano // 1000, length, data[: shape.snap])
