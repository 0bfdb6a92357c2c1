"""Runs in: a broker's process. The memory of its worker, by a descriptor of /proc/PID/mem that the monitor opened.

So the broker needs no right over any process, and the memory stays that worker's, whoever gets its number. A page that
somebody holds back by userfaultfd is refused to this file at once; it does not wait (THREATS 17).
"""

from __future__ import annotations

import errno
import os
from typing import Final

from bunri.broker.beneath import refused

LONGEST_PATH: Final = 4096
_PAGE: Final = 4096
_PIECE: Final = 256  # bytes: nearly every path is shorter, and need not be copied with all that stands behind it
_LAST: Final = 1 << 56  # above every address of a process


class Memory:
    """Reads once: what was read is ours, and nobody changes it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes. EFAULT where they are not all there."""
        data = self._some(address, size)
        if len(data) != size:
            raise refused(errno.EFAULT)
        return data

    def text(self, address: int) -> bytes:
        """The string that stands there, without its NUL. ENAMETOOLONG above PATH_MAX."""
        found = b""
        while len(found) < LONGEST_PATH:
            at = address + len(found)
            data = self._some(at, min(_PAGE - at % _PAGE, _PIECE))
            end = data.find(b"\0")
            if end >= 0:
                found += data[:end]
                break
            found += data
        if len(found) >= LONGEST_PATH:
            raise refused(errno.ENAMETOOLONG)
        return found

    def write(self, address: int, data: bytes) -> None:
        """Put an answer there."""
        if 0 < address < _LAST:
            try:
                written = os.pwrite(self.fd, data, address)
            except OSError:
                written = -1
            if written == len(data):
                return
        raise refused(errno.EFAULT)

    def _some(self, address: int, size: int) -> bytes:
        if 0 < address < _LAST:
            try:
                data = os.pread(self.fd, size, address)
            except OSError:
                data = b""
            if data:
                return data
        raise refused(errno.EFAULT)
