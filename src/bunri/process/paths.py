"""Runs in: the monitor. Which code a zygote may load, and from where (THREATS 7).

A zygote of a root monitor imports the user's modules. Whoever can write one of the folders on its path, or a folder
above, would be root at the next start. So each is looked at first, as sshd's StrictModes does.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from types import ModuleType

from bunri.errors import UsageError
from bunri.process.messages import ModuleRef

MAIN_NAME = "__bunri_main__"


def search_path() -> tuple[str, ...]:
    """The monitor's `sys.path`, absolute and existing."""
    entries = dict.fromkeys(os.path.abspath(entry or os.getcwd()) for entry in sys.path)
    return tuple(entry for entry in entries if os.path.exists(entry))


def module_of(name: str, qualname: str) -> ModuleRef:
    """How a zygote loads the module that defines a compartment. UsageError where it cannot."""
    if "<locals>" in qualname:
        raise UsageError(
            f"{qualname} is defined inside a function: a worker's process could not find it. Move the class to the top level of a module"
        )
    module = sys.modules.get(name)
    if module is None:
        raise UsageError(
            f"the module {name!r} of {qualname} is not in sys.modules. Define compartments in an importable module"
        )
    if not hasattr(module, qualname.partition(".")[0]):
        raise UsageError(
            f"{qualname} is not in the module {name!r} that it is said to be of: a profiler or a debugger ran its file as its "
            f"own, or it was made under another name. Move it to a module"
        )
    spec = getattr(module, "__spec__", None)
    if name == "__main__":
        return _main_module(module, qualname)
    if spec is not None and _is_findable(spec.name):
        return ModuleRef(spec.name)
    origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
    if origin and os.path.isfile(origin):
        return ModuleRef(name, os.path.abspath(origin))
    raise UsageError(
        f"{qualname}: the module {name!r} has no file that a worker's process could load. Move the class to a module"
    )


def _main_module(module: ModuleType, qualname: str) -> ModuleRef:
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", None):
        return ModuleRef(spec.name)  # python -m package.module
    file = getattr(module, "__file__", None)
    if not file or not os.path.isfile(file):
        raise UsageError(
            f"{qualname} is defined where there is no file to load it from (a notebook, a prompt, -c, standard input, "
            f"__main__.py of a zip application). Move it to a module"
        )
    return ModuleRef(MAIN_NAME, os.path.abspath(file))


def _is_findable(name: str) -> bool:
    """Whether a fresh interpreter with this `sys.path` would find the module by name, and find the same file."""
    from importlib.machinery import PathFinder

    parts = name.split(".")
    path: list[str] | None = None
    spec = None
    for index in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: index + 1]), path)
        if spec is None:
            return False
        path = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else []
    here = getattr(sys.modules[name], "__file__", None)
    there = spec.origin if spec else None
    return not (here and there) or os.path.realpath(here) == os.path.realpath(there)


def refuse_writable_by_others(paths: tuple[str, ...]) -> None:
    """UsageError naming the first entry, or folder above one, that somebody but root can write. For a root monitor."""
    seen: set[str] = set()
    for entry in paths:
        for folder in _with_parents(os.path.realpath(entry)):
            if folder in seen:
                continue
            seen.add(folder)
            fault = _writable_by_others(folder)
            if fault:
                raise UsageError(
                    f"as root, bunri loads code from {entry!r}, but {folder!r} {fault}: whoever can write there would become root. "
                    f"Change its owner to root and its mode to 755, or take it off sys.path"
                )


def _with_parents(path: str) -> list[str]:
    found = [path]
    while path != "/":
        path = os.path.dirname(path)
        found.append(path)
    if os.path.isdir(cache := os.path.join(found[0], "__pycache__")):
        found.append(cache)
    return found


def _writable_by_others(path: str) -> str | None:
    info = os.stat(path)
    if info.st_uid != 0:
        return f"belongs to uid {info.st_uid}"
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    if info.st_mode & 0o002 and not sticky:
        return "is writable by everyone"
    if info.st_mode & 0o020 and info.st_gid != 0 and not sticky:
        return f"is writable by group {info.st_gid}"
    return None


def readable_by_everyone(paths: tuple[str, ...]) -> bool:
    """Whether a zygote that has given up root can still import from all of them and from the standard library."""
    library = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    for entry in (*paths, *library):
        real = os.path.realpath(entry)
        for index, folder in enumerate(_with_parents(real)):
            needed = 0o005 if index == 0 and os.path.isdir(folder) else 0o001
            if index == 0 and not os.path.isdir(folder):
                needed = 0o004
            if os.path.exists(folder) and (os.stat(folder).st_mode & needed) != needed:
                return False
    return True
