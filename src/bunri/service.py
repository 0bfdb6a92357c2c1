"""Runs in: every process. `Service`: an object whose methods a worker may call if, and only if, it was handed that object."""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Callable
from typing import Any, TypeVar, cast

from bunri.errors import UsageError
from bunri.wire import Limits, check_annotated
from bunri.wire.bounds import parse_size
from bunri.wire.coder import BUILTIN_EXCEPTIONS
from bunri.wire.registry import Family, register_base

F = TypeVar("F", bound=Callable[..., Any])


class Service(ABC):  # noqa: B024  (an interface's methods need not be marked abstract)
    """Subclass it twice: the interface, in the messages of the program, and its implementation, in the monitor.

    A worker that was handed the implementation under the interface's annotation may call exactly the interface's public methods.

        class Login(bunri.Service):
            @bunri.limit(calls=3)
            async def password(self, user: str, password: bunri.Secret) -> "Files | None": ...
    """

    def __init_subclass__(cls, *, _bunri_stub: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not _bunri_stub and not _is_implementation(cls):
            check_annotated(cls, Service)


register_base(Service, Family.SERVICE)


def _is_implementation(cls: type) -> bool:
    """Only an interface, directly below Service, is a contract; what its subclass adds is never called from outside."""
    return not any(base is Service for base in cls.__bases__)


def _takes_text(cls: type[Exception]) -> bool:
    try:
        cls("text")
    except TypeError:
        return False
    return True


def limit(
    *, calls: int | None = None, concurrent: int | None = None, size: str | int | None = None
) -> Callable[[F], F]:
    """Bound a service's method, per object: `calls` in all, `concurrent` at one time, `size` of one call's arguments ("64K", bytes).

    Going over `calls` or `size` ends the worker; over `concurrent`, calls wait their turn. Without it an `async def` method runs one at a time.
    """
    for name, value in (("calls", calls), ("concurrent", concurrent)):
        if value is not None and (isinstance(value, bool) or not isinstance(cast(object, value), int) or value < 1):
            raise UsageError(f"limit({name}={value!r}): a whole number of at least 1 is meant")
    bytes_ = parse_size(size) if isinstance(size, str) else size
    if bytes_ is not None and (not isinstance(cast(object, bytes_), int) or isinstance(size, bool) or bytes_ < 1):
        raise UsageError(f"limit(size={size!r}): a number of bytes of at least 1 is meant")

    def mark(method: F) -> F:
        method._bunri_limits = Limits(calls, concurrent, bytes_)  # type: ignore[attr-defined]
        return method

    return mark


def raises(*types: type[Exception]) -> Callable[[F], F]:
    """Declare the exceptions of a method that cross as themselves: dataclasses (fields checked) or builtins (their text only).

    A dataclass arrives as if it was made with all its fields by position, and so has its `str()`.
    """
    for cls in types:
        if not (isinstance(cast(object, cls), type) and issubclass(cast(type, cls), Exception)):
            raise UsageError(f"raises({cls!r}): an exception class is meant")
        if cls in BUILTIN_EXCEPTIONS and not _takes_text(cls):
            raise UsageError(
                f"raises({cls.__qualname__}): it cannot be made from its text alone. Declare a @dataclass exception"
            )
        if not dataclasses.is_dataclass(cls) and cls not in BUILTIN_EXCEPTIONS:
            raise UsageError(
                f"raises({cls.__qualname__}): its fields are not declared, so they cannot be checked. Make it a @dataclass"
            )

    def mark(method: F) -> F:
        method._bunri_raises = types  # type: ignore[attr-defined]
        return method

    return mark
