"""Runs in: every process. memfd_create(2) and its seals: memory that can be shared without being pulled away."""

from __future__ import annotations

import errno
import fcntl
import os

CLOEXEC, ALLOW_SEALING, NOEXEC_SEAL = 1, 2, 8
SEAL_SEAL, SEAL_SHRINK, SEAL_GROW, SEAL_WRITE, SEAL_FUTURE_WRITE, SEAL_EXEC = 1, 2, 4, 8, 16, 32
FIXED_SIZE = SEAL_SEAL | SEAL_SHRINK | SEAL_GROW

_ADD_SEALS, _GET_SEALS = 1033, 1034


def create(name: str, flags: int) -> int:
    """memfd_create(2)."""
    try:
        return os.memfd_create(name, flags)
    except OSError as error:
        raise OSError(error.errno, f"memfd_create: {error.strerror}") from None


def add_seals(fd: int, mask: int) -> None:
    fcntl.fcntl(fd, _ADD_SEALS, mask)


def seals(fd: int) -> int:
    """The seals of a memfd. EINVAL for what is no memfd."""
    return fcntl.fcntl(fd, _GET_SEALS)


def text(name: str, content: bytes) -> int:
    """A memfd with this content, which nobody changes any more."""
    fd = create(name, CLOEXEC | ALLOW_SEALING)
    try:
        os.write(fd, content)
        add_seals(fd, FIXED_SIZE | SEAL_WRITE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def arena(name: str, size: int) -> int:
    """A memfd of exactly `size` bytes that nobody can shrink, grow or unseal; never executable where the kernel has
    that (6.3)."""
    try:
        fd = create(name, CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = create(name, CLOEXEC | ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        add_seals(fd, FIXED_SIZE)
    except BaseException:
        os.close(fd)
        raise
    return fd
