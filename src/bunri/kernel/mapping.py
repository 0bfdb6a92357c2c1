"""Runs in: monitor and workers. A shared mapping of a descriptor that keeps no copy of it.

Python's own mmap duplicates the descriptor and holds the copy as long as the mapping lives (only 3.13 can be told not
to). Whoever owned the worker would find it: of a packet socket it sends, where the memory alone lets it read.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat

from bunri.kernel._call import syscall

_SHARED_FIXED = mmap.MAP_SHARED | 0x10  # MAP_FIXED


def shared(fd: int, length: int, *, writable: bool) -> mmap.mmap:
    """`length` bytes of the descriptor, which may be closed afterwards. OSError where it cannot be mapped,
    ValueError for a file that is shorter: whoever read behind its end would be ended.

    Without `writable` the memory is mapped for reading, and a write to it ends the process: hand out read-only views.
    """
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size < length:
        raise ValueError(f"a mapping of {length} bytes of a file that has {found.st_size}")
    room = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    syscall("mmap", address, length, protection, _SHARED_FIXED, fd, 0)
    return room
