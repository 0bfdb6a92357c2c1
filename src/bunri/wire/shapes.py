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
import dataclasses
import datetime
import decimal
import enum
import math
import re
import socket
import types
import typing
import uuid
from typing import Any, Final

import msgspec

from bunri.errors import UsageError
from bunri.wire import bounds
from bunri.wire.bounds import Fault
from bunri.wire.composites import LIST, TUPLE, fixed_tuple, mapping, optional, scalar_union, sequence, tagged
from bunri.wire.registry import Family, HandleKind, Marker, base_of, handle_kind
from bunri.wire.shape import Shape, at, carried

_ANNOTATED: Any = typing.Annotated
_INT64: Final = typing.Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_SCALARS: Final = (bool, int, float, str, bytes, type(None))


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


# Plain types.


def _back_str(value: Any, source: Any) -> Any:
    if "\0" in value:
        raise Fault("a NUL in a text; declare Annotated[str, bunri.RawText] if that is meant")
    return value


def _back_float(value: Any, source: Any) -> Any:
    if not math.isfinite(value):
        raise Fault(f"{value} is not a finite number; declare Annotated[float, bunri.NotFinite] if that is meant")
    return value


def _raw_to(value: Any, sink: Any) -> Any:
    if not isinstance(value, str):
        raise Fault(f"expected str, got {type(value).__name__}")
    return value.encode("utf-8", "surrogatepass")


def _raw_back(value: Any, source: Any) -> Any:
    try:
        return value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Fault("a text that is not UTF-8") from None


def _decimal_to(value: Any, sink: Any) -> Any:
    if not isinstance(value, decimal.Decimal):
        raise Fault(f"expected Decimal, got {type(value).__name__}")
    _check_decimal(value)
    return str(value)


def _decimal_back(value: Any, source: Any) -> Any:
    try:
        number = decimal.Decimal(value)
    except decimal.InvalidOperation:
        raise Fault("a text that is no Decimal") from None
    _check_decimal(number)
    return number


def _check_decimal(value: decimal.Decimal) -> None:
    sign_digits_exponent = value.as_tuple()
    exponent = sign_digits_exponent.exponent
    if not isinstance(exponent, int):
        raise Fault(f"{value} is not a finite number")
    if len(sign_digits_exponent.digits) > bounds.DIGITS or abs(exponent) > bounds.EXPONENT:
        raise Fault(f"a Decimal of more than {bounds.DIGITS} digits, or an exponent beyond {bounds.EXPONENT}")


def _to_bytes(value: Any, sink: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return value
    if isinstance(value, memoryview):
        return value.tobytes()
    raise Fault(f"expected bytes, got {type(value).__name__}")


def _back_bytearray(value: Any, source: Any) -> Any:
    return bytearray(value)


def _back_memoryview(value: Any, source: Any) -> Any:
    return memoryview(value)


_PLAIN: Final[dict[Any, Shape]] = {
    None: Shape("None", None, python=type(None)),
    type(None): Shape("None", None, python=type(None)),
    bool: Shape("bool", bool, python=bool),
    int: Shape("int", _INT64, python=int),
    float: Shape("float", float, back=_back_float, python=float),
    str: Shape("str", str, back=_back_str, python=str),
    bytes: Shape("bytes", bytes, to=_to_bytes, python=bytes, blob=bytes),
    bytearray: Shape("bytearray", bytes, to=_to_bytes, back=_back_bytearray, python=bytearray, blob=bytearray),
    memoryview: Shape("memoryview", bytes, to=_to_bytes, back=_back_memoryview, python=memoryview, blob=memoryview),
    datetime.datetime: Shape("datetime", datetime.datetime, python=datetime.datetime),
    datetime.date: Shape("date", datetime.date, python=datetime.date),
    datetime.time: Shape("time", datetime.time, python=datetime.time),
    datetime.timedelta: Shape("timedelta", datetime.timedelta, python=datetime.timedelta),
    uuid.UUID: Shape("UUID", uuid.UUID, python=uuid.UUID),
    decimal.Decimal: Shape(
        "Decimal",
        typing.Annotated[str, msgspec.Meta(max_length=bounds.DIGITS + 16)],
        _decimal_to,
        _decimal_back,
        decimal.Decimal,
    ),
}
_RAW_TEXT: Final = Shape("str raw", bytes, _raw_to, _raw_back, python=str)


def _plain(cls: Any, where: str, markers: tuple[Any, ...], busy: tuple[Any, ...]) -> Shape:
    if cls is str and Marker.RAW_TEXT in markers:
        return _RAW_TEXT
    if cls is float and Marker.NOT_FINITE in markers:
        return Shape("float any", float, python=float)
    try:
        found = _PLAIN.get(cls)
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
    if dataclasses.is_dataclass(cls):
        return _record(cls, _dataclass_fields(cls, where), where, busy)
    if issubclass(cls, msgspec.Struct):
        return _record(cls, _struct_fields(cls), where, busy)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        hints = typing.get_type_hints(cls, include_extras=True)
        return _record(cls, {name: hints[name] for name in cls._fields}, where, busy)
    if typing.is_typeddict(cls):
        return _typed_dict(cls, where, busy)
    raise UsageError(
        f"{where}: {_name(cls)} cannot cross to another process. Send numbers, text, bytes, containers of them, dataclasses, or a handle"
    )


def _annotated(inner: Any, markers: tuple[Any, ...], where: str, busy: tuple[Any, ...]) -> Shape:
    shape = shape_of(inner, where, markers=markers, busy=busy)
    for meta in markers:
        if isinstance(meta, msgspec.Meta):
            shape = _with_meta(shape, meta, where)
    return shape


def _with_meta(shape: Shape, meta: msgspec.Meta, where: str) -> Shape:
    """msgspec's constraints. A pattern is looked at by the sender only: hostile text never meets a regular expression."""
    earlier = [m for m in getattr(shape.wire, "__metadata__", ()) if isinstance(m, msgspec.Meta)]
    bound = {
        name: getattr(m, name)
        for m in (*earlier, meta)
        for name in ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "tz")
        if getattr(m, name) is not None
    }
    bare = typing.get_args(shape.wire)[0] if earlier else shape.wire
    wire: Any = _ANNOTATED[bare, msgspec.Meta(**bound)] if bound else shape.wire
    spelling = f"{shape.spelling} {sorted(bound.items())}"
    if meta.pattern is None:
        return shape._replace(wire=wire, spelling=spelling)
    pattern = re.compile(meta.pattern)

    def to(value: Any, sink: Any) -> Any:
        if not (isinstance(value, str) and pattern.search(value)):
            raise Fault(f"text that does not match {meta.pattern!r}")
        return value if shape.to is None else shape.to(value, sink)

    return shape._replace(wire=wire, to=to, spelling=f"{spelling} {meta.pattern}")


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


# Records: dataclasses, Structs, named tuples. On the wire the values of the fields, in order, and exactly those.


def _dataclass_fields(cls: Any, where: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    hidden = [f.name for f in dataclasses.fields(cls) if not f.init]
    if hidden:
        raise UsageError(
            f"{where}: {cls.__qualname__}.{hidden[0]} is no parameter of its __init__, so it cannot be rebuilt. Drop init=False"
        )
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _struct_fields(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hints[name] for name in cls.__struct_fields__}


def _record(cls: Any, fields: dict[str, Any], where: str, busy: tuple[Any, ...]) -> Shape:
    names = tuple(fields)
    inner = [shape_of(a, f"{where}.{name}", busy=(*busy, cls)) for name, a in fields.items()]
    to_all = [(name, shape.to) for name, shape in zip(names, inner, strict=True)]
    back_all = [(name, shape.back) for name, shape in zip(names, inner, strict=True)]

    def to(value: Any, sink: Any) -> Any:
        if type(value) is not cls:
            raise Fault(
                f"expected {cls.__qualname__}, got {type(value).__qualname__}; a subclass is not cut down to it"
            )
        return [
            getattr(value, n) if convert is None else at(n, convert, getattr(value, n), sink) for n, convert in to_all
        ]

    def back(value: Any, source: Any) -> Any:
        made = {
            n: v if convert is None else at(n, convert, v, source)
            for (n, convert), v in zip(back_all, value, strict=True)
        }
        try:
            return cls(**made)
        except Exception as fault:  # the class's own check of its values, whatever it raises
            raise Fault(f"{cls.__qualname__} refuses these values: {type(fault).__name__}") from None

    wire: Any = TUPLE[tuple(shape.wire for shape in inner)] if inner else tuple[()]
    spelling = f"{cls.__qualname__}({', '.join(f'{n}: {s.spelling}' for n, s in zip(names, inner, strict=True))})"
    return Shape(spelling, wire, to, back, cls, *carried(inner))


def _typed_dict(cls: Any, where: str, busy: tuple[Any, ...]) -> Shape:
    """One list per key: empty where an optional key is absent."""
    hints = typing.get_type_hints(cls, include_extras=True)
    keys = list(hints)
    inner = []
    for key in keys:
        annotation = hints[key]
        if typing.get_origin(annotation) in (typing.Required, typing.NotRequired):
            annotation = typing.get_args(annotation)[0]
        inner.append(shape_of(annotation, f"{where}[{key!r}]", busy=(*busy, cls)))
    required: frozenset[str] = cls.__required_keys__

    def to(value: Any, sink: Any) -> Any:
        if not isinstance(value, dict) or not required <= value.keys() <= set(keys):
            raise Fault(f"expected a dict with the keys of {cls.__qualname__}")
        return [
            [] if key not in value else [value[key] if s.to is None else at(key, s.to, value[key], sink)]
            for key, s in zip(keys, inner, strict=True)
        ]

    def back(value: Any, source: Any) -> Any:
        made = {}
        for key, shape, listed in zip(keys, inner, value, strict=True):
            if listed:
                made[key] = listed[0] if shape.back is None else at(key, shape.back, listed[0], source)
            elif key in required:
                raise Fault(f"{cls.__qualname__} without {key!r}")
        return made

    wire: Any = TUPLE[tuple(_ANNOTATED[LIST[shape.wire], msgspec.Meta(max_length=1)] for shape in inner)]
    return Shape(
        f"{cls.__qualname__}{[(k, s.spelling) for k, s in zip(keys, inner, strict=True)]}",
        wire,
        to,
        back,
        dict,
        *carried(inner),
    )


# Containers.


def _generic(origin: Any, args: tuple[Any, ...], where: str, busy: tuple[Any, ...]) -> Shape:
    if origin in (list, set, frozenset, collections.abc.Sequence):
        kind = list if origin is collections.abc.Sequence else origin
        return sequence(kind, shape_of(args[0], f"{where}[]", busy=busy))
    if origin is tuple:
        if len(args) == 2 and args[1] is ...:
            return sequence(tuple, shape_of(args[0], f"{where}[]", busy=busy))
        return fixed_tuple([shape_of(a, f"{where}[{i}]", busy=busy) for i, a in enumerate(args)])
    if origin in (dict, collections.abc.Mapping):
        return mapping(shape_of(args[0], f"{where} keys", busy=busy), shape_of(args[1], f"{where} values", busy=busy))
    raise UsageError(f"{where}: {_name(origin)}[...] cannot cross. Write list, tuple, dict, set or frozenset")


def _union(members: tuple[Any, ...], where: str, markers: tuple[Any, ...], busy: tuple[Any, ...]) -> Shape:
    shapes = [shape_of(member, where, markers=markers, busy=busy) for member in members]
    others = [s for s in shapes if s.python is not type(None)]
    if len(others) == 1 and len(shapes) == 2:
        return optional(others[0])
    if all(s.python in _SCALARS for s in shapes) and len({s.python for s in shapes}) == len(shapes):
        return scalar_union(shapes)
    return tagged(shapes, where)


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

    wire: Any = (
        TUPLE[_INDEX, _INT64, _ANNOTATED[int, msgspec.Meta(ge=0, le=1)]] if kind is HandleKind.MAPPED else _INDEX
    )
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
