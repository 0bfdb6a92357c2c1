"""Runs in: a broker's process. User notification of seccomp (seccomp_unotify(2)): calls that stand still until answered.

SEND with CONTINUE is not offered: a call that goes on reads its memory again, and that may have changed meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from typing import Final, NamedTuple

_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif: id, pid, flags; nr, arch, ip, args
_RESPONSE: Final = struct.Struct("=QqiI")
_ADD_FD: Final = struct.Struct("=QIIII")
_ID: Final = struct.Struct("=Q")


def _ioctl(direction: int, number: int, size: int) -> int:
    """_IOC of asm-generic/ioctl.h, the same on x86-64 and arm64."""
    return direction << 30 | size << 16 | ord("!") << 8 | number


_RECV: Final = _ioctl(3, 0, _NOTIFICATION.size)
_SEND: Final = _ioctl(3, 1, _RESPONSE.size)
_ID_VALID: Final = _ioctl(1, 2, _ID.size)
_ADDFD: Final = _ioctl(1, 3, _ADD_FD.size)
_SET_FLAGS: Final = _ioctl(1, 4, 8)

ADDFD_SEND: Final = 2  # Linux 5.14: the descriptor is the answer, in one step
_SYNC_WAKE_UP: Final = 1
_EMPTY: Final = bytes(_NOTIFICATION.size)


class Notification(NamedTuple):
    """One call. `thread` is its id in our pid namespace, 0 where it has none there."""

    id: int
    thread: int
    number: int
    arch: int
    args: tuple[int, ...]


def receive(listener: int) -> Notification | None:
    """The next call; blocks. None where the call was interrupted before it was taken (ENOENT), or all is over."""
    buffer = bytearray(_EMPTY)  # the kernel wants zeros
    try:
        fcntl.ioctl(listener, _RECV, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    id_, thread, _, number, arch, _, *args = _NOTIFICATION.unpack(buffer)
    return Notification(id_, thread, number, arch, tuple(args))


def still_waits(listener: int, id_: int) -> bool:
    """Whether the call still stands there: to be asked after its memory was read, before that is believed."""
    try:
        fcntl.ioctl(listener, _ID_VALID, _ID.pack(id_))
    except FileNotFoundError:
        return False
    return True


def answer(listener: int, id_: int, value: int) -> bool:
    """Let the call return `value`; below zero, fail with that errno. False where nobody waits any more."""
    response = _RESPONSE.pack(id_, value, 0, 0) if value >= 0 else _RESPONSE.pack(id_, 0, value, 0)
    try:
        fcntl.ioctl(listener, _SEND, response)
    except FileNotFoundError:
        return False
    return True


def answer_with(listener: int, id_: int, fd: int, flags: int) -> int | None:
    """Let the call return a copy of `fd`, under a number that the kernel chooses. The number, or None where nobody
    waits any more. `flags`: O_CLOEXEC or 0. OSError where the process may have no more descriptors."""
    request = bytearray(_ADD_FD.pack(id_, ADDFD_SEND, fd, 0, flags))
    try:
        number: int = fcntl.ioctl(listener, _ADDFD, request)
    except FileNotFoundError:
        return None
    return number


def takes_descriptors(listener: int) -> bool:
    """Whether the kernel lets a descriptor be the answer in one step (Linux 5.14)."""
    try:
        fcntl.ioctl(listener, _ADDFD, _ADD_FD.pack(0, ADDFD_SEND, listener, 0, 0))
    except OSError as error:
        return error.errno == errno.ENOENT  # there is no such call: so far it got
    return True


def wake_on_same_processor(listener: int) -> None:
    """SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6): who waits and who answers take turns on one processor. OSError
    where the kernel does not know it."""
    fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)
