"""Runs in: a broker's process. Which granted tree a worker's path belongs to.

The worker's current directory is "/", and it has no descriptor of a directory: so every path is absolute once it is
put in order. Dots are taken out before the look-up; what is left goes to openat2 beneath the tree, which has the last
word.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

from bunri.broker.beneath import Tree, refused
from bunri.broker.messages import TreeGrant


class Found(NamedTuple):
    """A tree, and the name beneath it. `above`: the path is only on the way to the tree."""

    tree: Tree
    name: bytes
    above: bool = False


class Places:
    """The granted trees by their places."""

    def __init__(self, grants: Sequence[TreeGrant], trees: Sequence[Tree | None]) -> None:
        held = [(grant.at.encode(), tree) for grant, tree in zip(grants, trees, strict=True) if tree is not None]
        self._trees = dict(sorted(held, key=lambda each: -len(each[0])))
        self._below = [(at.rstrip(b"/") + b"/", tree) for at, tree in self._trees.items()]
        self._texts: dict[bytes, int] = {}

    def add_text(self, path: str, fd: int) -> None:
        """A file of our own making, by a descriptor."""
        self._texts[path.encode()] = fd

    def text(self, path: bytes) -> int | None:
        """The descriptor of such a file."""
        return self._texts.get(_in_order(path)) if self._texts else None

    def find(self, path: bytes) -> Found:
        """Where the path leads. ENOENT where nothing is granted."""
        wanted = _in_order(path)
        for below, tree in self._below:
            if wanted.startswith(below):
                name = wanted[len(below) :]
                return Found(tree, name + b"/" if path.endswith(b"/") and name else name)
            if wanted == below[:-1]:
                return Found(tree, b"")
        for at, tree in self._trees.items():
            if not tree.is_file and (wanted == b"/" or at.startswith(wanted + b"/")):
                return Found(tree, b"", above=True)
        raise refused(errno.ENOENT)


def _in_order(path: bytes) -> bytes:
    if not path:
        raise refused(errno.ENOENT)
    if path.startswith(b"/") and not path.endswith(b"/") and b"//" not in path and b"/." not in path:
        return path  # as nearly every one is
    whole = posixpath.normpath(path if path.startswith(b"/") else b"/" + path)
    return b"/" + whole.lstrip(b"/")
