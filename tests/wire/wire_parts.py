"""What these tests share: contracts made from one annotation, and both ends of a message's handles without a kernel."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from bunri.errors import ProtocolError
from bunri.service import Service
from bunri.wire import MethodContract, contract_of
from bunri.wire.registry import HandleKind

_numbers = itertools.count(1)
pack = msgspec.msgpack.encode


def interface(**methods: Callable[..., Any]) -> type[Service]:
    """A service interface with these methods."""
    return type(f"Interface{next(_numbers)}", (Service,), dict(methods))


def taking(annotation: Any, *more: Any, returns: Any = None) -> MethodContract:
    """The contract of a method whose parameters have these annotations."""

    def one(self: Any, a: Any) -> None: ...

    def two(self: Any, a: Any, b: Any) -> None: ...

    function = (one, two)[len(more)]
    function.__annotations__ = {**dict(zip("ab", (annotation, *more), strict=False)), "return": returns}
    return contract_of(interface(method=function)).methods[0]


def giving(annotation: Any) -> MethodContract:
    """The contract of a method with this result."""

    def method(self: Any) -> None: ...

    method.__annotations__ = {"return": annotation}
    return contract_of(interface(method=method)).methods[0]


def across(annotation: Any, value: Any) -> Any:
    """What the receiver gets, as argument and as result, which must agree."""
    one, other = _ends(annotation)
    body, blobs = one.encode_arguments((value,), None)
    (argument,) = one.decode_arguments(body, None, {at: bytes(data) for at, data in blobs})
    body, blobs = other.encode_result(value, None)
    result = other.decode_result(body, None, {at: bytes(data) for at, data in blobs})
    assert type(argument) is type(result)
    return result


@functools.cache
def _ends(annotation: Any) -> tuple[MethodContract, MethodContract]:
    return taking(annotation), giving(annotation)


def received(annotation: Any, wire: Any) -> Any:
    """What comes of an argument that a hostile sender wrote by hand."""
    return taking(annotation).decode_arguments(pack([wire]), None, None)[0]


class Sent:
    """A sink: keeps the handles of one message."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self.handles: list[Any] = []
        self.services: list[tuple[Any, type]] = []

    def close(self) -> None:
        """The message does not go out. Nothing was duplicated here."""
        self.descriptors.clear()

    def add_descriptor(self, handle: Any, kind: HandleKind) -> Any:
        self.handles.append(handle)
        self.descriptors.append(handle.fileno())
        index = len(self.handles) - 1
        return (index, handle.length, 0) if kind is HandleKind.MAPPED else index

    def add_service(self, service: Any, interface: type) -> int:
        self.services.append((service, interface))
        return len(self.services)


class Came:
    """A source: gives the handles of one message, each once."""

    def __init__(self, handles: Iterable[Any] = (), services: Iterable[Any] = ()) -> None:
        self._handles: dict[int, Any] = dict(enumerate(handles))
        self._services = list(services)
        self.closed = False
        self.asked: list[tuple[int, HandleKind]] = []

    def descriptor(self, told: Any, kind: HandleKind) -> Any:
        index = told[0] if kind is HandleKind.MAPPED else told
        self.asked.append((index, kind))
        if index not in self._handles:
            raise ProtocolError(f"handle {index} did not come, or stands twice")
        return self._handles.pop(index)

    def service(self, number: int, interface: type) -> Any:
        if number > len(self._services):
            raise ProtocolError(f"no object {number}")
        return self._services[number - 1]

    def finish(self) -> None:
        if self._handles:
            self.closed = True
            raise ProtocolError("descriptors that nothing names")

    def close_unclaimed(self) -> None:
        self.closed = True
