"""Runs in: every process; pure. The shapes of plain types: numbers, text, bytes, times.

What is written as text has one spelling: it is read, written again, and must be the same. Two ways to write one value are two answers to
the question whether two messages are equal.
"""

# Annotations are values here, and of values made of them no checker knows the type:
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import datetime
import decimal
import math
import typing
import uuid
from typing import Any, Final

import msgspec

from bunri.errors import UsageError
from bunri.wire import bounds
from bunri.wire.bounds import Fault
from bunri.wire.shape import Blob, Shape

ANNOTATED: Any = typing.Annotated  # subscripted with values, of which no checker knows that they are types
TUPLE: Any = tuple
LIST: Any = list
INT64: Final = typing.Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_DAY: Final = 86_400_000_000  # microseconds


# Text and numbers.


def back_str(value: Any, source: Any) -> Any:
    """A text that came, looked at."""
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
    if str(number) != value:
        raise Fault("a Decimal in another spelling than its own")
    return number


def _check_decimal(value: decimal.Decimal) -> None:
    sign_digits_exponent = value.as_tuple()
    exponent = sign_digits_exponent.exponent
    if not isinstance(exponent, int):
        raise Fault(f"{value} is not a finite number")
    if len(sign_digits_exponent.digits) > bounds.DIGITS or abs(exponent) > bounds.EXPONENT:
        raise Fault(f"a Decimal of more than {bounds.DIGITS} digits, or an exponent beyond {bounds.EXPONENT}")


# Bytes.


def _to_bytes(value: Any, sink: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return value
    if isinstance(value, memoryview):
        refuse_view(value)
        return value.tobytes()
    raise Fault(f"expected bytes, got {type(value).__name__}")


def refuse_view(view: memoryview) -> None:
    """Of a view of other numbers, or of more than one dimension, only the bytes would arrive."""
    if view.ndim != 1 or view.format not in ("B", "b", "c"):
        raise Fault(
            f"a memoryview of {view.ndim} dimensions of {view.format!r}: send view.cast('B'), which is what arrives"
        )


def _bytes(cls: type) -> Shape:
    back = None if cls is bytes else lambda value, source: cls(value)
    return Shape(cls.__name__, bytes, _to_bytes, back, cls, blob=Blob(cls, bytes))


# What travels as text: each value in the one spelling that it is written in.


def _spelled(cls: Any, wanted: dict[str, Any]) -> Shape:
    """`wanted`: msgspec's constraints."""
    declared: Any = ANNOTATED[cls, msgspec.Meta(**wanted)] if wanted else cls
    msgspec.msgpack.Decoder(declared)  # a TypeError for constraints that say nothing about it

    def to(value: Any, sink: Any) -> Any:
        if type(value) is not cls:
            raise Fault(f"expected {cls.__name__}, got {type(value).__name__}")
        return msgspec.to_builtins(value)

    def back(value: Any, source: Any) -> Any:
        try:
            made = msgspec.convert(value, declared)
        except msgspec.ValidationError as error:
            raise Fault(str(error)) from None
        if msgspec.to_builtins(made) != value:
            raise Fault(f"a {cls.__name__} in another spelling than its own")
        return made

    return Shape(cls.__name__, str, to, back, cls, bound=lambda more: _spelled(cls, {**wanted, **more}))


def _datetime(is_aware: bool | None = None) -> Shape:
    """The time of day as it reads, and the offset beside it: msgspec alone would send the instant, and it would arrive as UTC."""
    naive = _spelled(datetime.datetime, {"tz": False})
    assert naive.back is not None
    read = naive.back

    def check(offset: object) -> None:
        if is_aware is not None and is_aware is (offset is None):
            raise Fault("a datetime with a time zone is declared" if is_aware else "a datetime without one is declared")

    def to(value: Any, sink: Any) -> Any:
        if type(value) is not datetime.datetime:
            raise Fault(f"expected datetime, got {type(value).__name__}")
        offset = value.utcoffset()
        check(offset)
        return (msgspec.to_builtins(value.replace(tzinfo=None)), None if offset is None else offset // _MICROSECOND)

    def back(value: Any, source: Any) -> Any:
        text, offset = value
        check(offset)
        made = read(text, source)
        return made if offset is None else made.replace(tzinfo=_zone(offset))

    def bound(wanted: dict[str, Any]) -> Shape:
        if wanted.keys() != {"tz"}:
            raise TypeError("only tz can be asked of it")
        return _datetime(wanted["tz"])

    offset = ANNOTATED[int, msgspec.Meta(gt=-_DAY, lt=_DAY)]
    wire: Any = TUPLE[str, typing.Optional[offset]]  # noqa: UP045
    return Shape("datetime", wire, to, back, datetime.datetime, bound=bound)


def _zone(offset: int) -> datetime.tzinfo:
    return datetime.UTC if not offset else datetime.timezone(offset * _MICROSECOND)


_NONE: Final = Shape("None", None, python=type(None))
PLAIN: Final[dict[Any, Shape]] = {
    None: _NONE,
    type(None): _NONE,
    bool: Shape("bool", bool, python=bool),
    int: Shape("int", INT64, python=int),
    float: Shape("float", float, back=_back_float, python=float),
    str: Shape("str", str, back=back_str, python=str),
    bytes: _bytes(bytes),
    bytearray: _bytes(bytearray),
    memoryview: _bytes(memoryview),
    datetime.datetime: _datetime(),
    datetime.date: _spelled(datetime.date, {}),
    datetime.time: _spelled(datetime.time, {}),
    datetime.timedelta: _spelled(datetime.timedelta, {}),
    uuid.UUID: _spelled(uuid.UUID, {}),
    decimal.Decimal: Shape(
        "Decimal",
        typing.Annotated[str, msgspec.Meta(max_length=bounds.DIGITS + 16)],
        _decimal_to,
        _decimal_back,
        decimal.Decimal,
    ),
}
RAW_TEXT: Final = Shape("str raw", bytes, _raw_to, _raw_back, python=str)
ANY_FLOAT: Final = Shape("float any", float, python=float)
_BOUNDABLE: Final = (int, float, str, bytes, bytearray, memoryview, list, tuple, set, frozenset)  # on their wire type


def bounded(shape: Shape, meta: msgspec.Meta, where: str) -> Shape:
    """The shape under msgspec's constraints, but for a pattern. UsageError where they say nothing about it."""
    earlier = [m for m in getattr(shape.wire, "__metadata__", ()) if isinstance(m, msgspec.Meta)]
    names = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "tz")
    new = {name: getattr(meta, name) for name in names if getattr(meta, name) is not None}
    if not new:
        return shape
    spelling = f"{shape.spelling} {sorted(new.items())}"
    try:
        made = _laid_on(
            shape, new, {name: getattr(m, name) for m in earlier for name in names if getattr(m, name) is not None}
        )
        msgspec.msgpack.Decoder(made.wire)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{where}: {meta!r} does not fit a {shape.spelling}: {error}. Drop it, or put it on the part that it is about"
        ) from None
    return made._replace(spelling=spelling)


def _laid_on(shape: Shape, new: dict[str, Any], old: dict[str, Any]) -> Shape:
    if shape.bound is not None:
        return shape.bound(new)
    if shape.python not in _BOUNDABLE or shape is RAW_TEXT:
        raise TypeError("nothing of it is checked by that")
    bare: Any = typing.get_args(shape.wire)[0] if old else shape.wire
    blob = shape.blob
    if blob is not None:
        blob = blob._replace(least=new.get("min_length", blob.least), most=new.get("max_length", blob.most))
    return shape._replace(wire=ANNOTATED[bare, msgspec.Meta(**{**old, **new})], blob=blob)
