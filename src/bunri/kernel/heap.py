"""Runs in: zygotes. The C library's heap, and CPython's arenas: malloc_trim(3), mallopt(3).

Where a worker cannot ask the kernel for memory, all that it will have is in the heap before it is cloned, as room that
costs nothing until it is touched: the C library gives nothing back, maps nothing, and takes what it needs from there.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from types import FunctionType
from typing import Final

LARGEST: Final = (1 << 31) - (1 << 16)  # bytes: mallopt takes an int
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8

_libc = ctypes.CDLL(None)


class _Arenas(ctypes.Structure):
    """PyObjectArenaAllocator."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("context", "alloc", "free")]


def trim() -> None:
    """Give back to the kernel what is free, where the C library can (musl cannot): the page tables of each fork are shorter for it."""
    give_back = getattr(_libc, "malloc_trim", None)
    if give_back is not None:
        give_back(0)


def grow(size: int) -> None:
    """From now on malloc(3) has `size` bytes of room, and asks the kernel for no more until they are used.

    ENOMEM where they are not to be had, EINVAL above LARGEST, ENOSYS for a C library without mallopt.
    """
    if size > LARGEST:
        raise OSError(errno.EINVAL, f"a heap of {size} bytes: {LARGEST} is the most that mallopt(3) can be told")
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is None:
        raise OSError(errno.ENOSYS, "this C library has no mallopt(3)")
    for option, value in ((_MMAP_MAX, 0), (_ARENA_MAX, 1), (_TRIM_THRESHOLD, (1 << 31) - 1)):
        if mallopt(option, value) != 1:
            raise OSError(errno.EINVAL, f"mallopt({option}, {value})")
    allocate, free = _libc.malloc, _libc.free
    allocate.restype, allocate.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    room = allocate(size)
    if not room:
        raise OSError(errno.ENOMEM, f"a heap of {size} bytes")
    free(room)


def with_room_for_frames(call: Callable[[], None]) -> None:
    """Make the call where some thousand frames of Python functions have room.

    CPython 3.11 and newer maps its stack of frames piece by piece; a piece that is refused is a SystemError, or worse,
    after little more than a hundred. A piece is as large as the frame needs that it is mapped for, and the next power
    of two: so the call is made in a frame that asks for half of 2 MiB, and has the other half above it.
    """
    _roomy(call)


def _plainly(call: Callable[[], None]) -> None:
    call()


_roomy = FunctionType(_plainly.__code__.replace(co_stacksize=(1 << 20) // 8 + 1), globals())


def take_arenas_from_heap() -> None:
    """CPython maps its arenas, and the stacks of its frames, by mmap: now by calloc, and they are never given back.

    Arenas that were mapped before must not come to free(3): so the other side of it is a function that does nothing.
    """
    _set_arenas(1, _libc.calloc)  # its alloc(context, size) is calloc(1, size)


def have_no_arenas() -> None:
    """CPython gets no more arenas, and takes small objects from malloc(3) one by one, which gives them back.

    Where mmap is refused it would do so too, but ask the kernel in vain before each of them: that took five times as
    long as the decoding itself.
    """
    _set_arenas(0, _libc.labs)  # its alloc(context, size) is labs(0): no memory


def _set_arenas(context: int, alloc: object) -> None:
    address = ctypes.cast
    arenas = _Arenas(context, address(alloc, ctypes.c_void_p), address(_libc.labs, ctypes.c_void_p))  # type: ignore[arg-type]
    ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(arenas))
