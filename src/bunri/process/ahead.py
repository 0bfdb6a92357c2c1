"""Runs in: the monitor. Which memory a worker copies before it does anything else.

A worker shares its template's memory, and the kernel copies each page when it is first written to (fork(2)). For CPython
that is every page whose objects are used: some three hundred faults between START and the first answer, each of which
costs more than the copy. So a worker has its copies made at once; a spare one, while nobody waits. Its template pins these
pages, so that the fork itself makes them (kernel/pinned.py); what it may not pin, the worker copies first of all. Which
pages they will be, the kernel knows of the workers that were used before: the first few, of which each must have written
to a page.

Any of them may be somebody else's, and write to pages that no other needs, or to none. All that this costs is time: a
worker copies MOST pages at the most, and what is in them every worker has anyway.
"""

from __future__ import annotations

import os

from bunri.kernel import procfs

LESSONS = 4  # workers of one template that are learned from
MOST = 1024  # pages
LOOKED_AT = 1 << 16  # pages of address space: a worker may have as much of it as it likes, and each takes time


class Written:
    """The pages of one template that its workers write to."""

    def __init__(self) -> None:
        self._left = LESSONS
        self._pages: set[int] | None = None

    def learn(self, template: int, worker: int) -> tuple[int, ...] | None:
        """What to copy, from a worker that is about to end: (address, bytes, address, bytes ...). None: nothing new."""
        if not self._left:
            return None
        self._left -= 1
        try:
            written = {address for address, own in _pages_of(worker) if own}
            written &= {address for address, _ in _pages_of(template)}
        except OSError:  # not for this user to read, too much to look at, or it has just ended
            return None
        if len(written) > MOST:
            return None
        known, self._pages = self._pages, written if self._pages is None else self._pages & written
        return _runs(self._pages) if self._pages != known else None


def _pages_of(pid: int) -> list[tuple[int, bool]]:
    directory = procfs.open_process(pid)
    try:
        return list(procfs.private_pages(directory, LOOKED_AT))
    finally:
        os.close(directory)


def _runs(pages: set[int]) -> tuple[int, ...]:
    """Neighbours are one run."""
    size = os.sysconf("SC_PAGE_SIZE")
    runs: list[int] = []
    for address in sorted(pages):
        if runs and address == runs[-2] + runs[-1]:
            runs[-1] += size
        else:
            runs += (address, size)
    return tuple(runs)
