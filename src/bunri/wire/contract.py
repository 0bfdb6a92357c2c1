"""Runs in: every process; pure. What a class exports: its public methods, numbered, each with the two ways of its messages.

The annotated class is the contract (API decision 4). Both sides build it from the same class definition: the numbers on the wire are places in
these tables, and nothing else that arrives is ever looked up.
"""

# Annotations are values here, and of values made of them no checker knows the type:
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import binascii
import collections.abc
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from enum import Enum
from types import FunctionType, MemberDescriptorType
from typing import Any, Final

import msgspec

from bunri.errors import UsageError
from bunri.wire.coder import Raised, arguments_coder, result_coder
from bunri.wire.records import hints_of
from bunri.wire.registry import Base, Family, HandleKind, base_of
from bunri.wire.shapes import shape_of

_STREAMS: Final = {
    collections.abc.Iterator: "sync", collections.abc.Iterable: "sync", collections.abc.Generator: "sync",
    collections.abc.AsyncIterator: "async", collections.abc.AsyncIterable: "async", collections.abc.AsyncGenerator: "async",
}  # fmt: skip

_F = typing.TypeVar("_F", bound=Callable[..., Any])


class Kind(Enum):
    """How a method answers."""

    PLAIN = "def"
    ASYNC = "async def"
    STREAM = "def -> Iterator"
    ASYNC_STREAM = "-> AsyncIterator"

    def __init__(self, spelling: str) -> None:
        self.is_stream = spelling.startswith("-") or "Iterator" in spelling
        self.is_async = spelling.startswith(("async", "->"))


class Limits(msgspec.Struct, frozen=True):
    """What `bunri.limit` says of a service's method: calls in all, at one time, and bytes of one call's arguments."""

    calls: int | None = None
    concurrent: int | None = None
    size: int | None = None


class MethodContract:
    """One exported method. Numbers are places in `Contract.methods`."""

    def __init__(self, cls: type, name: str, function: FunctionType, number: int) -> None:
        self.number = number
        self.name = name
        self._where = f"{cls.__qualname__}.{name}"
        self._signature = _own_parameters(function)
        _check_function(cls, name, function)
        hints = hints_of(function, self._where)
        self.kind, result = _kind_of(function, hints.get("return", type(None)), self._where)
        shapes = [shape_of(hints[p], f"{self._where}({p})") for p in self._signature.parameters]
        if name == "__init__":
            result = type(None)
        elif any(HandleKind.MAPPED in s.kinds for s in shapes):
            raise UsageError(
                f"{self._where}: a Mapped can only be handed to a constructor, which maps it before any code of the worker runs"
            )
        answer = shape_of(result, f"{self._where} -> result")
        if HandleKind.MAPPED in answer.kinds:
            raise UsageError(f"{self._where}: a Mapped cannot be returned: a mapping from a worker is never shared")
        self.handle_kinds_down: frozenset[HandleKind] = (
            frozenset().union(*(s.kinds for s in shapes)) if shapes else frozenset[HandleKind]()
        )
        self.handle_kinds_up: frozenset[HandleKind] = answer.kinds
        self.sends_handles = bool(self.handle_kinds_down - {HandleKind.SECRET})
        self.returns_handles = bool(self.handle_kinds_up - {HandleKind.SECRET})
        self.service_types = tuple(dict.fromkeys(c for s in (*shapes, answer) for c in s.services))
        # Nothing but a value each way: such a call may take the short way through the channel.
        self.is_simple = self.kind is Kind.PLAIN and not self.sends_handles and not self.returns_handles
        self.is_stream = self.kind.is_stream
        self.limits: Limits | None = getattr(function, "_bunri_limits", None)
        self._raises = Raised(getattr(function, "_bunri_raises", ()), self._where)
        self._arguments, takes = arguments_coder(shapes, self._where)
        self._result = result_coder(answer, f"{self._where} -> result")
        self.has_blobs = self._arguments.has_blobs or self._result.has_blobs
        self._keyword_only = tuple(p.name for p in self._signature.parameters.values() if p.kind is p.KEYWORD_ONLY)
        self._count = len(self._signature.parameters)
        self.arity = (
            -1 if self._keyword_only else self._count
        )  # so many arguments by position are canonical as they are
        self._first_keyword = self._count - len(self._keyword_only)
        self.spelling = f"{name}: {self.kind.value} ({takes}) -> {answer.spelling} raises {self._raises.spelling}"
        # Bound once: a call goes through these without another look-up.
        self.encode_arguments = self._arguments.encode
        self.decode_arguments = self._arguments.decode
        self.encode_result = self._result.encode
        self.decode_result = self._result.decode
        self.encode_item = self._result.encode
        self.decode_item = self._result.decode
        self.encode_exception = self._raises.encode
        self.decode_exception = self._raises.decode

    def __repr__(self) -> str:
        return f"<{self._where} #{self.number}>"

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments in the order of the parameters, defaults filled in. UsageError for a call that does not fit."""
        if not kwargs and len(args) == self.arity:
            return args
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as fault:
            takes = self._signature.replace(return_annotation=inspect.Signature.empty)
            raise UsageError(f"{self._where}{takes}: {fault}") from None
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call the method itself with a canonical tuple."""
        if not self._keyword_only:
            return function(*args)
        first = self._first_keyword
        return function(*args[:first], **dict(zip(self._keyword_only, args[first:], strict=True)))


class Contract(msgspec.Struct, frozen=True, eq=False):
    """What a class exports."""

    cls: type
    methods: tuple[MethodContract, ...]
    init: MethodContract
    services: tuple[type, ...]
    """The service interfaces that can be reached from here, each once."""
    fingerprint: int
    """CRC-32 of all that it says: classes that differ by mistake differ here. Against malice it is not needed."""

    @property
    def service_contracts(self) -> tuple[Contract, ...]:
        """Their contracts."""
        return tuple(contract_of(service) for service in self.services)

    @property
    def has_blobs(self) -> bool:
        """Whether a call of it, or of one of the services, may take or give large bytes."""
        methods = [self.init, *self.methods, *(method for each in self.service_contracts for method in each.methods)]
        return any(method.has_blobs for method in methods)


_contracts: dict[type, Contract] = {}


def contract_of(cls: type) -> Contract:
    """The contract of a compartment or a service interface, made once. UsageError for what cannot be checked."""
    found = _contracts.get(cls)
    if found is None:
        found = _contracts[cls] = _make_contract(cls)
    return found


def _made(cls: type) -> tuple[tuple[MethodContract, ...], MethodContract]:
    base = base_of(cls)
    if base is None:
        raise UsageError(f"{cls.__qualname__} is neither a compartment nor a service")
    found = sorted(_exported(cls, base).items())
    methods = tuple(MethodContract(cls, name, function, number) for number, (name, function) in enumerate(found))
    return methods, MethodContract(cls, "__init__", _init_of(cls, base), 0)


def _make_contract(cls: type) -> Contract:
    methods, init = _made(cls)
    spellings = [method.spelling for method in (*methods, init)]
    reached: dict[type, None] = {}
    todo = [service for m in (*methods, init) for service in m.service_types]
    while todo:  # not by recursion: services may name each other
        service = todo.pop(0)
        if service in reached or service is cls:
            continue
        reached[service] = None
        for method in _made(service)[0]:
            todo += method.service_types
            spellings.append(method.spelling)
    return Contract(cls, methods, init, tuple(reached), binascii.crc32(repr(spellings).encode()))


def _no_parameters(self: object) -> None:
    """The `__init__` of a class that has none."""


def _init_of(cls: type, base: Base) -> FunctionType:
    function: object = vars(cls).get("__init__") or getattr(cls, "__init__")  # noqa: B009  (mypy: unsound on an instance)
    return (
        function
        if isinstance(function, FunctionType) and base.family is Family.COMPARTMENT
        else typing.cast(FunctionType, _no_parameters)
    )


def _exported(cls: type, base: Base) -> dict[str, FunctionType]:
    """The public methods of a class and its bases below the framework's."""
    found: dict[str, FunctionType] = {}
    for ancestor in reversed(cls.__mro__):
        if not issubclass(ancestor, base.cls) or ancestor is base.cls:
            continue
        for name, value in vars(ancestor).items():
            if name.startswith("_") or name in base.reserved:
                continue
            if isinstance(value, FunctionType):
                found[name] = value
            else:
                found.pop(name, None)
    return found


_NO_METHODS: Final = type | MemberDescriptorType  # nested classes, and the slots of a class that has some


def check_annotated(cls: type, base: type) -> None:
    """At class definition: every exported method says what it takes and gives. UsageError naming the first that does not."""
    registered = base_of(cls)
    assert registered is not None
    for name, value in vars(cls).items():
        if name.startswith("_") and name != "__init__":
            continue
        if getattr(getattr(value, "__func__", None), "_bunri_here_only", False):
            continue
        if isinstance(value, staticmethod | classmethod | property) and name not in registered.reserved:
            kind = type(value).__name__
            raise UsageError(
                f"{cls.__qualname__}.{name} is a {kind}, which cannot be called over the wire. Make it a method, or name it _{name}"
            )
        if name in registered.reserved:
            continue
        if isinstance(value, FunctionType):
            _check_function(cls, name, value)
        elif not isinstance(value, _NO_METHODS) and (callable(value) or hasattr(type(value), "__get__")):
            raise UsageError(
                f"{cls.__qualname__}.{name} is a {type(value).__qualname__}, not a plain method, and would not be exported. "
                f"Write a method that uses it, or name it _{name}"
            )


def here_only(function: _F) -> _F:
    """Marks a class method of a service that bunri itself ships: it makes the object, here, and is never called over
    the wire."""
    function._bunri_here_only = True  # type: ignore[attr-defined]
    return function


def _check_function(cls: type, name: str, function: FunctionType) -> None:
    where = f"{cls.__qualname__}.{name}"
    if dataclasses.is_dataclass(cls) and name == "__init__":
        return
    for parameter in _own_parameters(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UsageError(
                f"{where}: *{parameter.name} has no fixed number of values to check. Take a list, or a dict"
            )
        if parameter.annotation is parameter.empty:
            raise UsageError(
                f"{where}({parameter.name}) has no annotation, and the annotations are the contract. Write {parameter.name}: its type"
            )
    if name != "__init__" and "return" not in function.__annotations__:
        raise UsageError(f"{where} does not say what it returns. Write -> its type, or -> None")


@functools.cache
def _own_parameters(function: FunctionType) -> inspect.Signature:
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _kind_of(function: FunctionType, result: Any, where: str) -> tuple[Kind, Any]:
    flavour = _STREAMS.get(typing.get_origin(result))
    if flavour is not None:
        item = typing.get_args(result)[0]
        return (Kind.STREAM if flavour == "sync" else Kind.ASYNC_STREAM), item
    return (Kind.ASYNC if inspect.iscoroutinefunction(function) else Kind.PLAIN), result
