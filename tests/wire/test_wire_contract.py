"""What a class exports: numbers that both sides derive from it alone, and mistakes named where they are written."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from wire_parts import Came, Sent, interface, pack, taking

import bunri
from bunri.errors import ProtocolError, UsageError
from bunri.wire import Kind, contract_of
from bunri.wire.registry import HandleKind

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]


class Files(bunri.Service):
    async def names(self) -> list[str]: ...


class Login(bunri.Service):
    async def password(self, user: str, secret: bunri.Secret) -> Files | None: ...
    def banner(self) -> str: ...


class LoginHere(Login):
    async def password(self, user: str, secret: bunri.Secret) -> Files | None:
        return None

    def banner(self) -> str:
        return "hello"

    def all_passwords(self, anything) -> list[str]:  # type: ignore[no-untyped-def]  # not of the interface, so not looked at
        return []


class Work(bunri.Compartment):
    def __init__(self, control: socket.socket, login: Login, name: str = "x") -> None: ...
    def zeta(self, a: int, b: str = "b", *, c: float = 1.5) -> bytes: ...
    async def alpha(self) -> None: ...
    def rows(self) -> Iterator[int]: ...
    async def events(self) -> AsyncIterator[str]:
        yield "x"

    def more(self) -> AsyncIterator[int]: ...
    def _private(self, anything): ...  # type: ignore[no-untyped-def]  # not exported, so not looked at
    @property
    def _hidden(self) -> int:
        return 1


class Narrow(Work):
    def added(self) -> int: ...


def method(cls: type, name: str) -> Any:
    return next(m for m in contract_of(cls).methods if m.name == name)


def test_methods_are_numbered_in_the_order_of_their_names() -> None:
    contract = contract_of(Work)
    assert [(m.number, m.name) for m in contract.methods] == list(
        enumerate(["alpha", "events", "more", "rows", "zeta"])
    )


def test_a_contract_is_made_once() -> None:
    assert contract_of(Work) is contract_of(Work)


def test_a_subclass_exports_what_its_bases_export() -> None:
    assert [m.name for m in contract_of(Narrow).methods] == ["added", "alpha", "events", "more", "rows", "zeta"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("zeta", Kind.PLAIN),
        ("alpha", Kind.ASYNC),
        ("rows", Kind.STREAM),
        ("events", Kind.ASYNC_STREAM),
        ("more", Kind.ASYNC_STREAM),
    ],
)
def test_the_kind_follows_from_the_definition(name: str, kind: Kind) -> None:
    assert method(Work, name).kind is kind
    assert kind.is_stream is (name in ("rows", "events", "more"))


def test_both_spellings_of_an_async_stream_in_an_interface_are_one() -> None:
    class Spelled(bunri.Service):
        def without(self) -> AsyncIterator[int]: ...
        async def with_async(self) -> AsyncIterator[int]: ...

    assert {m.kind for m in contract_of(Spelled).methods} == {Kind.ASYNC_STREAM}


def test_nothing_of_the_framework_is_exported() -> None:
    names = {m.name for m in contract_of(Work).methods}
    assert not names & {"start", "start_under", "pool", "close", "process", "warm_up", "policy", "preload", "reuse"}


def test_an_interface_exports_what_it_declares_and_not_what_an_implementation_adds() -> None:
    assert [m.name for m in contract_of(Login).methods] == ["banner", "password"]


def test_the_services_that_can_be_reached_are_known() -> None:
    assert {c.cls for c in contract_of(Work).service_contracts} == {Login, Files}


def test_the_kinds_of_handle_are_known_per_direction() -> None:
    init = contract_of(Work).init
    assert init.handle_kinds_down == {HandleKind.SOCKET, HandleKind.SERVICE}
    password = method(Login, "password")
    assert password.handle_kinds_down == {HandleKind.SECRET}
    assert password.handle_kinds_up == {HandleKind.SERVICE}
    assert not password.sends_handles
    assert password.returns_handles
    assert not method(Work, "zeta").sends_handles


def test_a_datagram_socket_is_another_kind_and_declared() -> None:
    assert taking(Annotated[socket.socket, bunri.Datagram]).handle_kinds_down == {HandleKind.DATAGRAM}


# Arguments.


@pytest.mark.parametrize(
    ("args", "kwargs", "bound"),
    [
        ((1,), {}, (1, "b", 1.5)),
        ((1, "c"), {"c": 2.0}, (1, "c", 2.0)),
        ((), {"b": "d", "a": 3}, (3, "d", 1.5)),
    ],
)
def test_arguments_are_put_in_order_with_defaults(
    args: tuple[Any, ...], kwargs: dict[str, Any], bound: tuple[Any, ...]
) -> None:
    zeta = method(Work, "zeta")
    assert zeta.bind(args, kwargs) == bound
    assert zeta.call(lambda a, b="", *, c: (a, b, c), bound) == bound


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, "b", 2.0), {}), ((1,), {"a": 2}), ((1,), {"d": 4})])
def test_arguments_that_do_not_fit_are_a_usage_error(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"Work\.zeta"):
        method(Work, "zeta").bind(args, kwargs)


def test_a_message_with_another_number_of_arguments_is_refused() -> None:
    for wire in ([], [1], [1, "b"], [1, "b", 1.5, 2]):
        with pytest.raises(ProtocolError):
            method(Work, "zeta").decode_arguments(pack(wire), None, None)


# Mistakes at the definition.


def test_a_missing_annotation_is_named() -> None:
    with pytest.raises(UsageError, match=r"Bad\.f\(x\) has no annotation"):

        class Bad(bunri.Compartment):
            def f(self, x) -> None: ...  # type: ignore[no-untyped-def]  # on purpose


def test_a_missing_result_is_named() -> None:
    with pytest.raises(UsageError, match=r"Bad\.f does not say what it returns"):

        class Bad(bunri.Service):
            def f(self, x: int): ...  # type: ignore[no-untyped-def]  # on purpose


def test_a_constructor_is_looked_at_too() -> None:
    with pytest.raises(UsageError, match=r"Bad\.__init__\(x\)"):

        class Bad(bunri.Compartment):
            def __init__(self, x) -> None: ...  # type: ignore[no-untyped-def]  # on purpose


@pytest.mark.parametrize("wrap", [staticmethod, classmethod, property])
def test_what_is_no_method_is_refused_with_the_way_out(wrap: Any) -> None:
    def f(self: Any) -> int:
        return 1

    with pytest.raises(UsageError, match=rf"is a {wrap.__name__}.*_f"):
        interface(f=wrap(f))


def test_any_number_of_arguments_cannot_be_checked() -> None:
    def many(self: Any, *values: int) -> None: ...
    def named(self: Any, **values: int) -> None: ...

    for function in (many, named):
        with pytest.raises(UsageError, match="no fixed number"):
            interface(f=function)


def test_a_name_that_is_defined_later_is_no_mistake_yet() -> None:
    class Early(bunri.Service):
        def f(self) -> Missing: ...

    with pytest.raises(UsageError, match=r"Early\.f.*Missing"):
        contract_of(Early)


def test_a_mapping_is_for_constructors_only() -> None:
    with pytest.raises(UsageError, match="constructor"):
        taking(bunri.Mapped)
    with pytest.raises(UsageError, match="returned"):
        taking(int, returns=bunri.Mapped)

    class Ring(bunri.Compartment):
        def __init__(self, ring: bunri.Mapped) -> None: ...

    assert contract_of(Ring).init.handle_kinds_down == {HandleKind.MAPPED}


def test_a_compartment_does_not_cross() -> None:
    with pytest.raises(UsageError, match="Service"):
        taking(Work)


def test_a_class_of_neither_family_has_no_contract() -> None:
    with pytest.raises(UsageError):
        contract_of(int)


# Fingerprints.


def variant(**methods: Any) -> int:
    return contract_of(interface(**methods)).fingerprint


def test_a_fingerprint_is_of_names_kinds_and_types() -> None:
    def plain(self: Any, a: int) -> str: ...
    def other_type(self: Any, a: str) -> str: ...
    def other_result(self: Any, a: int) -> bytes: ...
    async def other_kind(self: Any, a: int) -> str: ...
    def more(self: Any, a: int, b: int) -> str: ...

    first = variant(f=plain)
    assert first == variant(f=plain)
    others = [variant(f=g) for g in (other_type, other_result, other_kind, more)] + [
        variant(g=plain),
        variant(f=plain, g=plain),
    ]
    assert len({first, *others}) == len(others) + 1


def test_a_fingerprint_covers_what_lies_inside_of_types() -> None:
    prints = set()
    for fields in ([("x", int)], [("x", str)], [("y", int)], [("x", int), ("y", int)]):
        record = dataclasses.make_dataclass("Record", fields)
        prints.add(taking_fingerprint(record))
    assert len(prints) == 4


def taking_fingerprint(annotation: Any) -> int:
    def f(self: Any, a: Any) -> None: ...

    f.__annotations__ = {"a": annotation, "return": None}
    return contract_of(interface(f=f)).fingerprint


def test_a_fingerprint_covers_the_services_that_can_be_reached() -> None:
    prints = set()
    for result in (int, str):

        def g(self: Any) -> None: ...

        g.__annotations__ = {"return": result}
        prints.add(taking_fingerprint(type("Reached", (bunri.Service,), {"g": g})))
    assert len(prints) == 2


SCRIPT = """
import dataclasses, enum, uuid
from bunri.service import Service, limit, raises
from bunri.wire import contract_of
class Colour(enum.Enum):
    RED = 1
    BLUE = 2
@dataclasses.dataclass
class P:
    x: int
    c: Colour | None
class S(Service):
    @raises(ValueError, KeyError)
    def f(self, a: dict[str, P], b: set[str] | None) -> frozenset[int]: ...
    def g(self, a: uuid.UUID) -> P | int: ...
print(contract_of(S).fingerprint)
"""


def test_a_fingerprint_is_the_same_in_another_interpreter() -> None:
    """Whatever its hash seed: nothing of it may come from the order of a set or from an address."""
    prints = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1
    assert 0 <= int(prints.pop()) < 1 << 32


# Exceptions.


@dataclasses.dataclass
class NotFound(Exception):
    name: str
    tries: int = 0


class Raising(bunri.Service):
    @bunri.raises(NotFound, ValueError)
    def f(self) -> None: ...


def test_a_declared_exception_crosses_with_its_fields() -> None:
    f = method(Raising, "f")
    body = f.encode_exception(NotFound("a", 3))
    came = f.decode_exception(body)
    assert type(came) is NotFound
    assert (came.name, came.tries) == ("a", 3)


def test_a_declared_builtin_crosses_as_its_text() -> None:
    f = method(Raising, "f")
    came = f.decode_exception(f.encode_exception(ValueError("why", 3)))
    assert type(came) is ValueError
    assert came.args == ("('why', 3)",)


def test_an_undeclared_exception_does_not_cross() -> None:
    assert method(Raising, "f").encode_exception(KeyError("x")) is None
    assert method(Work, "alpha").encode_exception(ValueError("x")) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"\x02\xa1x", b"\xff", b"\x00", b"\x00" + pack([1, 2]), b"\x00" + pack(["a"]), b"\x01" + pack(1), b"\x01"],
)
def test_an_exception_that_is_not_declared_so_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        method(Raising, "f").decode_exception(body)


def test_exceptions_whose_fields_nobody_declared_are_refused() -> None:
    class Loose(Exception):
        pass

    for wrong in (Loose, int, BaseException, "ValueError"):
        with pytest.raises(UsageError):
            bunri.raises(wrong)  # type: ignore[arg-type]  # on purpose


# Limits.


def test_limits_are_read() -> None:
    @bunri.limit(calls=3, concurrent=2, size="64K")
    def f(self: Any) -> None: ...

    limits = contract_of(interface(f=f)).methods[0].limits
    assert limits is not None
    assert (limits.calls, limits.concurrent, limits.size) == (3, 2, 65536)


@pytest.mark.parametrize("wrong", [{"calls": 0}, {"calls": True}, {"concurrent": -1}, {"calls": "3"}, {"size": "much"}])
def test_limits_that_say_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        bunri.limit(**wrong)


# Handles, with the channel's part played here.


def test_services_and_descriptors_cross_as_numbers() -> None:
    left, right = socket.socketpair()
    with left, right:
        login = LoginHere()
        init, sent = contract_of(Work).init, Sent()
        body, _ = init.encode_arguments((left, login, "n"), sent)
        assert sent.handles == [left]
        assert sent.services == [(login, Login)]
        source = Came([right], ["the stub"])
        assert init.decode_arguments(body, source, None) == (right, "the stub", "n")
        assert source.asked == [(0, HandleKind.SOCKET)]


def test_an_object_of_another_interface_is_not_sent() -> None:
    class FilesHere(Files):
        async def names(self) -> list[str]:
            return []

    with pytest.raises(UsageError, match="expected a Login"):
        taking(Login).encode_arguments((FilesHere(),), Sent())


def test_a_descriptor_named_twice_or_not_at_all_is_refused() -> None:
    two = taking(bunri.File, bunri.File)
    with pytest.raises(ProtocolError):
        two.decode_arguments(pack([0, 0]), Came(["a", "b"]), None)
    source = Came(["a", "b"])
    with pytest.raises(ProtocolError):
        taking(bunri.File).decode_arguments(pack([0]), source, None)
    assert source.closed


@pytest.mark.parametrize("wire", [[16], [-1], ["x"], [None], [[0]]])
def test_a_descriptor_number_out_of_range_is_refused(wire: list[Any]) -> None:
    source = Came(["a"])
    with pytest.raises(ProtocolError):
        taking(bunri.File).decode_arguments(pack(wire), source, None)
    assert source.closed


def test_a_handle_where_no_channel_can_carry_one_is_refused() -> None:
    with pytest.raises(ProtocolError):
        taking(bunri.File | None).decode_arguments(pack([0]), None, None)


def test_a_secret_crosses() -> None:
    password = method(Login, "password")
    body, _ = password.encode_arguments(("u", bunri.Secret(b"geheim")), None)
    user, secret = password.decode_arguments(body, None, None)
    assert (user, bytes(secret.reveal())) == ("u", b"geheim")
    assert type(secret) is bunri.Secret
