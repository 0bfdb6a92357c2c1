"""Runs in: monitor and worker. What stands behind a stub, and the stub's class.

A stub looks like the object it stands for: same class for every type checker. At run time it is a generated subclass
in which the exported methods are calls, and every other attribute is a `UsageError`: nothing of the real object is
here to be read.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, TypeVar

from bunri.calls import Call
from bunri.errors import UsageError
from bunri.wire import Contract, Kind, MethodContract

T = TypeVar("T")

TARGET = "_bunri_target"
METHOD = "_bunri_method"


class Target(Protocol):
    """Where the calls of a stub go."""

    def invoke(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call and wait, on this thread."""
        ...

    def submit(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        """Call, and do not wait."""
        ...

    def iterate(self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        """Start a stream that is read on this thread."""
        ...

    def iterate_async(
        self, method: MethodContract, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Start a stream that is read on the running loop."""
        ...

    def describe(self) -> str:
        """For the stub's repr."""
        ...


def make_stub(cls: type[T], contract: Contract, target: Target, extra: dict[str, Any] | None = None) -> T:
    """A stub of `cls` whose calls go to `target`."""
    stub: T = object.__new__(stub_class(cls, contract))
    object.__setattr__(stub, TARGET, target)
    for name, value in (extra or {}).items():
        object.__setattr__(stub, name, value)
    return stub


def target_of(stub: object) -> Any:
    """What stands behind a stub, or None for any other object."""
    return vars(stub).get(TARGET) if type(stub).__dict__.get("_bunri_stub") else None


_stub_classes: dict[type, Any] = {}


def stub_class(cls: type[Any], contract: Contract) -> Any:
    """The generated subclass, made once."""
    found = _stub_classes.get(cls)
    if found is None:
        found = _stub_classes[cls] = _make_stub_class(cls, contract)
    return found


def _make_stub_class(cls: type[Any], contract: Contract) -> Any:
    body: dict[str, Any] = {
        "_bunri_stub": True,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    for base in reversed(cls.__mro__[:-1]):
        if base.__module__.split(".")[0] in ("bunri", "abc", "typing"):
            continue
        for name in vars(base):
            if not (name.startswith("__") and name.endswith("__")) or callable(vars(base)[name]):
                body[name] = _hidden(cls, name)
    for name in ("__init__", "__new__", "__init_subclass__", "__class_getitem__", "__post_init__", "__subclasshook__"):
        body.pop(name, None)
    for method in contract.methods:
        body[method.name] = _caller(cls, method)
    body.update(
        __getattr__=_no_attribute,
        __setattr__=_no_setting,
        __delattr__=_no_setting,
        __repr__=_represent,
        __reduce_ex__=_no_pickle,
        __copy__=_no_pickle,
        __deepcopy__=_no_pickle,
        __eq__=object.__eq__,
        __hash__=object.__hash__,
        __abstractmethods__=frozenset(),
    )
    metaclass: Any = type(cls)
    return metaclass(cls.__name__, (cls,), body, **{"_bunri_stub": True})


def _caller(cls: type, method: MethodContract) -> Callable[..., Any]:
    original = getattr(cls, method.name)

    if method.kind is Kind.PLAIN:

        def plain(self: Any, *args: Any, **kwargs: Any) -> Any:
            return self._bunri_target.invoke(method, args, kwargs)

        made: Callable[..., Any] = plain
    elif method.kind is Kind.ASYNC:

        async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await self._bunri_target.submit(method, args, kwargs)

        made = awaited
    elif method.kind is Kind.STREAM:

        def streamed(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            return self._bunri_target.iterate(method, args, kwargs)  # type: ignore[no-any-return]

        made = streamed
    else:

        def streamed_async(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            return self._bunri_target.iterate_async(method, args, kwargs)  # type: ignore[no-any-return]

        made = streamed_async
    functools.update_wrapper(made, original)
    made.__dict__.pop("__isabstractmethod__", None)
    setattr(made, METHOD, method)
    return made


def _hidden(cls: type, name: str) -> property:
    def refuse(self: object) -> Any:
        raise UsageError(_elsewhere(cls, name))

    return property(refuse)


def _elsewhere(cls: type, name: str) -> str:
    return (
        f"{cls.__qualname__}.{name} is in another process. Only public methods with annotations can be called from here: "
        f"write a method that returns what is needed"
    )


def _no_attribute(self: object, name: str) -> Any:
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(name)  # protocols of the language ask for these and expect this answer
    raise UsageError(_elsewhere(type(self), name))


def _no_setting(self: object, name: str, value: object = None) -> None:
    raise UsageError(
        f"{type(self).__qualname__}.{name} cannot be set: the object is in another process. Call a method that sets it"
    )


def _represent(self: Any) -> str:
    return f"<{type(self).__qualname__}: {self._bunri_target.describe()}>"


def _no_pickle(self: object, *args: object) -> Any:
    raise UsageError(
        f"a stub of {type(self).__qualname__} cannot be pickled or copied: it stands for one live process. "
        f"Send the data it works on, or start a worker where it is needed"
    )
