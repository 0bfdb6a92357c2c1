"""Runs in: every process. bunri: privilege separation for Python programs on Linux.

The public names stand in `_public.py`. The first use of one loads them all, so that `bunri --help` need not, and a
worker never meets one that is not there yet: a compartment is a use. What is loaded later still is the monitor's part
(`process/doors.py`), which a worker is refused before it is looked for.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bunri import testing as testing
    from bunri._public import *  # noqa: F403
else:

    class _Package(ModuleType):
        """`bunri.confine` is the function. Importing the package of that name must not put itself in its place."""

        def __setattr__(self, name, value):
            if not (name == "confine" and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

    sys.modules[__name__].__class__ = _Package

    def __getattr__(name):
        if name == "testing":  # of no use to a program, so only for those who ask
            import importlib

            return importlib.import_module("bunri.testing")
        if name not in ("__all__", "confine") and (name.startswith("_") or _is_part(name)):
            raise AttributeError(name)  # `from bunri import seccomp` asks first whether it is there
        _public = _load()
        globals().update({each: getattr(_public, each) for each in ("__all__", *_public.__all__)})
        if name in globals():
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def _load():
        """All at once. A Ctrl-C waits until it is there: msgspec crashes (SIGSEGV) where one comes while it makes a decoder, and
        what was imported by half would be imported by half again."""
        import signal

        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            from bunri import _public
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _public

    def _is_part(name):
        import importlib.util

        return importlib.util.find_spec(f"{__name__}.{name}") is not None

    def __dir__():
        return [*globals(), *__getattr__("__all__")]
