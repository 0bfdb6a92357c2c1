"""Runs in: every process; pure. What a class exports: its public methods, numbered, each with the two ways of its messages.

The annotated class is the contract (API decision 4). Both sides build it from the same class definition: the numbers on the wire are places in
these tables, and nothing else that arrives is ever looked up.

A sender reads its own message with the receiver's decoder before it goes out: what would end the sender as a protocol error is its
own `UsageError` first, with the path of the value.
"""

# Annotations are values here, and of values made of them no checker knows the type:
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import builtins
import collections.abc
import dataclasses
import functools
import hashlib
import inspect
import typing
from collections.abc import Callable, Sequence
from enum import Enum
from types import FunctionType
from typing import Any, Final

import msgspec

from bunri.errors import ProtocolError, UsageError
from bunri.text import printable
from bunri.wire import bounds
from bunri.wire.bounds import Fault
from bunri.wire.handles import Sink, Source
from bunri.wire.registry import Base, Family, HandleKind, base_of
from bunri.wire.shape import Shape
from bunri.wire.shapes import shape_of

_ENCODE = msgspec.msgpack.Encoder().encode
_STREAMS: Final = {
    collections.abc.Iterator: "sync", collections.abc.Iterable: "sync", collections.abc.Generator: "sync",
    collections.abc.AsyncIterator: "async", collections.abc.AsyncIterable: "async", collections.abc.AsyncGenerator: "async",
}  # fmt: skip

Blobs = Sequence[tuple[int, Any]]
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


@dataclasses.dataclass(frozen=True)
class Limits:
    """What `bunri.limit` says of a service's method: calls in all, at one time, and bytes of one call's arguments."""

    calls: int | None = None
    concurrent: int | None = None
    size: int | None = None


class _Message:
    """One direction of a method: a value of a shape, as bytes and back. A faulty value of our own is a UsageError, one that came a ProtocolError."""

    def __init__(self, shape: Shape, where: str, blobs: tuple[tuple[int, type], ...]) -> None:
        self._to, self._back = shape.to, shape.back
        self._decode = msgspec.msgpack.Decoder(shape.wire).decode
        self._where = where
        self._blobs = blobs
        self._is_bare = shape.to is None and shape.back is None and not blobs

    def encode(self, value: Any, sink: Sink | None) -> tuple[bytes, Blobs]:
        if not self._is_bare:
            return self._encode_whole(value, sink)
        # Numbers and their like need no converter. Whatever is wrong with one is found by the whole way, and named there.
        try:
            body = _ENCODE(value)
            if len(body) <= bounds.ITEMS and self._decode(body) == value:
                return body, ()
        except Exception:
            return self._encode_whole(value, sink)
        return self._encode_whole(value, sink)

    def _encode_whole(self, value: Any, sink: Sink | None) -> tuple[bytes, Blobs]:
        blobs: Blobs = ()
        try:
            if self._blobs:
                value, blobs = self._take_blobs(value)
            body = _ENCODE(value if self._to is None else self._to(value, sink))
            if len(body) > bounds.ITEMS:
                bounds.scan(body)
            wire = self._decode(body)
            if self._back is not None and sink is None:
                self._back(wire, None)
        except Fault as fault:
            _take_back(sink)
            raise UsageError(f"{self._where}: {fault} - at `${fault.path}`") from None
        except (msgspec.MsgspecError, UnicodeError, OverflowError, TypeError, ValueError, RecursionError) as fault:
            _take_back(sink)
            raise UsageError(f"{self._where}: {fault}") from None
        except BaseException:
            _take_back(sink)
            raise
        return body, blobs

    def decode(self, body: bytes, source: Source | None, blobs: dict[int, bytes] | None) -> Any:
        try:
            if self._is_bare and source is None and not blobs and len(body) <= bounds.ITEMS:
                return self._decode(body)
            if len(body) > bounds.ITEMS:
                bounds.scan(body)
            wire = self._decode(body)
            value = wire if self._back is None else self._back(wire, source)
            if source is not None:
                source.finish()
        except Fault as fault:
            self._refuse(source, f"{fault} - at `${fault.path}`")
        except (
            msgspec.MsgspecError,
            UnicodeError,
            OverflowError,
            TypeError,
            ValueError,
            OSError,
            RecursionError,
        ) as fault:
            self._refuse(source, str(fault))
        except ProtocolError:
            if source is not None:
                source.close_unclaimed()
            raise
        return self._put_blobs(value, blobs) if blobs else value

    def _refuse(self, source: Source | None, text: str) -> typing.NoReturn:
        if source is not None:
            source.close_unclaimed()
        raise ProtocolError(f"{self._where}: {printable(text, limit=500)}") from None

    def _take_blobs(self, value: Any) -> tuple[Any, Blobs]:
        """Large bytes out of the value, an empty one in their place."""
        taken: list[tuple[int, Any]] = []
        for position, kind in self._blobs:
            data = value[position] if isinstance(value, tuple) else value
            if isinstance(data, bytes | bytearray | memoryview) and memoryview(data).nbytes >= bounds.BLOB:
                whole = data if not isinstance(data, memoryview) or data.c_contiguous else data.tobytes()
                taken.append((position, whole))
                empty = kind(b"")
                value = (*value[:position], empty, *value[position + 1 :]) if isinstance(value, tuple) else empty
        return value, taken

    def _put_blobs(self, value: Any, blobs: dict[int, bytes]) -> Any:
        kinds = dict(self._blobs)
        for position, data in blobs.items():
            there = value[position] if isinstance(value, tuple) and position < len(value) else value
            if position not in kinds or there is None or len(there):
                raise ProtocolError(f"{self._where}: large bytes for argument {position}, which takes none")
            made = data if kinds[position] is bytes else kinds[position](data)
            value = (*value[:position], made, *value[position + 1 :]) if isinstance(value, tuple) else made
        return value


def _take_back(sink: Sink | None) -> None:
    """The message does not go out: what was duplicated for it is closed."""
    if sink is not None:
        sink.close()


class MethodContract:
    """One exported method. Numbers are places in `Contract.methods`."""

    def __init__(self, cls: type, name: str, function: FunctionType, number: int) -> None:
        self.number = number
        self.name = name
        self._where = f"{cls.__qualname__}.{name}"
        self._signature = _own_parameters(function)
        hints = _hints(cls, function, self._where)
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
        self._raises = _Exceptions(getattr(function, "_bunri_raises", ()), self._where)
        arguments = _arguments_shape(shapes)
        blobs = tuple((i, s.blob) for i, s in enumerate(shapes) if s.blob is not None)
        self._arguments = _Message(arguments, self._where, blobs)
        self._result = _Message(
            answer, f"{self._where} -> result", ((0, answer.blob),) if answer.blob is not None else ()
        )
        self._keyword_only = tuple(p.name for p in self._signature.parameters.values() if p.kind is p.KEYWORD_ONLY)
        self._count = len(self._signature.parameters)
        self.arity = (
            -1 if self._keyword_only else self._count
        )  # so many arguments by position are canonical as they are
        self._first_keyword = self._count - len(self._keyword_only)
        self.spelling = (
            f"{name}: {self.kind.value} ({arguments.spelling}) -> {answer.spelling} raises {self._raises.spelling}"
        )
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
            raise UsageError(f"{self._where}{self._signature}: {fault}") from None
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call the method itself with a canonical tuple."""
        return function(*self.positional(args), **self.keywords(args))

    def positional(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Of a canonical tuple, what is passed by position."""
        return args if not self._keyword_only else args[: self._first_keyword]

    def keywords(self, args: tuple[Any, ...]) -> dict[str, Any]:
        """Of a canonical tuple, what can only be passed by name."""
        if not self._keyword_only:
            return {}
        return dict(zip(self._keyword_only, args[self._first_keyword :], strict=True))


class _Exceptions:
    """The exceptions that `bunri.raises` declares, by number."""

    def __init__(self, types: tuple[type[Exception], ...], where: str) -> None:
        self._types = types
        self._shapes = [_exception_shape(cls, where) for cls in types]
        self._messages = [_Message(shape, f"{where} raises", ()) for shape in self._shapes]
        self.spelling = str([shape.spelling for shape in self._shapes])

    def encode(self, fault: BaseException) -> bytes | None:
        """The message for a declared exception; None for any other."""
        for number, cls in enumerate(self._types):
            if type(fault) is cls:
                try:
                    body, _ = self._messages[number].encode(fault, None)
                except UsageError:
                    return None  # its fields are not what it declares: then it is undeclared
                return bytes([number]) + body
        return None

    def decode(self, body: bytes) -> BaseException:
        """The exception that came. ProtocolError for a number that is not declared."""
        if not body or body[0] >= len(self._messages):
            raise ProtocolError("an exception that the method does not declare")
        made: BaseException = self._messages[body[0]].decode(body[1:], None, None)
        return made


def _exception_shape(cls: type[Exception], where: str) -> Shape:
    if dataclasses.is_dataclass(cls):
        return shape_of(cls, f"{where} raises {cls.__qualname__}")
    return Shape(
        cls.__qualname__,
        str,
        lambda fault, sink: str(fault)[:4096].encode("utf-8", "replace").decode(),
        lambda text, source: cls(printable(text)),
    )


def _arguments_shape(shapes: list[Shape]) -> Shape:
    """The canonical tuple of arguments as one shape."""
    converts = [(i, s) for i, s in enumerate(shapes) if s.to is not None]
    backs = [(i, s) for i, s in enumerate(shapes) if s.back is not None]

    def to(args: Any, sink: Any) -> Any:
        made = list(args)
        for i, shape in converts:
            try:
                made[i] = shape.to(made[i], sink)  # type: ignore[misc]
            except Fault as fault:
                raise Fault(str(fault), f"[{i}]{fault.path}") from None
        return made

    def back(args: Any, source: Any) -> Any:
        made = list(args)
        for i, shape in backs:
            try:
                made[i] = shape.back(made[i], source)  # type: ignore[misc]
            except Fault as fault:
                raise Fault(str(fault), f"[{i}]{fault.path}") from None
        return tuple(made)

    made_of: Any = tuple
    wire: Any = made_of[tuple(s.wire for s in shapes)] if shapes else tuple[()]
    return Shape(", ".join(s.spelling for s in shapes), wire, to if converts else None, back if backs else None)


@dataclasses.dataclass(frozen=True, eq=False)
class Contract:
    """What a class exports."""

    cls: type
    methods: tuple[MethodContract, ...]
    init: MethodContract
    services: tuple[type, ...]
    """The service interfaces that can be reached from here, each once."""
    fingerprint: bytes

    @property
    def service_contracts(self) -> tuple[Contract, ...]:
        """Their contracts."""
        return tuple(contract_of(service) for service in self.services)


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
    digest = hashlib.sha256(repr([m.spelling for m in (*methods, init)]).encode())
    reached: dict[type, None] = {}
    todo = [service for m in (*methods, init) for service in m.service_types]
    while todo:  # not by recursion: services may name each other
        service = todo.pop(0)
        if service in reached or service is cls:
            continue
        reached[service] = None
        for method in _made(service)[0]:
            todo += method.service_types
            digest.update(method.spelling.encode())
    return Contract(cls, methods, init, tuple(reached), digest.digest())


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
        if isinstance(value, FunctionType) and name not in registered.reserved:
            _check_function(cls, name, value)


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


def _hints(cls: type, function: FunctionType, where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as fault:
        raise UsageError(
            f"{where}: the annotation {fault.name!r} is not defined in {function.__module__} at run time. "
            f"Import it outside of `if TYPE_CHECKING:`"
        ) from None
    except TypeError as fault:
        raise UsageError(f"{where}: an annotation that is no type: {fault}") from None


def _kind_of(function: FunctionType, result: Any, where: str) -> tuple[Kind, Any]:
    flavour = _STREAMS.get(typing.get_origin(result))
    if flavour is not None:
        item = typing.get_args(result)[0]
        return (Kind.STREAM if flavour == "sync" else Kind.ASYNC_STREAM), item
    return (Kind.ASYNC if inspect.iscoroutinefunction(function) else Kind.PLAIN), result


BUILTIN_EXCEPTIONS: Final = frozenset(
    value for value in vars(builtins).values() if isinstance(value, type) and issubclass(value, Exception)
)
