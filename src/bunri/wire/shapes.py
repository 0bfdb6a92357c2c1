"""Runs in: every process; pure. From an annotation to the two ways of a value: onto the wire, and back.

msgspec decodes by type, in C, what it can be told about; that is the wire type of a `Shape`. What it cannot be told, or would not refuse
(a dataclass with other fields, a NUL in a string, not a number), the shape's own converters do. None stands for a converter that has
nothing to do, so a call of numbers costs no Python at all.

Everything is compiled once per class, from the annotations alone; both sides have the same classes, so both have the same shapes.
"""

# Annotations are values here, and of values made of them no checker knows the type:
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportInvalidTypeArguments=false, reportAttributeAccessIssue=false

from __future__ import annotations

import collections.abc
import enum
import re
import socket
import types
import typing
from typing import Any, Final

import msgspec

from bunri.errors import UsageError
from bunri.wire import bounds
from bunri.wire.bounds import Fault
from bunri.wire.composites import fixed_tuple, mapping, optional, sequence, union
from bunri.wire.plain import ANNOTATED, ANY_FLOAT, INT64, PLAIN, RAW_TEXT, TUPLE, bounded
from bunri.wire.records import fields_of, filled_in, hints_of, parameters_of, record, typed_dict
from bunri.wire.registry import Family, HandleKind, Marker, base_of, handle_kind
from bunri.wire.shape import Shape


def shape_of(annotation: Any, where: str, *, markers: tuple[Any, ...] = (), busy: tuple[Any, ...] = ()) -> Shape:
    """The shape of an annotation. UsageError, naming `where`, for what cannot cross."""
    if annotation in busy:
        raise UsageError(
            f"{where}: {_name(annotation)} contains itself, and a message has a bounded depth. Send a flat list with indexes"
        )
    if len(busy) > bounds.NESTING:
        raise UsageError(f"{where}: more than {bounds.NESTING} types inside each other")
    if hasattr(annotation, "__supertype__"):  # NewType
        return shape_of(annotation.__supertype__, where, markers=markers, busy=busy)
    if type(annotation).__name__ == "TypeAliasType":
        return shape_of(annotation.__value__, where, markers=markers, busy=busy)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        inner, *more = typing.get_args(annotation)
        return _annotated(inner, (*markers, *more), where, busy)
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(annotation), where, markers, busy)
    if origin is typing.Literal:
        return _literal(annotation, where)
    if origin is not None:
        return _generic(origin, typing.get_args(annotation), where, busy)
    return _plain(annotation, where, markers, busy)


def _name(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _plain(cls: Any, where: str, markers: tuple[Any, ...], busy: tuple[Any, ...]) -> Shape:
    if cls is str and Marker.RAW_TEXT in markers:
        return RAW_TEXT
    if cls is float and Marker.NOT_FINITE in markers:
        return ANY_FLOAT
    try:
        found = PLAIN.get(cls)
    except TypeError:
        found = None
    if found is not None:
        return found
    if cls in (list, dict, set, frozenset, tuple):
        raise UsageError(f"{where}: {cls.__name__} does not say what is in it. Write {cls.__name__}[...], as list[int]")
    if not isinstance(cls, type):
        raise UsageError(f"{where}: {_name(cls)} cannot be checked, so it cannot cross. Write the type that is meant")
    kind = handle_kind(cls)
    if kind is not None:
        return _handle(cls, kind, markers)
    base = base_of(cls)
    if base is not None:
        return _object(cls, base.family, where)
    if issubclass(cls, enum.Enum):
        return _enum(cls, where)
    made = _record(cls, {}, where, busy)
    if made is not None:
        return made
    raise UsageError(
        f"{where}: {_name(cls)} cannot cross to another process. Send numbers, text, bytes, containers of them, dataclasses, or a handle"
    )


def _record(cls: Any, parameters: dict[Any, Any], where: str, busy: tuple[Any, ...]) -> Shape | None:
    """The shape of a record, with what stands for its type variables; None for a class that is none."""

    def inner_of(annotation: Any, place: str) -> Shape:
        return shape_of(filled_in(annotation, parameters), place, busy=(*busy, cls))

    if typing.is_typeddict(cls):
        return typed_dict(cls, hints_of(cls, where), where, inner_of)
    fields = fields_of(cls, where)
    return None if fields is None else record(cls, fields, where, inner_of)


def _annotated(inner: Any, markers: tuple[Any, ...], where: str, busy: tuple[Any, ...]) -> Shape:
    origin = typing.get_origin(inner)
    if origin in (typing.Union, types.UnionType) and type(None) in typing.get_args(inner):
        # What is said of it is said of the value that is there.
        there: Any = typing.Union[tuple(a for a in typing.get_args(inner) if a is not type(None))]  # noqa: UP007
        return optional(_annotated(there, markers, where, busy))
    shape = shape_of(inner, where, markers=markers, busy=busy)
    for meta in markers:
        if isinstance(meta, msgspec.Meta):
            shape = _with_pattern(bounded(shape, meta, where), meta)
    return shape


def _with_pattern(shape: Shape, meta: msgspec.Meta) -> Shape:
    """A pattern is looked at by the sender only: hostile text never meets a regular expression."""
    if meta.pattern is None:
        return shape
    pattern, earlier = re.compile(meta.pattern), shape.to

    def to(value: Any, sink: Any) -> Any:
        if isinstance(value, str) and not pattern.search(value):
            raise Fault(f"text that does not match {meta.pattern!r}")
        return value if earlier is None else earlier(value, sink)

    return shape._replace(to=to, spelling=f"{shape.spelling} {meta.pattern}")


def _literal(annotation: Any, where: str) -> Shape:
    values = typing.get_args(annotation)
    if not all(isinstance(value, str | int | None) and not isinstance(value, bool) for value in values):
        raise UsageError(f"{where}: a Literal may hold texts, whole numbers and None, not {values!r}. Use an Enum")
    return Shape(f"Literal{values!r}", annotation)


def _enum(cls: type[enum.Enum], where: str) -> Shape:
    if issubclass(cls, enum.Flag):
        raise UsageError(
            f"{where}: {cls.__qualname__} is a Flag, whose combinations have no number. Send a set of an Enum"
        )
    members = list(cls)
    numbers = {member: index for index, member in enumerate(members)}

    def to(value: Any, sink: Any) -> Any:
        if type(value) is not cls:
            raise Fault(f"expected {cls.__qualname__}, got {type(value).__name__}")
        return numbers[value]

    def back(value: Any, source: Any) -> Any:
        return members[value]

    wire = typing.Annotated[int, msgspec.Meta(ge=0, lt=len(members))]
    return Shape(f"Enum {cls.__qualname__}{[m.name for m in members]}", wire, to, back, cls)


# Containers.


def _generic(origin: Any, args: tuple[Any, ...], where: str, busy: tuple[Any, ...]) -> Shape:
    if origin in (list, set, frozenset, collections.abc.Sequence):
        item = shape_of(args[0], f"{where}[]", busy=busy)
        return (
            sequence(list, item, takes=(list, tuple)) if origin is collections.abc.Sequence else sequence(origin, item)
        )
    if origin is tuple:
        if len(args) == 2 and args[1] is ...:
            return sequence(tuple, shape_of(args[0], f"{where}[]", busy=busy))
        return fixed_tuple([shape_of(a, f"{where}[{i}]", busy=busy) for i, a in enumerate(args)])
    if origin in (dict, collections.abc.Mapping):
        key, value = (shape_of(a, f"{where} {of}", busy=busy) for a, of in zip(args, ("keys", "values"), strict=True))
        return mapping(key, value, origin)
    if isinstance(origin, type) and hasattr(origin, "__parameters__"):
        made = _record(origin, parameters_of(origin, args), where, busy)
        if made is not None:
            return made
    raise UsageError(f"{where}: {_name(origin)}[...] cannot cross. Write list, tuple, dict, set or frozenset")


def _union(members: tuple[Any, ...], where: str, markers: tuple[Any, ...], busy: tuple[Any, ...]) -> Shape:
    shapes = [shape_of(member, where, markers=markers, busy=busy) for member in members]
    others = [s for s in shapes if s.python is not type(None)]
    if len(others) == 1 and len(shapes) == 2:
        return optional(others[0])
    return union(shapes, where)


# Handles and objects: on the wire a small number, which the channel's side gives a meaning.

_INDEX: Final = typing.Annotated[int, msgspec.Meta(ge=0, lt=bounds.HANDLES)]
_NUMBER: Final = typing.Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]


def _handle(cls: type, kind: HandleKind, markers: tuple[Any, ...]) -> Shape:
    if kind is HandleKind.SECRET:
        return _secret(cls)
    if kind is HandleKind.SOCKET and Marker.DATAGRAM in markers:
        kind = HandleKind.DATAGRAM

    def to(value: Any, sink: Any) -> Any:
        if not isinstance(value, cls):
            raise Fault(f"expected {cls.__qualname__}, got {type(value).__qualname__}")
        return _of(sink).add_descriptor(value, kind)

    def back(value: Any, source: Any) -> Any:
        return _of(source).descriptor(value, kind)

    wire: Any = TUPLE[_INDEX, INT64, ANNOTATED[int, msgspec.Meta(ge=0, le=1)]] if kind is HandleKind.MAPPED else _INDEX
    return Shape(
        f"{cls.__name__} {kind.name}", wire, to, back, socket.socket if cls is socket.socket else cls, frozenset({kind})
    )


def _secret(cls: type) -> Shape:
    def to(value: Any, sink: Any) -> Any:
        if not isinstance(value, cls):
            raise Fault(f"expected Secret, got {type(value).__qualname__}")
        secret: Any = value
        return bytes(secret.reveal())

    def back(value: Any, source: Any) -> Any:
        return cls(value)

    return Shape("Secret", bytes, to, back, cls, frozenset({HandleKind.SECRET}))


def _object(cls: type, family: Family, where: str) -> Shape:
    if family is not Family.SERVICE:
        raise UsageError(
            f"{where}: a compartment's stub cannot cross: a worker is not handed on. Hand out a Service instead"
        )

    def to(value: Any, sink: Any) -> Any:
        if not isinstance(value, cls):
            raise Fault(f"expected a {cls.__qualname__}, got {type(value).__qualname__}")
        return _of(sink).add_service(value, cls)

    def back(value: Any, source: Any) -> Any:
        return _of(source).service(value, cls)

    return Shape(f"service {cls.__qualname__}", _NUMBER, to, back, cls, frozenset({HandleKind.SERVICE}), (cls,))


def _of(context: Any) -> Any:
    if context is None:
        raise Fault("a handle where none can cross")
    return context
