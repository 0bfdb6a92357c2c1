"""Runs in: every process; pure. Records: dataclasses, structs, named tuples, typed dicts. On the wire the values of the fields, in order, and exactly those."""

# Annotations are values here, and of values made of them no checker knows the type:
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, cast

import msgspec

from bunri.errors import UsageError
from bunri.wire.bounds import Fault
from bunri.wire.plain import ANNOTATED, LIST, TUPLE
from bunri.wire.shape import Convert, Shape, carried, through

Inner = Callable[[Any, str], Shape]
"""Makes the shape of a field's annotation."""


def hints_of(thing: Any, where: str) -> dict[str, Any]:
    """Its annotations as values. UsageError for a name that does not exist at run time."""
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except NameError as fault:
        raise UsageError(
            f"{where}: the annotation {fault.name!r} is not defined in {thing.__module__} at run time. "
            f"Import it outside of `if TYPE_CHECKING:`"
        ) from None
    except TypeError as fault:
        raise UsageError(f"{where}: an annotation that is no type: {fault}") from None


def fields_of(record_class: Any, where: str) -> dict[str, Any] | None:
    """The fields of a record and their annotations; None for a class that is none."""
    cls: Any = record_class
    names: list[str]
    if dataclasses.is_dataclass(record_class):
        names = [field.name for field in dataclasses.fields(cls)]
        hidden = [field.name for field in dataclasses.fields(cls) if not field.init]
        if hidden:
            raise UsageError(
                f"{where}: {cls.__qualname__}.{hidden[0]} is no parameter of its __init__, so it cannot be rebuilt. Drop init=False"
            )
    elif issubclass(cls, msgspec.Struct):
        names = list(cls.__struct_fields__)
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        names = list(cls._fields)
    else:
        return None
    hints = hints_of(cls, where)
    return {name: hints[name] for name in names}


def parameters_of(origin: Any, args: tuple[Any, ...]) -> dict[Any, Any]:
    """What stands for each type variable in `Box[int]`."""
    return dict(zip(origin.__parameters__, args, strict=True))


def filled_in(annotation: Any, parameters: dict[Any, Any]) -> Any:
    """The annotation with its type variables replaced."""
    if annotation in parameters:
        return parameters[annotation]
    open_ones = getattr(annotation, "__parameters__", ())
    if not open_ones or isinstance(annotation, type):
        return annotation
    return annotation[tuple(parameters.get(one, one) for one in open_ones)]


def record(cls: Any, fields: dict[str, Any], where: str, inner_of: Inner) -> Shape:
    names = tuple(fields)
    inner = [inner_of(annotation, f"{where}.{name}") for name, annotation in fields.items()]
    to_all, back_all = [s.to for s in inner], [s.back for s in inner]

    def step(place: int) -> str:
        return f".{names[place]}"

    def to(value: Any, sink: Any) -> Any:
        if type(value) is not cls:
            raise Fault(
                f"expected {cls.__qualname__}, got {type(value).__qualname__}; a subclass is not cut down to it"
            )
        return tuple(through(to_all, [getattr(value, name) for name in names], sink, step))

    by_position = _by_position(cls, names)

    def back(value: Any, source: Any) -> Any:
        made = dict(zip(names, through(back_all, value, source, step), strict=True))
        try:
            return cls(*[made.pop(name) for name in by_position], **made) if by_position else cls(**made)
        except Exception as fault:  # the class's own check of its values, whatever it raises
            raise Fault(f"{cls.__qualname__} refuses these values: {type(fault).__name__}") from None

    wire: Any = TUPLE[tuple(shape.wire for shape in inner)] if inner else tuple[()]
    spelling = f"{cls.__qualname__}({', '.join(f'{n}: {s.spelling}' for n, s in zip(names, inner, strict=True))})"
    parts = tuple((f".{name}", shape) for name, shape in zip(names, inner, strict=True))
    blobs = {place: shape.blob for place, shape in enumerate(inner) if shape.blob is not None}
    return Shape(spelling, wire, to, back, cls, *carried(inner), blobs=blobs, parts=parts)


def _by_position(cls: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """Of an exception, all fields that can be: what it is made with by position is its text (BaseException.__new__)."""
    if not issubclass(cls, BaseException):
        return ()
    keyword_only = {field.name for field in dataclasses.fields(cast(Any, cls)) if field.kw_only}
    return tuple(name for name in names if name not in keyword_only)


def typed_dict(cls: Any, hints: dict[str, Any], where: str, inner_of: Inner) -> Shape:
    """One list per key: empty where an optional key is absent."""
    keys = list(hints)
    required, inner = _required(cls, hints), []
    for key in keys:
        annotation = hints[key]
        if typing.get_origin(annotation) in (typing.Required, typing.NotRequired):
            annotation = typing.get_args(annotation)[0]
        inner.append(inner_of(annotation, f"{where}[{key!r}]"))
    to_all = [_listed(s.to) for s in inner]
    back_all = [_listed(s.back) for s in inner]

    def step(place: int) -> str:
        return f"[{keys[place]!r}]"

    def to(value: Any, sink: Any) -> Any:
        if not isinstance(value, dict) or not required <= value.keys() <= set(keys):
            raise Fault(f"expected a dict with the keys of {cls.__qualname__}")
        return tuple(through(to_all, [[value[key]] if key in value else [] for key in keys], sink, step))

    def back(value: Any, source: Any) -> Any:
        listed = through(back_all, value, source, step)
        made = {key: there[0] for key, there in zip(keys, listed, strict=True) if there}
        if not required <= made.keys():
            raise Fault(f"{cls.__qualname__} without {sorted(required - made.keys())[0]!r}")
        return made

    wire: Any = TUPLE[tuple(ANNOTATED[LIST[shape.wire], msgspec.Meta(max_length=1)] for shape in inner)]
    parts = tuple((f"[{k!r}]", Shape("", None, parts=(("", s),))) for k, s in zip(keys, inner, strict=True))
    spelling = f"{cls.__qualname__}{[(k, s.spelling) for k, s in zip(keys, inner, strict=True)]}"
    return Shape(spelling, wire, to, back, dict, *carried(inner), parts=parts)


def _required(cls: Any, hints: dict[str, Any]) -> frozenset[str]:
    """By the hints: under `from __future__ import annotations` the class itself counts a NotRequired key as required."""
    return frozenset(
        key
        for key, annotation in hints.items()
        if typing.get_origin(annotation) is typing.Required
        or (typing.get_origin(annotation) is not typing.NotRequired and key in cls.__required_keys__)
    )


def _listed(convert: Convert) -> Convert:
    """For a value in a list of at most one."""
    return None if convert is None else lambda listed, context: [convert(value, context) for value in listed]
