"""Runs in: the decoder, confined. The ring of blocks that the kernel writes packets to: TPACKET_V3, packet_mmap.rst.

The kernel fills a block and gives it to us by its status; we give it back, whole, by writing the status last. The
decoder that was here before may have written anything into this memory. So a block is copied out of it once, as far as
it is filled; lengths and offsets are read in the copy, checked against it, and are then what is used.
`progress` says where we are: block, packet, and the packet that the batch at work began with. By these three numbers
another decoder goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import time
from collections.abc import Iterator
from itertools import islice
from typing import Final

import bunri
from bunri.apps.dump import capture
from bunri.apps.dump.capture import Packet
from bunri.apps.dump.messages import Place, RingShape, Where

_KERNEL: Final = 0
_BLOCK: Final = struct.Struct("=IIIIII")  # version, offset of private, status, packets, offset of the first, bytes
_PACKET: Final = struct.Struct("=IIIIIIH").unpack_from  # struct tpacket3_hdr, as far as all packets need it
_STEP: Final = struct.Struct("=I").unpack_from  # its tp_next_offset, the first of them
_TAG: Final = struct.Struct("=IH").unpack_from  # its tp_vlan_tci and tp_vlan_tpid
_LINK: Final = struct.Struct("=HHIHBB8s").unpack_from  # struct sockaddr_ll, 48 bytes behind
PLACE: Final = struct.Struct("=QQQ")
_VLAN, _VLAN_KIND = 1 << 4, 1 << 6  # TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID
_OUTGOING: Final = 4
_HEADS: Final = 68  # bytes before a packet's own: both structs
_NO_STOP: Final = 1 << 32


class Ring:
    """Walks the blocks in order."""

    def __init__(
        self, shape: RingShape, memory: memoryview, progress: memoryview, bell: bunri.File, start: Place
    ) -> None:
        self._shape = shape
        self._memory = memory
        self._progress = progress
        self._place = progress[: PLACE.size].cast("Q")
        self._bell = bell
        self._block = start.block
        self._skip = start.packet
        self._unit = 1 if shape.nanoseconds else 1000
        self._sorts = bool(shape.direction or shape.loopback)  # some packets are not wanted
        PLACE.pack_into(progress, 0, start.block, start.packet, start.packet)

    @property
    def _base(self) -> int:
        return self._block * self._shape.block_size

    @property
    def _is_ours(self) -> bool:
        """Whether the kernel has filled the block at which we are."""
        return int(_BLOCK.unpack_from(self._memory, self._base)[2]) & 1 != _KERNEL

    def comes(self, seconds: float) -> bool:
        """Whether the kernel has filled the next block, now or at most `seconds` later. The bell may ring for nothing."""
        until = time.monotonic() + seconds
        while not self._is_ours:
            rung, _, _ = select.select([self._bell], [], [], max(until - time.monotonic(), 0.0))
            if not rung:
                return self._is_ours
            self._hush()
        return True

    def _hush(self) -> None:
        """Read the bell. A ring from before is not lost: we look again behind it."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell.fileno(), 8)

    def give_back(self) -> None:
        """The block is done with: the kernel may fill it again, and the next one is ours to wait for."""
        struct.pack_into("=I", self._memory, self._base + 8, _KERNEL)
        self._block = (self._block + 1) % self._shape.blocks
        self._skip = 0
        PLACE.pack_into(self._progress, 0, self._block, 0, 0)

    def count(self) -> int:
        """How many packets the block has for us. Where all of them are, none is looked at."""
        if self._sorts:
            return sum(1 for _ in self.places())
        _, _, _, count, _, _ = _BLOCK.unpack_from(self._memory, self._base)
        return max(min(int(count), self._shape.block_size // _HEADS) - self._skip, 0)

    def _copied(self) -> tuple[bytes, int, int]:
        """The block, out of the memory; how many packets it has; where in it the one is at which we start."""
        base, size = self._base, self._shape.block_size
        filled = min(int(_BLOCK.unpack_from(self._memory, base)[5]), size)
        block = bytes(self._memory[base : base + filled])
        if filled < _BLOCK.size:
            return block, 0, 0
        _, _, _, count, at, _ = _BLOCK.unpack_from(block)
        count = min(count, filled // _HEADS)
        for _ in range(min(self._skip, count)):
            if at <= filled - _HEADS:
                at += _STEP(block, at)[0]
        return block, count, at

    def places(self, stop: int = _NO_STOP) -> Iterator[Where]:
        """The packets of the block from the place where we start, up to the one with the number `stop`: each where it
        stands in the copy."""
        block, count, at = self._copied()
        unpack, place, unit, snap = _PACKET, self._place, self._unit, self._shape.snap
        sorts, is_cooked = self._sorts, self._shape.cooked > 0
        end = len(block)
        last = end - _HEADS
        for index in range(self._skip, min(count, stop)):
            if at > last:
                return
            step, second, nano, captured, length, status, mac = unpack(block, at)
            start = at + mac
            behind = start + captured
            if behind > end:
                return
            place[1] = index
            if sorts and not self._is_wanted(block, at):
                pass
            elif is_cooked or status & _VLAN or captured > snap:
                length, data = self._made(block, at, status, length, block[start:behind])
                yield second, nano // unit, length, data, 0, len(data)
            else:
                yield second, nano // unit, length, block, start, behind
            at += step

    def add_records(self, records: bytearray, most: int) -> int:
        """`places` as they stand in a pcap file, behind `records`, at most `most` of them (-1: all); how many they are.

        Where every packet is wanted, in one loop, which takes two thirds of the time. Nothing of a packet but its lengths
        is read there, so that no decoder ends on one, and the place need not be written down for each.
        """
        if self._sorts or self._shape.cooked:
            return capture.add_records(records, islice(self.places(), None if most < 0 else most))
        block, count, at = self._copied()
        unpack, pack, unit, snap = _PACKET, capture.RECORD.pack, self._unit, self._shape.snap
        end = len(block)
        last = end - _HEADS
        count = max(count - self._skip, 0)
        if 0 <= most < count:
            count = most
        for index in range(count):
            if at > last:
                return index
            step, second, nano, captured, length, status, mac = unpack(block, at)
            start = at + mac
            behind = start + captured
            if behind > end:
                return index
            if status & _VLAN or captured > snap:
                length, data = self._made(block, at, status, length, block[start:behind])
                records += pack(second, nano // unit, len(data), length)
                records += data
            else:
                records += pack(second, nano // unit, captured, length)
                records += block[start:behind]
            at += step
        return count

    def here(self) -> Packet | None:
        """The packet at the place where we start; None where there is none."""
        if self._is_ours:
            for second, fraction, length, b, start, stop in self.places(self._skip + 1):
                return Packet(second, fraction, length, b[start:stop])
        return None

    def _is_wanted(self, block: bytes, at: int) -> bool:
        """Whether a packet goes the way that was asked for, and does not come again."""
        shape = self._shape
        _, _, index, _, packet_type, _, _ = _LINK(block, at + 48)
        outgoing = packet_type == _OUTGOING
        if outgoing and index == shape.loopback:
            return False  # it comes again, as an incoming one
        return not shape.direction or outgoing is (shape.direction == "out")

    def _made(self, block: bytes, at: int, status: int, length: int, data: bytes) -> tuple[int, bytes]:
        """Length and bytes of a packet that is not to stay as the kernel left it."""
        shape = self._shape
        _, protocol, index, hardware, packet_type, size, address = _LINK(block, at + 48)
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
            tag, kind = _TAG(block, at + 32)
            where = 14 if shape.cooked else 12
            data = (
                data[:where] + struct.pack(">HH", kind if status & _VLAN_KIND else 0x8100, tag & 0xFFFF) + data[where:]
            )
            length += 4
        return length & 0xFFFFFFFF, data[: shape.snap]
