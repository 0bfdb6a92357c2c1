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
from typing import Any, Final

import msgspec

from bunri.errors import UsageError
from bunri.wire import bounds
from bunri.wire.bounds import Fault
from bunri.wire.shape import Shape, at, carried

TUPLE: Any = tuple  # subscripted with values, of which no checker knows that they are types
LIST: Any = list
DICT: Any = dict
_MOST: Final = msgspec.Meta(max_length=bounds.ITEMS)
_MOST_KEYS: Final = msgspec.Meta(max_length=bounds.OPEN_KEYS)


def sequence(kind: Any, item: Shape) -> Shape:
    hashed = kind in (set, frozenset)
    if hashed:
        _refuse_unhashable(item)
    counted = hashed and item.python not in _SAFE_KEYS
    wire_kind = list if hashed and (item.to or item.back or counted) else kind
    wire: Any = TUPLE[item.wire, ...] if wire_kind is tuple else wire_kind[item.wire]
    most = _MOST_KEYS if hashed and item.python not in (str, bytes) else _MOST
    to, back = item.to, item.back

    def to_each(value: Any, sink: Any) -> Any:
        if not isinstance(value, kind):
            raise Fault(f"expected {kind.__name__}, got {type(value).__name__}")
        return list(value) if to is None else [at(i, to, v, sink) for i, v in enumerate(value)]

    def back_each(value: Any, source: Any) -> Any:
        items = value if back is None else [at(i, back, v, source) for i, v in enumerate(value)]
        if counted:
            _count_hashes(items)
        return kind(items)

    return Shape(
        f"{kind.__name__}[{item.spelling}]",
        typing.Annotated[wire, most],
        None if to is None and not hashed else to_each,
        None if back is None and wire_kind is kind else back_each,
        kind,
        item.kinds,
        item.services,
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
    def to(value: Any, sink: Any) -> Any:
        if not isinstance(value, tuple) or len(value) != len(items):
            raise Fault(f"expected a tuple of {len(items)}, got {type(value).__name__}")
        return [v if s.to is None else at(i, s.to, v, sink) for i, (s, v) in enumerate(zip(items, value, strict=True))]

    def back(value: Any, source: Any) -> Any:
        return tuple(
            v if s.back is None else at(i, s.back, v, source) for i, (s, v) in enumerate(zip(items, value, strict=True))
        )

    wire: Any = TUPLE[tuple(s.wire for s in items)] if items else tuple[()]
    spelling = f"tuple[{', '.join(s.spelling for s in items)}]"
    plain_to = all(s.to is None for s in items)
    plain_back = all(s.back is None for s in items)
    return Shape(spelling, wire, None if plain_to else to, None if plain_back else back, tuple, *carried(items))


def mapping(key: Shape, value: Shape) -> Shape:
    most = _MOST if key.python in (str, bytes) else _MOST_KEYS
    _refuse_unhashable(key)
    plain = key.to is None and value.to is None and key.python is str
    pairs: Any = DICT[key.wire, value.wire] if plain else LIST[TUPLE[key.wire, value.wire]]

    def to(mapping: Any, sink: Any) -> Any:
        if not isinstance(mapping, dict):
            raise Fault(f"expected dict, got {type(mapping).__name__}")
        return [
            (
                k if key.to is None else at("keys", key.to, k, sink),
                v if value.to is None else at(_shown(k), value.to, v, sink),
            )
            for k, v in mapping.items()
        ]

    def back(given: Any, source: Any) -> Any:
        items = given.items() if plain else given
        keys = [k if key.back is None else at("keys", key.back, k, source) for k, _ in items]
        if key.python not in _SAFE_KEYS:
            _count_hashes(keys)
        values = [v if value.back is None else at(_shown(k), value.back, v, source) for k, v in items]
        made = dict(zip(keys, values, strict=True))
        if len(made) != len(given):
            raise Fault("a key that stands twice")
        return made

    no_back = plain and key.back is None and value.back is None
    return Shape(
        f"dict[{key.spelling}, {value.spelling}]",
        typing.Annotated[pairs, most],
        None if plain else to,
        None if no_back else back,
        dict,
        *carried([key, value]),
    )


def _shown(key: object) -> str:
    return repr(key)[:40]


# Unions.


def optional(inner: Shape) -> Shape:
    to, back = inner.to, inner.back
    return inner._replace(
        spelling=f"{inner.spelling} | None",
        wire=typing.Optional[inner.wire],  # noqa: UP045  (`|` is not defined for Annotated values)
        to=None if to is None else lambda value, sink: None if value is None else to(value, sink),
        back=None if back is None else lambda value, source: None if value is None else back(value, source),
        python=None,
    )


def scalar_union(shapes: list[Shape]) -> Shape:
    checks = {s.python: s.back for s in shapes if s.back is not None}

    def back(value: Any, source: Any) -> Any:
        check = checks.get(type(value))
        return value if check is None else check(value, source)

    wire: Any = typing.Union[tuple(s.wire for s in shapes)]  # noqa: UP007
    return Shape(" | ".join(s.spelling for s in shapes), wire, None, back if checks else None)


def tagged(shapes: list[Shape], where: str) -> Shape:
    """(number of the member, its value): told apart by number, decoded as that member and no other."""
    by_class: dict[type, int] = {}
    for number, shape in enumerate(shapes):
        if shape.python is None or shape.python in by_class:
            raise UsageError(
                f"{where}: two members of {' | '.join(s.spelling for s in shapes)} look the same on the wire. Put them in dataclasses"
            )
        by_class[shape.python] = number
    decoders = [msgspec.msgpack.Decoder(s.wire) for s in shapes]
    encode = msgspec.msgpack.Encoder().encode

    def to(value: Any, sink: Any) -> Any:
        number = by_class.get(type(value))
        if number is None:
            number = next((n for cls, n in by_class.items() if cls is not object and isinstance(value, cls)), None)
        if number is None:
            raise Fault(f"{type(value).__qualname__} is no member of {' | '.join(s.spelling for s in shapes)}")
        convert = shapes[number].to
        return (number, msgspec.Raw(encode(value if convert is None else convert(value, sink))))

    def back(value: Any, source: Any) -> Any:
        number, raw = value
        try:
            inner = decoders[number].decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
            raise Fault(str(fault)) from None
        convert = shapes[number].back
        return inner if convert is None else convert(inner, source)

    number_type = typing.Annotated[int, msgspec.Meta(ge=0, lt=len(shapes))]
    return Shape(
        " | ".join(s.spelling for s in shapes), tuple[number_type, msgspec.Raw], to, back, None, *carried(shapes)
    )
