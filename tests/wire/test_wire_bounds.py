"""The bounds of THREATS 24 at their edges; and no bytes whatever raise anything but a ProtocolError."""

from __future__ import annotations

import builtins
import dataclasses
import datetime as dt
import decimal
import enum
import sys
import tracemalloc
import uuid
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_parts import giving, interface, pack, received, taking

import bunri
from bunri.errors import ProtocolError, UsageError
from bunri.wire import bounds, contract_of
from bunri.wire.bounds import Fault, parse_size, scan
from bunri.wire.frames import MOST_BLOBS


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Leaf:
    text: str
    number: int | None = None


@dataclasses.dataclass
class Branch:
    leaves: list[Leaf]
    other: dict[str, Leaf]


class Frame(msgspec.Struct):
    at: int


EVERYTHING: tuple[Any, ...] = (
    int, float, str, bytes, bytearray, memoryview, bool, None,
    list[int], list[list[str]], dict[str, int], dict[int, bytes], set[int], frozenset[str], tuple[int, str],
    tuple[float, ...],
    dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, decimal.Decimal, Colour,
    Leaf, Branch, Frame, Leaf | Frame | None, int | str | None, list[Leaf | Colour], dict[uuid.UUID, Leaf],
)  # fmt: skip
_BRANCH = taking(Branch)
METHODS = [taking(annotation) for annotation in EVERYTHING]
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


def decode_all(body: bytes) -> None:
    """Every method meets the body: a value, or a ProtocolError. Anything else fails the test."""
    for method in METHODS:
        try:
            method.decode_arguments(body, None, None)
        except ProtocolError:
            continue


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_protocol_error(body: bytes) -> None:
    decode_all(body)


@given(TREES)
def test_any_wellformed_tree_is_a_value_or_a_protocol_error(tree: Any) -> None:
    decode_all(pack([tree]))


@given(st.data())
def test_a_true_message_with_bytes_changed_is_a_value_or_a_protocol_error(data: st.DataObject) -> None:
    body = bytearray(_BRANCH.encode_arguments((Branch([Leaf("some", 1)], {"a": Leaf("b")}),), None)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    decode_all(bytes(body))


def test_a_hostile_message_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in METHODS:  # what the decoders themselves need is there before
        with pytest.raises(ProtocolError):
            method.decode_arguments(pack(["os.system", "x"]), None, None)
    before = set(sys.modules)
    imported: list[str] = []
    true_import = builtins.__import__

    def watch(name: str, *rest: Any, **named: Any) -> Any:
        imported.append(name)
        return true_import(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", watch)
    for text in ("os.system", "antigravity", "evil_module.X", "builtins.exec"):
        for shaped in (text, [text], {text: [text]}, [1, text], [text, [text]]):
            decode_all(pack([shaped]))
    monkeypatch.undo()
    assert set(sys.modules) == before
    assert not {name for name in imported if name.split(".")[0] in ("os", "antigravity", "evil_module")}


@pytest.mark.parametrize(
    "body", [b"", b"\x91", b"\x91\x01\x01", b"\x92\x01\x01", b"\x90", b"\xc1", b"\x91\xc1", b"\xc0"]
)
def test_a_body_that_is_cut_or_too_long_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        taking(int).decode_arguments(body, None, None)


def test_items_are_counted_at_the_edge() -> None:
    most = [0] * (bounds.ITEMS - 2)  # the list of arguments and the list itself are items too
    method = taking(list[int])
    body, _ = method.encode_arguments((most,), None)
    assert len(method.decode_arguments(body, None, None)[0]) == len(most)
    with pytest.raises(UsageError, match="65536"):
        method.encode_arguments(([300] * bounds.ITEMS,), None)
    with pytest.raises(ProtocolError, match="65536"):
        received(list[int], [300] * bounds.ITEMS)


def test_items_of_nested_lists_are_counted_together() -> None:
    with pytest.raises(ProtocolError, match="65536"):
        received(list[list[int]], [[1] * 1000] * 70)


@pytest.mark.parametrize(
    "header",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdc\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ],
)
def test_an_announced_size_costs_no_memory(header: bytes) -> None:
    decode_all(b"\x91" + header)  # prepared: caches of messages and the like
    tracemalloc.start()
    try:
        decode_all(b"\x91" + header)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_mebibyte_of_empty_lists_is_refused_before_it_is_built() -> None:
    body = b"\x91\xdd\x00\x10\x00\x00" + b"\x90" * (1 << 20)
    method = taking(list[list[int]])
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            method.decode_arguments(body, None, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_hundred_thousand_levels_are_refused() -> None:
    for annotation in (list[list[int]], dict[str, list[int]], list[Branch]):
        with pytest.raises(ProtocolError):
            taking(annotation).decode_arguments(b"\x91" * 100_000, None, None)


def test_a_value_inside_itself_is_the_senders_usage_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UsageError):
        taking(list[list[int]]).encode_arguments((endless,), None)


@pytest.mark.parametrize(
    "annotation", [set[int], frozenset[float], dict[int, int], dict[float, int], set[uuid.UUID], set[tuple[int, int]]]
)
def test_keys_whose_hash_the_sender_can_choose_are_few(annotation: Any) -> None:
    many: Any = list(range(bounds.OPEN_KEYS + 1))
    if annotation in (dict[int, int], dict[float, int]):
        many = [many, [0] * len(many)]
    elif annotation == set[uuid.UUID]:
        many = [str(uuid.UUID(int=key)) for key in many]
    elif annotation == set[tuple[int, int]]:
        many = [[key, key] for key in many]
    with pytest.raises(ProtocolError, match="8192"):
        received(annotation, many)


def test_keys_with_a_secret_hash_may_be_many() -> None:
    many = {f"k{number}" for number in range(20_000)}
    method = taking(set[str])
    body, _ = method.encode_arguments((many,), None)
    assert method.decode_arguments(body, None, None)[0] == many


# The scan by itself.


@given(TREES)
def test_the_scan_lets_every_small_message_pass(tree: Any) -> None:
    scan(pack([tree]))


@given(st.binary(max_size=300))
def test_the_scan_of_any_bytes_ends_with_nothing_or_a_fault(body: bytes) -> None:
    try:
        scan(body)
    except Fault:
        return


@pytest.mark.parametrize(("levels", "passes"), [(bounds.NESTING, True), (bounds.NESTING + 1, False)])
def test_the_scan_counts_levels(levels: int, passes: bool) -> None:
    body = b"\x91" * levels + b"\x01"
    if passes:
        scan(body)
    else:
        with pytest.raises(Fault, match="32"):
            scan(body)


def test_the_scan_counts_a_container_closed_as_closed() -> None:
    scan(pack([[[]]] * 1000))


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("64K", 65536), ("1M", 1 << 20), ("2g", 2 << 30), (" 5 B", None), ("10MiB", 10 << 20)]
)
def test_sizes_are_read(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(UsageError):
            parse_size(text)
    else:
        assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.5M", "-1", "1T", "٣", "1 000"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


# Large bytes beside the body.


LARGE = b"x" * bounds.BLOB


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("optional", ["plain", "optional"])
def test_large_bytes_travel_beside_the_body(kind: Any, optional: str) -> None:
    method = taking(int, kind if optional == "plain" else kind | None)
    body, blobs = method.encode_arguments((7, kind(LARGE)), None)
    assert len(body) < 20
    assert [at for at, _ in blobs] == [1]
    number, came = method.decode_arguments(body, None, {at: bytes(data) for at, data in blobs})
    assert number == 7
    assert type(came) is kind
    assert bytes(came) == LARGE


def test_smaller_bytes_stay_in_the_body() -> None:
    body, blobs = giving(bytes).encode_result(LARGE[1:], None)
    assert not blobs
    assert giving(bytes).decode_result(body, None, None) == LARGE[1:]


def test_a_large_result_and_a_large_item_travel_beside_the_body() -> None:
    method = giving(bytes)
    for encode, decode in ((method.encode_result, method.decode_result), (method.encode_item, method.decode_item)):
        body, blobs = encode(LARGE, None)
        assert [at for at, _ in blobs] == [0]
        assert decode(body, None, {0: LARGE}) == LARGE


@pytest.mark.parametrize(
    ("annotation", "wire", "at"),
    [
        (int, 1, 0),
        (str, "", 0),
        (list[bytes], [], 0),
        (bytes, b"", 1),
        (bytes, b"not empty", 0),
        (bytes | None, None, 0),
        (list[int], [], -1),
    ],
)
def test_large_bytes_where_none_belong_are_refused(annotation: Any, wire: Any, at: int) -> None:
    with pytest.raises(ProtocolError):
        taking(annotation).decode_arguments(pack([wire]), None, {at: LARGE})


@dataclasses.dataclass(frozen=True)
class Page:
    """Bytes in each way that a field may have them."""

    number: int
    text: bytes
    draft: bytearray
    view: memoryview
    note: Annotated[bytes, msgspec.Meta(max_length=2 * bounds.BLOB)] | None = None

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("a page without text")


def test_large_bytes_of_a_result_that_is_a_record_travel_beside_the_body() -> None:
    method = giving(Page)
    page = Page(7, LARGE, bytearray(LARGE), memoryview(LARGE), LARGE)
    for encode, decode in ((method.encode_result, method.decode_result), (method.encode_item, method.decode_item)):
        body, blobs = encode(page, None)
        assert len(body) < 30
        assert [at for at, _ in blobs] == [1, 2, 3, 4]
        came = decode(body, None, {at: bytes(data) for at, data in blobs})
        assert came == page
        assert [type(each) for each in (came.text, came.draft, came.view)] == [bytes, bytearray, memoryview]


def test_of_a_record_only_what_is_large_does() -> None:
    method = giving(Page)
    page = Page(7, b"small", bytearray(LARGE), memoryview(b""))
    body, blobs = method.encode_result(page, None)
    assert blobs == [(2, LARGE)]
    assert method.decode_result(body, None, dict(blobs)) == page


def test_bounds_of_a_field_hold_beside_the_body_too() -> None:
    method = giving(Page)
    least = (bytearray(), memoryview(b""))
    assert method.encode_result(Page(7, b"text", *least, LARGE * 2), None)[1]
    with pytest.raises(UsageError, match=r"at most 65536 are declared - at `\$\.note`"):
        method.encode_result(Page(7, b"text", *least, LARGE * 2 + b"x"), None)
    body, _ = method.encode_result(Page(7, b"text", *least, LARGE), None)
    with pytest.raises(ProtocolError, match=r"at most 65536 are declared - at `\$\.note`"):
        method.decode_result(body, None, {4: LARGE * 3})


@pytest.mark.parametrize("at", [0, 1, 5, -1, 4], ids=["a number", "not empty", "beyond", "before", "none"])
def test_large_bytes_in_a_record_where_none_belong_are_refused(at: int) -> None:
    method = giving(Page)
    body = pack([7, b"text", b"", b"", None])
    assert method.decode_result(body, None, {2: LARGE}).draft == LARGE
    with pytest.raises(ProtocolError):
        method.decode_result(body, None, {at: LARGE})


def test_no_more_large_bytes_travel_beside_a_body_than_a_message_may_have() -> None:
    many = dataclasses.make_dataclass("Many", [(f"field{number}", bytes) for number in range(MOST_BLOBS + 1)])
    body, blobs = giving(many).encode_result(many(*[LARGE] * (MOST_BLOBS + 1)), None)
    assert len(blobs) == MOST_BLOBS
    assert giving(many).decode_result(body, None, dict(blobs)) == many(*[LARGE] * (MOST_BLOBS + 1))


@dataclasses.dataclass
class Spoilt(Exception):
    page: bytes


def test_an_exception_has_its_large_bytes_in_the_body() -> None:
    def method(self: object) -> None: ...

    contract = contract_of(interface(method=bunri.raises(Spoilt)(method))).methods[0]
    body = contract.encode_exception(Spoilt(LARGE))
    assert body is not None
    assert contract.decode_exception(body) == Spoilt(LARGE)
