"""Runs in: a monitor that was started as root. Hands out dynamic uids, each to one live process at a time.

The range is the one that systemd sets aside for the same purpose (61184 to 65519). Programs share it without meeting:
each takes blocks of 64 and holds a lock file on each block for as long as it lives. The lock files lie in a folder
that only root may enter, so nobody else can take the blocks away.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import threading
from collections import deque

from bunri.errors import HostError, Promise

FIRST, LAST = 61184, 65519
BLOCK = 64
_FOLDER = "/run/bunri"


Blocks = tuple[tuple[int, int], ...]  # (first uid, how many)


class AllTakenError(HostError):
    """No uid is left of those that a role knows. A new one knows others."""


class DynamicUsers:
    """The uids of one program."""

    def __init__(self, mapped: tuple[tuple[int, int], ...], folder: str = _FOLDER) -> None:
        self._mapped = mapped
        self._folder = folder
        self._free: deque[int] = deque()
        self._blocks: dict[int, int] = {}  # first uid -> descriptor of the lock file
        self._lock = threading.Lock()

    def take(self, within: Blocks | None = None) -> int:
        """A uid that no live process of any bunri program has. HostError when all are taken.

        `within`: only one of these blocks, which a role's user namespace maps; AllTakenError where they have none left.
        """
        with self._lock:
            if within is None and not self._free:
                self._take_block()
            for uid in self._free:
                if within is None or _is_in(uid, within):
                    self._free.remove(uid)
                    return uid
        raise AllTakenError(
            "all uids that this zygote knows are in use",
            promise=Promise.IDENTITY,
            layer="own uid",
            remedy="Start again: another zygote is made, which knows more of them",
        )

    def has_free(self, within: Blocks) -> bool:
        """Whether one of these blocks has a uid left."""
        with self._lock:
            return any(_is_in(uid, within) for uid in self._free)

    def take_for_life(self) -> tuple[int, int]:
        """A uid, and the descriptor of the lock on its block, which the caller keeps open."""
        uid = self.take()
        first = next(first for first in self._blocks if first <= uid < first + BLOCK)
        return uid, self._blocks.pop(first)

    def give_back(self, uid: int) -> None:
        """The last process with this uid is reaped. It goes to the end of the queue: reuse is as late as can be."""
        with self._lock:
            self._free.append(uid)

    def blocks(self) -> Blocks:
        """The (first, count) ranges taken so far, what a role's user namespace maps. Two uids at least are left in them: the role's own,
        and a worker's."""
        with self._lock:
            if len(self._free) < 2:
                self._take_block()
            return tuple((first, BLOCK) for first in self._blocks)

    def close(self) -> None:
        """Give all blocks back."""
        with self._lock:
            for number in self._blocks.values():
                os.close(number)
            self._blocks.clear()
            self._free.clear()

    def _take_block(self) -> None:
        for first in range(FIRST, LAST - BLOCK + 2, BLOCK):
            if first in self._blocks or not self._is_mapped(first):
                continue
            number = self._lock_block(first)
            if number is None:
                continue
            self._blocks[first] = number
            self._free.extend(uid for uid in range(first, first + BLOCK) if not _has_account(uid))
            if self._free:
                return
        raise HostError(
            f"no free uid between {FIRST} and {LAST} is left for another worker",
            promise=Promise.IDENTITY,
            layer="own uid",
            remedy="Map that range into the container's user namespace, end other programs, or name a user with Policy(user=...)",
        )

    def _is_mapped(self, first: int) -> bool:
        return any(start <= first and first + BLOCK <= start + count for start, count in self._mapped)

    def _lock_block(self, first: int) -> int | None:
        try:
            return self._lock_file(first)
        except OSError as fault:
            raise HostError(
                f"{self._folder}, where programs tell each other which uids they use, cannot be written",
                promise=Promise.IDENTITY,
                layer="own uid",
                errno=fault.errno,
                remedy=f"In a systemd unit with ProtectSystem=strict: ReadWritePaths={self._folder}, and that folder made by tmpfiles.d; "
                f"or name a user with Policy(user=...)",
            ) from None

    def _lock_file(self, first: int) -> int | None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        info = os.lstat(self._folder)
        if info.st_uid != 0 or info.st_mode & 0o022:
            raise HostError(
                f"{self._folder} is not root's alone",
                promise=Promise.IDENTITY,
                layer="own uid",
                remedy=f"Remove {self._folder}",
            )
        path = f"{self._folder}/uids-{first}"
        while True:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(number), os.lstat(path)):
                    return number
            except BlockingIOError:
                os.close(number)
                return None
            except FileNotFoundError:
                pass
            os.close(number)  # somebody has removed it meanwhile: a lock on that one says nothing to anybody


def _is_in(uid: int, blocks: Blocks) -> bool:
    return any(first <= uid < first + count for first, count in blocks)


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
