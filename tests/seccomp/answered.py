"""Runs in: the test process. What an installed filter decides for *any* call, without one of them being made.

In a child, a first filter asks a thread of the same child about every call whose sixth argument is MAGIC; the thread
answers ALLOWED. A second filter, the one under test, is added for the calling thread only. The kernel takes the
stricter of the two answers, and a refusal is stricter than a question: so a call that the filter under test lets
through comes back as ALLOWED, and one that it refuses with its errno.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import threading
from collections.abc import Sequence

from filtered_child import SYSCALL, in_child

from bunri.kernel import prctl, seccomp
from bunri.seccomp import Action

MAGIC = 0x5EED5EED
ALLOWED = 4000  # an errno that no call gives
# Written by hand: our rules do not compare the sixth argument of calls where it is a pointer.
_ASKING = b"".join(
    struct.pack("<HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, 16 + 8 * 5),  # load the low word of the sixth argument
        (0x15, 0, 1, MAGIC),
        (0x06, 0, 0, Action.NOTIFY.value),
        (0x06, 0, 0, Action.ALLOW.value),
    )
)
_RECEIVE, _SEND = 0xC0502100, 0xC0182101


class _Answer(ctypes.Structure):
    """struct seccomp_notif_resp."""

    _fields_ = (("id", ctypes.c_uint64), ("val", ctypes.c_int64), ("error", ctypes.c_int32), ("flags", ctypes.c_uint32))


def decisions(program: bytes, calls: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
    """ALLOWED or the errno, for each call; its first five arguments are looked at."""
    read_end, write_end = os.pipe()
    results = (ctypes.c_uint16 * len(calls))()
    made = [(number, [ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0, 0)[:5]]) for number, args in calls]

    def child() -> int:
        prctl.set_no_new_privs()
        listener = seccomp.set_filter(_ASKING, seccomp.FLAG_NEW_LISTENER)
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        seccomp.set_filter(program)
        magic = ctypes.c_ulong(MAGIC)
        for index, (number, args) in enumerate(made):
            ctypes.set_errno(0)
            assert SYSCALL(ctypes.c_long(number), *args, magic) == -1
            results[index] = ctypes.get_errno()
        os.write(write_end, bytes(results))
        return 0

    try:
        status = in_child(child)
        os.close(write_end)
        write_end = -1
        with os.fdopen(os.dup(read_end), "rb") as stream:
            data = stream.read()
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    assert status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"
    return list(memoryview(data).cast("H"))


def _answer(listener: int) -> None:
    while True:
        asked = bytearray(80)  # struct seccomp_notif
        fcntl.ioctl(listener, _RECEIVE, asked)
        answer = _Answer(int.from_bytes(asked[:8], "little"), 0, -ALLOWED, 0)
        fcntl.ioctl(listener, _SEND, bytes(answer))
