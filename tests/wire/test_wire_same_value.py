"""What is sent is what arrives, or is the sender's error; what a hostile sender writes by hand is one value or none.

Each of these was a fault of the wire once.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import uuid
from typing import Annotated, Any, Generic, NotRequired, TypedDict, TypeVar

import msgspec
import pytest
from wire_parts import Sent, across, giving, interface, pack, received, taking

import bunri
from bunri.errors import ProtocolError, UsageError
from bunri.wire import bounds, contract_of

LARGE = b"x" * bounds.BLOB


# What a hostile sender gains.


def one_hash(count: int) -> list[tuple[int, int]]:
    """Pairs of whole numbers that all have one hash: CPython's hash of tuples has no key and can be run backwards."""
    first, second, seed, wide = 11400714785074694791, 14029467366897019727, 2870177450012600261, 2**64 - 1
    back = pow(second, -1, 2**64)

    def after_one(x: int) -> int:
        mixed = (seed + x * second) & wide
        return ((mixed << 31 | mixed >> 33) & wide) * first & wide

    goal = after_one(1) + 7 * second
    pairs: list[tuple[int, int]] = []
    x = 1
    while len(pairs) < count:
        y = (goal - after_one(x)) * back & wide
        if y < 2**61 - 1:
            pairs.append((x, y))
        x += 1
    assert len(set(map(hash, pairs))) == 1
    return pairs


def test_a_set_of_keys_made_to_collide_is_refused() -> None:
    with pytest.raises(ProtocolError):
        received(set[tuple[int, int]], one_hash(200))


def test_a_set_of_uuids_made_to_collide_is_refused() -> None:
    with pytest.raises(ProtocolError):
        received(set[uuid.UUID], [str(uuid.UUID(int=5 + number * (2**61 - 1))) for number in range(200)])


@pytest.mark.parametrize(
    ("annotation", "body"),
    [
        (dict[str, int], b"\x91\x92\x92\xa1a\xa1a\x92\x01\x02"),
        (set[int], b"\x91\x92\x01\x01"),
        (frozenset[str], b"\x91\x92\xa1a\xa1a"),
    ],
)
def test_a_key_that_stands_twice_is_refused(annotation: Any, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        taking(annotation).decode_arguments(body, None, None)


@dataclasses.dataclass
class Loose:
    x: int


@pytest.mark.parametrize(
    ("annotation", "wire"),
    [(set[list[int]], [[1]]), (dict[list[int], int], [[[1], 2]]), (set[Loose], [[1]]), (frozenset[set[int]], [[1]])],
)
def test_hostile_items_without_a_hash_are_a_protocol_error(annotation: Any, wire: Any) -> None:
    try:
        method = taking(annotation)
    except UsageError:
        return  # refused at the definition: better still
    with pytest.raises(ProtocolError):
        method.decode_arguments(pack([wire]), None, None)


def test_a_constraint_on_bytes_holds_for_large_ones() -> None:
    short = Annotated[bytes, msgspec.Meta(max_length=100)]
    with pytest.raises(UsageError):
        taking(short).encode_arguments((LARGE,), None)


def test_a_constraint_on_bytes_holds_for_large_hostile_ones() -> None:
    with pytest.raises(ProtocolError):
        taking(Annotated[bytes, msgspec.Meta(max_length=100)]).decode_arguments(pack([b""]), None, {0: LARGE})


class Login(bunri.Service):
    def banner(self) -> str: ...


class LoginHere(Login):
    def banner(self) -> str:
        return ""


def test_services_count_among_the_sixteen_handles() -> None:
    with pytest.raises(UsageError):
        taking(list[Login]).encode_arguments(([LoginHere()] * (bounds.HANDLES + 1),), Sent())


class RaisingText(bunri.Service):
    @bunri.raises(ValueError)
    def f(self) -> None: ...


def test_the_text_of_a_declared_exception_is_bounded_by_the_receiver() -> None:
    try:
        came = contract_of(RaisingText).methods[0].decode_exception(b"\x00" + pack("x" * 60_000))
    except ProtocolError:
        return
    assert len(str(came)) < 10_000


# What a sender sends and another thing arrives.


class Colour(enum.Enum):
    RED = "r"


@pytest.mark.parametrize(
    "value", [dt.datetime(2020, 1, 1), dt.date(2020, 1, 1), uuid.UUID(int=1), decimal.Decimal("1.5"), Colour.RED]
)
def test_what_is_no_text_is_not_sent_as_text(value: Any) -> None:
    with pytest.raises(UsageError):
        taking(str).encode_arguments((value,), None)


@pytest.mark.parametrize(
    ("annotation", "value"), [(list[int], {1}), (list[int], (1,)), (dict[str, int], Loose(1)), (tuple[int, ...], [1])]
)
def test_another_container_is_not_sent_in_its_place(annotation: Any, value: Any) -> None:
    with pytest.raises(UsageError):
        taking(annotation).encode_arguments((value,), None)


def test_a_datetime_keeps_its_offset() -> None:
    offset = dt.timedelta(hours=5, minutes=30)
    assert across(dt.datetime, dt.datetime(2020, 1, 1, tzinfo=dt.timezone(offset))).utcoffset() == offset


@pytest.mark.parametrize(
    ("annotation", "wire"),
    [
        (uuid.UUID, "12345678123456781234567812345678"),
        (decimal.Decimal, "\u0663"),
        (decimal.Decimal, " 1_0 "),
        (dt.time, "10:00:00.000000000"),
    ],
)
def test_a_value_in_another_spelling_is_refused(annotation: Any, wire: Any) -> None:
    with pytest.raises(ProtocolError):
        received(annotation, wire)


def test_a_view_of_numbers_is_not_sent_as_bytes() -> None:
    with pytest.raises(UsageError):
        taking(memoryview).encode_arguments((memoryview(b"abcd").cast("i"),), None)


def test_a_large_view_with_gaps_is_sent_whole_or_refused() -> None:
    try:
        _, blobs = taking(memoryview).encode_arguments((memoryview(LARGE * 4)[::2],), None)
    except UsageError:
        return
    assert all(memoryview(data).c_contiguous for _, data in blobs)


# Annotations that should work, or be refused by name.


def test_a_union_of_text_and_bytes_crosses_or_is_refused_by_name() -> None:
    try:
        assert across(str | bytes, b"a") == b"a"
    except UsageError:
        return


def test_raw_text_crosses_in_a_union() -> None:
    assert across(Annotated[str, bunri.RawText] | int, "a\0") == "a\0"


def test_a_pattern_holds_in_a_union() -> None:
    with pytest.raises(UsageError):
        taking(Annotated[str, msgspec.Meta(pattern="^a")] | int).encode_arguments(("b",), None)


def test_a_bound_on_an_int_holds() -> None:
    small = Annotated[int, msgspec.Meta(ge=0, le=9)]
    assert across(small, 9) == 9
    with pytest.raises(UsageError):
        taking(small).encode_arguments((10,), None)


class Options(TypedDict):
    depth: int
    label: NotRequired[str]


def test_a_key_that_is_not_required_may_be_absent() -> None:
    assert across(Options, {"depth": 1}) == {"depth": 1}


@dataclasses.dataclass
class Unresolved:
    x: Nowhere  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


def test_a_field_whose_type_is_not_defined_is_named() -> None:
    with pytest.raises(UsageError, match="Nowhere"):
        taking(Unresolved)


class First(bunri.Service):
    def a(self) -> None: ...


class Second(First):
    def b(self, x) -> None: ...  # type: ignore[no-untyped-def]  # on purpose


def test_a_missing_annotation_in_a_lower_interface_is_named() -> None:
    with pytest.raises(UsageError, match="x"):
        contract_of(Second)


def test_a_public_callable_that_is_not_exported_is_refused() -> None:
    with pytest.raises(UsageError):
        contract_of(interface(f=functools.lru_cache(lambda self: 1)))


T = TypeVar("T")


@dataclasses.dataclass
class Box(Generic[T]):
    value: T


def test_a_generic_dataclass_crosses() -> None:
    assert across(Box[int], Box(1)) == Box(1)


# Errors that leave as something else, or say little.


def test_a_wrong_result_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        giving(bytes).encode_result((), None)


def test_a_closed_file_is_a_usage_error() -> None:
    file = bunri.File.open("/dev/null")
    file.close()
    with pytest.raises(UsageError):
        taking(bunri.File).encode_arguments((file,), Sent())


@dataclasses.dataclass
class Point:
    x: int
    label: str


def test_the_path_of_a_field_is_its_name() -> None:
    with pytest.raises(UsageError, match=r"\$\[0\]\.label"):
        taking(Point).encode_arguments((Point(1, 2),), None)  # type: ignore[arg-type]  # on purpose


class RaisingOs(bunri.Service):
    @bunri.raises(OSError)
    def f(self) -> None: ...


def test_a_declared_oserror_covers_what_the_system_raises() -> None:
    assert contract_of(RaisingOs).methods[0].encode_exception(FileNotFoundError(2, "none")) is not None


@pytest.mark.parametrize("size", [-1, 0, True, 1.5])
def test_a_size_that_says_nothing_is_refused(size: Any) -> None:
    with pytest.raises(UsageError):
        bunri.limit(size=size)


def test_a_declared_oserror_arrives_as_the_class_of_its_number() -> None:
    method = contract_of(RaisingOs).methods[0]
    body = method.encode_exception(FileNotFoundError(2, "none", "/a/secret/name"))
    assert body is not None
    assert b"secret" not in body
    came = method.decode_exception(body)
    assert (type(came), came.args) == (FileNotFoundError, (2, "none"))


def test_no_other_declared_class_covers_its_subclasses() -> None:
    """A text of a class nobody declared may say what was not meant for the worker."""
    assert contract_of(RaisingText).methods[0].encode_exception(UnicodeDecodeError("a", b"secret", 0, 1, "r")) is None


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Annotated[dict[str, int], msgspec.Meta(max_length=1)], {"a": 1, "b": 2}),
        (Annotated[dt.datetime, msgspec.Meta(tz=True)], dt.datetime(2020, 1, 1)),
        (Annotated[dt.time, msgspec.Meta(tz=False)], dt.time(1, tzinfo=dt.UTC)),
        (Annotated[str | None, msgspec.Meta(max_length=1)], "ab"),
        (Annotated[bytes | None, msgspec.Meta(max_length=1)], LARGE),
        (Annotated[bytes, msgspec.Meta(min_length=bounds.BLOB + 1)], LARGE),
        (Annotated[list[int], msgspec.Meta(min_length=1)], []),
    ],
)
def test_what_a_meta_says_holds(annotation: Any, value: Any) -> None:
    with pytest.raises(UsageError):
        taking(annotation).encode_arguments((value,), None)


def test_large_bytes_under_a_bound_cross() -> None:
    assert across(Annotated[bytes, msgspec.Meta(min_length=1, max_length=1 << 20)], LARGE) == LARGE
    assert across(Annotated[bytes | None, msgspec.Meta(min_length=1)], None) is None


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[int, msgspec.Meta(min_length=1)],
        Annotated[Point, msgspec.Meta(min_length=1)],
        Annotated[uuid.UUID, msgspec.Meta(ge=1)],
        Annotated[dt.datetime, msgspec.Meta(ge=1)],
        Annotated[dict[str, int], msgspec.Meta(ge=1)],
        Annotated[Colour, msgspec.Meta(ge=1)],
    ],
)
def test_a_meta_that_says_nothing_about_its_type_is_refused(annotation: Any) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        taking(annotation)


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (list[Point], [Point(1, "a"), Point(1, 2)], r"\[0\]\[1\]\.label"),  # type: ignore[arg-type]  # on purpose
        (dict[str, Point], {"a": Point(1, 2)}, r"\[0\]\.values\(\)\[0\]\.label"),  # type: ignore[arg-type]  # on purpose
        (Options, {"depth": "no"}, r"\[0\]\['depth'\]"),
        (tuple[int, list[int]], (1, [1, "no"]), r"\[0\]\[1\]\[1\]"),
        (Point | Colour, Point(1, 2), r"\[0\]\.label"),  # type: ignore[arg-type]  # on purpose
        (list[str], ["a", dt.date(2020, 1, 1)], r"\[0\]\[1\]"),
        (list[str], ["a", "b", "c\0"], r"\[0\]\[2\]"),
        (list[list[str]], [["a"], ["b", "\0"]], r"\[0\]\[1\]\[1\]"),
        (frozenset[str], frozenset(("\0",)), r"\[0\]\[0\]"),
    ],
)
def test_the_path_says_where_in_names(annotation: Any, value: Any, path: str) -> None:
    with pytest.raises(UsageError, match=r"`\$" + path + "`"):
        taking(annotation).encode_arguments((value,), None)


def test_a_number_that_is_none_is_no_other_value() -> None:
    came = across(list[Annotated[float, bunri.NotFinite]], [float("nan"), float("inf")])
    assert came[0] != came[0]
    assert came[1] == float("inf")


class Pair(TypedDict, Generic[T]):
    value: T


def test_generic_records_of_every_kind_cross() -> None:
    assert across(Box[list[int]], Box([1])) == Box([1])
    assert across(Box[Box[str] | None], Box(Box("a"))) == Box(Box("a"))
    assert across(Pair[int], {"value": 1}) == {"value": 1}
    with pytest.raises(UsageError):
        taking(Box[int]).encode_arguments((Box("a"),), None)
