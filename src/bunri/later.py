"""Runs in: every process. Names of a package that few processes need: the first use of one loads its module (PEP 562).

What a zygote has loaded, each of its workers inherits, and every page of that is time at its start and at its end. A worker
never uses such a name: policies are made when its module is imported, and worked out by the monitor only.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def names_of(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package whose `modules` each have so many names, in one string. AttributeError for others."""
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
