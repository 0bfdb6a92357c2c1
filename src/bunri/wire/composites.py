"""Runs in: every process; pure. Shapes made of shapes: containers and unions.

What is hashed is counted before it is built: keys chosen to collide make a set of them minutes of work (THREATS 24).
A union tells its members apart by number, and decodes a value as that member and no other.
"""

# Annotations are values here, and of values made of them no checker knows the type:
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportInvalidTypeArguments=false, reportAttributeAccessIssue=false

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from bunri.errors import UsageError
from bunri.wire import bounds
from bunri.wire.bounds import Fault
from bunri.wire.plain import LIST, TUPLE, back_str
from bunri.wire.shape import Shape, carried, each, fault_of, through, write

_MOST: Final = msgspec.Meta(max_length=bounds.ITEMS)
_MOST_KEYS: Final = msgspec.Meta(max_length=bounds.OPEN_KEYS)


def sequence(kind: Any, item: Shape, *, takes: Any = None) -> Shape:
    """`takes`: the classes that a sender may give for it, where they are more than its own."""
    hashed = kind in (set, frozenset)
    if hashed:
        _refuse_unhashable(item)
    counted = hashed and item.python not in _SAFE_KEYS
    wire: Any = TUPLE[item.wire, ...] if kind is tuple else LIST[item.wire]
    wire_kind: Any = tuple if kind is tuple else list
    most = _MOST_KEYS if counted else _MOST
    to, back, taken = item.to, item.back, takes or kind

    def to_each(value: Any, sink: Any) -> Any:
        if not isinstance(value, taken):
            raise Fault(f"expected {kind.__name__}, got {type(value).__name__}")
        return wire_kind(value if to is None else each(to, value, sink))

    def back_each(value: Any, source: Any) -> Any:
        # Many texts are looked at as one.
        is_right = back is back_str and "\0" not in "".join(value)
        items = value if back is None or is_right else each(back, value, source)
        if counted:
            _count_hashes(items)
        made = kind(items)
        if hashed and len(made) != len(items):
            raise Fault("an item that stands twice")
        return made

    return Shape(
        f"{kind.__name__}[{item.spelling}]",
        typing.Annotated[wire, most],
        None if to is None and not hashed and takes is None else to_each,
        None if back is None and wire_kind is kind else back_each,
        kind,
        item.kinds,
        item.services,
        each=item,
    )


_SAFE_KEYS: Final = (str, bytes)  # their hash is keyed by a secret of the process


def _count_hashes(items: Any) -> None:
    """Refuse values chosen so that their hashes collide: a set of them is minutes of work (THREATS 24)."""
    seen: dict[int, int] = {}
    for item in items:
        number = hash(
            hash(item).to_bytes(8, "little", signed=True)
        )  # keyed, so that this count cannot be flooded itself
        seen[number] = count = seen.get(number, 0) + 1
        if count > bounds.EQUAL_HASHES:
            raise Fault(f"more than {bounds.EQUAL_HASHES} keys with one and the same hash")


def _refuse_unhashable(item: Shape) -> None:
    if item.python in (list, dict, set, bytearray, memoryview) or (
        item.python is not None and dataclasses.is_dataclass(item.python) and item.python.__hash__ is None
    ):
        raise UsageError(
            f"{item.spelling} has no hash, so it can be neither a key nor in a set. Use a tuple, or a frozen dataclass"
        )


def fixed_tuple(items: list[Shape]) -> Shape:
    to_all, back_all = [s.to for s in items], [s.back for s in items]

    def to(value: Any, sink: Any) -> Any:
        if not isinstance(value, tuple) or len(value) != len(items):
            raise Fault(f"expected a tuple of {len(items)}, got {type(value).__name__}")
        return tuple(through(to_all, value, sink, "[{}]".format))

    def back(value: Any, source: Any) -> Any:
        return tuple(through(back_all, value, source, "[{}]".format))

    wire: Any = TUPLE[tuple(s.wire for s in items)] if items else tuple[()]
    spelling = f"tuple[{', '.join(s.spelling for s in items)}]"
    plain_to = all(s.to is None for s in items)
    plain_back = all(s.back is None for s in items)
    return Shape(
        spelling,
        wire,
        None if plain_to else to,
        None if plain_back else back,
        tuple,
        *carried(items),
        parts=tuple((f"[{i}]", shape) for i, shape in enumerate(items)),
    )


def mapping(key: Shape, value: Shape, takes: Any = dict, wanted: Mapping[str, Any] = MappingProxyType({})) -> Shape:
    """Its keys and its values, in two lists: a decoder that made a dict of them would keep the last of two equal keys and
    say nothing. `wanted`: the bounds of its length."""
    _refuse_unhashable(key)
    counted = key.python not in _SAFE_KEYS
    known: dict[str, Any] = {"max_length": bounds.OPEN_KEYS if counted else bounds.ITEMS, **wanted}
    if known.keys() - {"min_length", "max_length"}:
        raise TypeError("only min_length and max_length can be asked of it")
    length = msgspec.Meta(**known)

    def to(given: Any, sink: Any) -> Any:
        if not isinstance(given, takes):
            raise Fault(f"expected {takes.__name__.lower()}, got {type(given).__name__}")
        keys, values = list(given.keys()), list(given.values())
        if value.to is not None:
            values = through([value.to] * len(keys), values, sink, lambda i: _key(keys[i]))
        if key.to is not None:
            keys = through([key.to] * len(keys), keys, sink, ".keys()[{}]".format)
        return (keys, values)

    def back(given: Any, source: Any) -> Any:
        keys, values = given
        if key.back is not None:
            keys = through([key.back] * len(keys), keys, source, ".keys()[{}]".format)
        if len(keys) != len(values):
            raise Fault(f"{len(keys)} keys and {len(values)} values")
        if counted:
            _count_hashes(keys)
        if value.back is not None:
            values = through([value.back] * len(keys), values, source, lambda i: _key(keys[i]))
        made = dict(zip(keys, values, strict=True))
        if len(made) != len(keys):
            raise Fault("a key that stands twice")
        return made

    wire: Any = TUPLE[typing.Annotated[LIST[key.wire], length], LIST[value.wire]]
    return Shape(
        f"dict[{key.spelling}, {value.spelling}]",
        wire,
        to,
        back,
        dict,
        *carried([key, value]),
        parts=((".keys()", Shape("", None, each=key)), (".values()", Shape("", None, each=value))),
        bound=lambda more: mapping(key, value, takes, {**wanted, **more}),
    )


def _key(key: object) -> str:
    return f"[{repr(key)[:40]}]"


# Unions.


def optional(inner: Shape) -> Shape:
    to, back, blob = inner.to, inner.back, inner.blob
    return inner._replace(
        spelling=f"{inner.spelling} | None",
        wire=typing.Optional[inner.wire],  # noqa: UP045  (`|` is not defined for Annotated values)
        to=None if to is None else lambda value, sink: None if value is None else to(value, sink),
        back=None if back is None else lambda value, source: None if value is None else back(value, source),
        python=None,
        blob=None if blob is None else blob._replace(wire=typing.Optional[blob.wire]),  # noqa: UP045
        blobs={},
        bound=None,
    )


_SCALARS: Final = (bool, int, float, str, bytes, type(None))


def union(shapes: list[Shape], where: str) -> Shape:
    """Numbers, text and bytes tell themselves apart on the wire, where nothing need be done to them; other members have numbers."""
    classes = [s.python for s in shapes]
    if (
        all(s.python in _SCALARS and s.to is None for s in shapes)
        and len(set(classes)) == len(classes)
        and not {str, bytes} <= set(classes)
    ):
        return _scalar_union(shapes)
    return _tagged(shapes, where)


def _scalar_union(shapes: list[Shape]) -> Shape:
    checks = {s.python: s.back for s in shapes if s.back is not None}

    def back(value: Any, source: Any) -> Any:
        check = checks.get(type(value))
        return value if check is None else check(value, source)

    wire: Any = typing.Union[tuple(s.wire for s in shapes)]  # noqa: UP007
    return Shape(" | ".join(s.spelling for s in shapes), wire, None, back if checks else None)


def _tagged(shapes: list[Shape], where: str) -> Shape:
    """(number of the member, its value): told apart by number, decoded as that member and no other."""
    by_class: dict[type, int] = {}
    for number, shape in enumerate(shapes):
        if shape.python is None or shape.python in by_class:
            raise UsageError(
                f"{where}: two members of {' | '.join(s.spelling for s in shapes)} look the same on the wire. Put them in dataclasses"
            )
        by_class[shape.python] = number
    decoders = [msgspec.msgpack.Decoder(s.wire).decode for s in shapes]

    def to(value: Any, sink: Any) -> Any:
        number = by_class.get(type(value))
        if number is None:
            number = next((n for cls, n in by_class.items() if cls is not object and isinstance(value, cls)), None)
        if number is None:
            raise Fault(f"{type(value).__qualname__} is no member of {' | '.join(s.spelling for s in shapes)}")
        shape = shapes[number]
        body, _ = write(shape, decoders[number], value if shape.to is None else shape.to(value, sink))
        return (number, msgspec.Raw(body))

    def back(value: Any, source: Any) -> Any:
        number, raw = value
        shape = shapes[number]
        try:
            inner = decoders[number](raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise fault_of(error, shape) from None
        return inner if shape.back is None else shape.back(inner, source)

    number_type = typing.Annotated[int, msgspec.Meta(ge=0, lt=len(shapes))]
    return Shape(
        " | ".join(s.spelling for s in shapes), tuple[number_type, msgspec.Raw], to, back, None, *carried(shapes)
    )
