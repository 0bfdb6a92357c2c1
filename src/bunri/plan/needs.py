"""Runs in: nowhere; values only. What a plan is told beside the policy and the host."""

from __future__ import annotations

import sys
import sysconfig
from enum import Enum

import msgspec


class Shape(Enum):
    """What is confined."""

    WORKER = "worker"  # cloned from a template
    SELF = "self"  # this very process (`bunri.confine`): no pid namespace, for that takes a clone
    PROGRAM = "program"  # cloned from a template, then another program is executed


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What the signature of a class needs from the filter."""

    shape: Shape = Shape.WORKER
    sends_descriptors: bool = False  # its messages to the monitor may carry handles
    receives_descriptors: bool = False  # messages to it may
    files: bool = False  # it is handed Files
    writable_files: bool = False  # some of them may be written
    stream_sockets: bool = False
    datagram_sockets: bool = False
    listening_sockets: bool = False
    asynchronous: bool = False  # it has an event loop
    single_call: bool = False  # it serves one call and ends, so that a limit of its life is one of the call
    names: tuple[tuple[str, tuple[str, ...]], ...] = ()  # granted hosts, and the addresses that they have
    notify_denials: bool = False  # development mode: refusals go to a listener, which answers EPERM


class Account(msgspec.Struct, frozen=True):
    """A user in numbers, as the monitor found him in the user database."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class PythonPaths(msgspec.Struct, frozen=True):
    """Where an interpreter's library is: what fs.python() grants. `libraries`: what its extension modules link to."""

    directories: tuple[str, ...]
    libraries: tuple[str, ...] = ("/usr/lib", "/usr/lib64", "/etc/ld.so.cache")

    def grants(self) -> tuple[str, ...]:
        """The paths to bind, none of them within another."""
        return outermost((*self.directories, *self.libraries))


def python_paths() -> PythonPaths:
    """Those of this interpreter: the standard library and the site directories, nothing else of sys.path."""
    paths = sysconfig.get_paths()
    known = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    # Of sys.path only what packages are installed to: the script's own folder may be anybody's home (THREATS 13).
    installed = [entry for entry in sys.path if entry.rsplit("/", 1)[-1] in ("site-packages", "dist-packages")]
    found = [entry for entry in (*known, *installed) if entry.startswith("/")]
    libraries = [f"{prefix.rstrip('/')}/lib" for prefix in (sys.base_prefix,)]
    return PythonPaths(outermost(found), outermost((*libraries, *PythonPaths(()).libraries)))


def outermost(paths: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The paths that lie beneath no other of them, in order."""
    unique = sorted(dict.fromkeys(paths))
    return tuple(p for p in unique if not any(p != q and p.startswith(q.rstrip("/") + "/") for q in unique))
