"""Runs in: every process; pure. What a `Shape` is: the two ways of a value, onto the wire and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bunri.wire.bounds import Fault
from bunri.wire.registry import HandleKind

Convert = Callable[[Any, Any], Any] | None


class Shape(NamedTuple):
    """How values of one annotation cross. `to(value, sink)` and `back(value, source)`; `wire` is what msgspec decodes."""

    spelling: str
    wire: Any
    to: Convert = None
    back: Convert = None
    python: type | None = None  # the class of a value, where that tells the members of a union apart
    kinds: frozenset[HandleKind] = frozenset()
    services: tuple[type, ...] = ()  # the service interfaces that can stand in it
    blob: type | None = None  # bytes, bytearray or memoryview: large ones travel beside the body


def carried(inner: list[Shape]) -> tuple[frozenset[HandleKind], tuple[type, ...]]:
    """The kinds of handle, and the services, that can stand in any of them."""
    kinds = frozenset[HandleKind]().union(*(shape.kinds for shape in inner))
    return kinds, tuple(dict.fromkeys(cls for shape in inner for cls in shape.services))


def at(place: object, convert: Callable[[Any, Any], Any], value: Any, context: Any) -> Any:
    """Convert, and name the place in what goes wrong."""
    try:
        return convert(value, context)
    except Fault as fault:
        step = f"[{place}]" if isinstance(place, int) else f".{place}"
        raise Fault(str(fault), step + fault.path) from None
