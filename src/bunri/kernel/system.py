"""Runs in: every process. sethostname(2), by the C library."""

from __future__ import annotations

import ctypes

from bunri.kernel._call import failure, function

_sethostname = function("sethostname", ctypes.c_char_p, ctypes.c_size_t)


def set_hostname(name: str) -> None:
    """The node name of this uts namespace."""
    encoded = name.encode()
    if _sethostname(encoded, len(encoded)) != 0:
        raise failure("sethostname")
