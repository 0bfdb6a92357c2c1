"""Every type that may cross arrives as it was, and what may not is refused where it is written or where it is sent."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import typing
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_parts import across, giving, received, taking

import bunri
from bunri.errors import ProtocolError, UsageError
from bunri.wire.bounds import DIGITS, EXPONENT


class Colour(enum.Enum):
    RED = "r"
    BLUE = (1, 2)  # values stay at home, so any will do


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Wider(Point):
    z: int = 0


@dataclasses.dataclass
class Same(Point):
    """Point's fields, another class."""


@dataclasses.dataclass(frozen=True)
class Key:
    name: str
    number: int


@dataclasses.dataclass(kw_only=True)
class Shape:
    corners: list[Point]
    colour: Colour | None = None
    extra: dict[str, Point] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Circle:
    radius: float


class Frame(msgspec.Struct):
    at: int
    data: bytes = b""


class Pair(NamedTuple):
    left: int
    right: str


class Depth(TypedDict):
    depth: int


class Options(Depth, total=False):
    label: str


UserId = NewType("UserId", int)
Alias = dict[str, list[int]]

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
INT = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
POINT = st.builds(Point, INT, INT)
DECIMAL = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20)

KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "None": (None, st.none()),
    "bool": (bool, st.booleans()),
    "int": (int, INT),
    "float": (float, FLOAT),
    "str": (str, TEXT),
    "bytes": (bytes, st.binary(max_size=50)),
    "bytearray": (bytearray, st.binary(max_size=50).map(bytearray)),
    "list": (list[int], st.lists(INT, max_size=8)),
    "nested list": (list[list[str]], st.lists(st.lists(TEXT, max_size=3), max_size=3)),
    "tuple": (tuple[int, str, bytes], st.tuples(INT, TEXT, st.binary(max_size=5))),
    "variadic tuple": (tuple[float, ...], st.lists(FLOAT, max_size=5).map(tuple)),
    "empty tuple": (tuple[()], st.just(())),
    "dict": (dict[str, int], st.dictionaries(TEXT, INT, max_size=5)),
    "dict of int": (dict[int, list[str]], st.dictionaries(INT, st.lists(TEXT, max_size=2), max_size=5)),
    "dict of float": (dict[float, int], st.dictionaries(FLOAT, INT, max_size=5)),
    "dict of tuple": (dict[tuple[int, str], int], st.dictionaries(st.tuples(INT, TEXT), INT, max_size=5)),
    "dict of dataclass": (
        dict[Key, bytes],
        st.dictionaries(st.builds(Key, TEXT, INT), st.binary(max_size=4), max_size=4),
    ),
    "dict of UUID": (dict[uuid.UUID, int], st.dictionaries(st.uuids(), INT, max_size=4)),
    "set": (set[int], st.sets(INT, max_size=8)),
    "set of text": (set[str], st.sets(TEXT, max_size=8)),
    "frozenset": (frozenset[bytes], st.frozensets(st.binary(max_size=5), max_size=8)),
    "set of tuple": (set[tuple[int, int]], st.sets(st.tuples(INT, INT), max_size=5)),
    "set of enum": (set[Colour], st.sets(st.sampled_from(Colour))),
    "set of dataclass": (set[Key], st.sets(st.builds(Key, TEXT, INT), max_size=5)),
    "datetime": (dt.datetime, st.datetimes()),
    "date": (dt.date, st.dates()),
    "time": (dt.time, st.times()),
    "timedelta": (dt.timedelta, st.timedeltas()),
    "UUID": (uuid.UUID, st.uuids()),
    "Decimal": (decimal.Decimal, DECIMAL),
    "Enum": (Colour, st.sampled_from(Colour)),
    "IntEnum": (Level, st.sampled_from(Level)),
    "Literal": (Literal["a", 3, None], st.sampled_from(["a", 3, None])),
    "dataclass": (Point, POINT),
    "keyword-only dataclass": (
        Shape,
        st.builds(
            Shape,
            corners=st.lists(POINT, max_size=3),
            colour=st.none() | st.sampled_from(Colour),
            extra=st.dictionaries(TEXT, POINT, max_size=2),
        ),
    ),
    "Struct": (Frame, st.builds(Frame, INT, st.binary(max_size=9))),
    "NamedTuple": (Pair, st.builds(Pair, INT, TEXT)),
    "TypedDict": (Options, st.fixed_dictionaries({"depth": INT}, optional={"label": TEXT})),
    "Optional": (int | None, st.none() | INT),
    "Optional dataclass": (Point | None, st.none() | POINT),
    "union of scalars": (int | str | bool | None, st.none() | INT | TEXT | st.booleans()),
    "union of dataclasses": (Point | Circle, POINT | st.builds(Circle, FLOAT)),
    "union of Point and a subclass": (Point | Wider, POINT | st.builds(Wider, INT, INT, INT)),
    "mixed union": (Point | int | list[str] | None, st.none() | INT | POINT | st.lists(TEXT, max_size=2)),
    "list of union": (list[Point | Circle | None], st.lists(st.none() | POINT | st.builds(Circle, FLOAT), max_size=4)),
    "NewType": (UserId, INT.map(UserId)),
    "alias": (Alias, st.dictionaries(TEXT, st.lists(INT, max_size=3), max_size=3)),
    "Annotated": (Annotated[int, "a note for others"], INT),
    "raw text": (Annotated[str, bunri.RawText], st.text(st.characters(), max_size=20)),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_value_arrives_as_it_was(kind: str, data: st.DataObject) -> None:
    annotation, values = KINDS[kind]
    value = data.draw(values)
    came = across(annotation, value)
    assert came == value
    assert type(came) is type(value)


def test_values_inside_of_a_container_keep_their_classes() -> None:
    sent = Shape(corners=[Point(1, 2)], colour=Colour.BLUE, extra={"a": Point(3)})
    came = across(Shape, sent)
    assert [type(corner) for corner in came.corners] == [Point]
    assert came.colour is Colour.BLUE


def test_a_memoryview_arrives_as_one() -> None:
    assert across(memoryview, memoryview(b"abc")).tobytes() == b"abc"


def test_declared_not_finite_numbers_cross() -> None:
    assert across(Annotated[float, bunri.NotFinite], float("inf")) == float("inf")
    assert across(Annotated[float, bunri.NotFinite], float("nan")) != 0


REFUSED_VALUES: dict[str, tuple[Any, Any]] = {
    "an int too large": (int, 2**63),
    "an int too small": (int, -(2**63) - 1),
    "an int far too large": (int, 10**40),
    "a bool for an int": (int, True),
    "a float for an int": (int, 1.0),
    "a str for bytes": (bytes, "a"),
    "bytes for a str": (str, b"a"),
    "NaN": (float, float("nan")),
    "infinity": (list[float], [1.0, float("-inf")]),
    "a NUL": (str, "a\0b"),
    "a NUL deep inside": (dict[str, list[str]], {"a": ["b", "c\0"]}),
    "a NUL in a key": (dict[str, int], {"\0": 1}),
    "a lone surrogate": (str, "\udc80"),
    "None for an int": (int, None),
    "a dataclass of other fields": (Point, Circle(1.0)),
    "a subclass with further fields": (Point, Wider(1, 2, 3)),
    "a subclass with the same fields": (Point, Same(1, 2)),
    "a subclass in a list": (list[Point], [Wider(1, 2, 3)]),
    "a dataclass with a bad field": (Point, Point("x")),  # type: ignore[arg-type]  # on purpose
    "a member of another Enum": (Colour, Level.LOW),
    "an Enum's value": (Colour, "r"),
    "no such Literal": (Literal["a", "b"], "c"),
    "no member of the union": (Point | Circle, 3),
    "an int in a list of str": (list[str], ["a", 1]),
    "a tuple too short": (tuple[int, int], (1,)),
    "a TypedDict without a key": (Options, {"label": "x"}),
    "a TypedDict with another key": (Options, {"depth": 1, "other": 2}),
    "a Decimal of many digits": (decimal.Decimal, decimal.Decimal("1" * (DIGITS + 1))),
    "a Decimal with a large exponent": (decimal.Decimal, decimal.Decimal(f"1e{EXPONENT + 1}")),
    "a Decimal that is no number": (decimal.Decimal, decimal.Decimal("NaN")),
    "an object": (int, object()),
    "a function": (list[int], [len]),
}


@pytest.mark.parametrize("case", REFUSED_VALUES)
def test_a_value_of_another_type_is_the_senders_usage_error(case: str) -> None:
    annotation, value = REFUSED_VALUES[case]
    with pytest.raises(UsageError, match="method"):
        taking(annotation).encode_arguments((value,), None)
    with pytest.raises(UsageError, match="result"):
        giving(annotation).encode_result(value, None)


def test_the_error_says_where_the_wrong_value_stands() -> None:
    with pytest.raises(UsageError, match=r"`\$\[0\]\[1\]"):
        taking(list[int]).encode_arguments(([1, "x"],), None)


HOSTILE_VALUES: dict[str, tuple[Any, Any]] = {
    "an unsigned int beyond 63 bits": (int, 2**63),
    "NaN": (float, float("nan")),
    "a NUL": (str, "\0"),
    "a field too many": (Point, [1, 2, 3]),
    "a field too few": (Point, [1]),
    "fields by name": (Point, {"x": 1, "y": 2}),
    "an Enum number out of the table": (Colour, 2),
    "a negative Enum number": (Colour, -1),
    "an Enum's name": (Colour, "RED"),
    "a union number out of the table": (Point | Circle, [2, [1, 2]]),
    "a union number for another value": (Point | Circle, [1, [1, 2]]),
    "a Decimal of 65 digits": (decimal.Decimal, "1" * 65),
    "a Decimal like a bomb": (decimal.Decimal, "1e999999999"),
    "a Decimal with a signal": (decimal.Decimal, "sNaN"),
    "a required key left out": (Options, [[], ["x"]]),
    "a key given twice": (Options, [[1, 2], []]),
    "a date that is none": (dt.date, "2023-02-30"),
    "a UUID that is none": (uuid.UUID, "x" * 36),
}


@pytest.mark.parametrize("case", HOSTILE_VALUES)
def test_a_value_that_the_sender_could_not_have_sent_ends_it(case: str) -> None:
    annotation, wire = HOSTILE_VALUES[case]
    with pytest.raises(ProtocolError):
        received(annotation, wire)


@dataclasses.dataclass
class Checked:
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise KeyError("any exception of a class's own check counts")


def test_a_classes_own_check_is_a_protocol_error_in_the_receiver() -> None:
    assert received(Checked, [1, 2]) == Checked(1, 2)
    with pytest.raises(ProtocolError, match="Checked"):
        received(Checked, [2, 1])


def test_a_classes_own_check_is_tried_by_the_sender_first() -> None:
    spoilt = Checked(1, 2)
    spoilt.low = 3
    with pytest.raises(UsageError, match="Checked"):
        taking(Checked).encode_arguments((spoilt,), None)


class Plain:
    """Nothing that the wire knows."""


@dataclasses.dataclass
class Hidden:
    x: int
    y: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Node:
    children: list[Node]


REFUSED_TYPES: dict[str, Any] = {
    "Any": Any,
    "object": object,
    "a class of one's own": Plain,
    "complex": complex,
    "an exception": ValueError,
    "a bare list": list,
    "a bare dict": dict,
    "Callable": Callable[[int], int],
    "a TypeVar": typing.TypeVar("T"),
    "Any inside": dict[str, list[Any]],
    "a field without parameter": Hidden,
    "a class that contains itself": Node,
    "a union of two lists": list[int] | list[str],
    "a Literal of bool": Literal[True],
}


@pytest.mark.parametrize("case", REFUSED_TYPES)
def test_a_type_that_cannot_be_checked_is_refused_by_name(case: str) -> None:
    with pytest.raises(UsageError, match=r"method\(a\)"):
        taking(REFUSED_TYPES[case])
    with pytest.raises(UsageError, match="result"):
        giving(REFUSED_TYPES[case])


def test_a_pattern_is_tried_by_the_sender_and_never_by_the_receiver() -> None:
    annotation = Annotated[str, msgspec.Meta(pattern="^a+$")]
    with pytest.raises(UsageError, match="match"):
        taking(annotation).encode_arguments(("b",), None)
    assert received(annotation, "b") == "b"  # a hostile text never meets the expression


def test_constraints_hold_on_both_sides() -> None:
    annotation = Annotated[list[int], msgspec.Meta(min_length=1)]
    assert across(annotation, [9]) == [9]
    with pytest.raises(UsageError):
        taking(annotation).encode_arguments(([],), None)
    with pytest.raises(ProtocolError):
        received(annotation, [])
