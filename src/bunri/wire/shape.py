"""Runs in: every process; pure. What a `Shape` is: the two ways of a value, onto the wire and back, and what is said when one fails.

msgspec is lenient where it writes: a date goes out as text, a set as a list, and comes back as that. So a sender reads its own bytes again and
compares, in C; only where they differ is it worked out where.
"""

# Of values that stand for any there are, no checker knows the type:
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bunri.wire.bounds import Fault
from bunri.wire.registry import HandleKind

Convert = Callable[[Any, Any], Any] | None
ENCODE = msgspec.msgpack.Encoder().encode


class Blob(NamedTuple):
    """Bytes that travel beside the body when they are large. Their length is looked at there, so the wire type here has no bounds."""

    made_of: type  # bytes, bytearray or memoryview
    wire: Any
    least: int = 0
    most: int | None = None

    def refuse(self, length: int) -> str | None:
        """What is wrong with so many bytes."""
        if length < self.least:
            return f"{length} bytes, where at least {self.least} are declared"
        if self.most is not None and length > self.most:
            return f"{length} bytes, where at most {self.most} are declared"
        return None


class Shape(NamedTuple):
    """How values of one annotation cross. `to(value, sink)` and `back(value, source)`; `wire` is what msgspec decodes."""

    spelling: str
    wire: Any
    to: Convert = None
    back: Convert = None
    python: type | None = None  # the class of a value, where that tells the members of a union apart
    kinds: frozenset[HandleKind] = frozenset()
    services: tuple[type, ...] = ()  # the service interfaces that can stand in it
    blob: Blob | None = None
    blobs: Mapping[int, Blob] = {}  # of a record: its fields that are bytes, by place
    parts: tuple[tuple[str, Any], ...] = ()  # what stands at each place on the wire: how a path calls it, and its shape
    each: Any = None  # the shape of every item
    bound: Callable[[dict[str, Any]], Shape] | None = (
        None  # lays msgspec's constraints on it, where the wire type cannot
    )


def carried(inner: list[Shape]) -> tuple[frozenset[HandleKind], tuple[type, ...]]:
    """The kinds of handle, and the services, that can stand in any of them."""
    kinds = frozenset[HandleKind]().union(*(shape.kinds for shape in inner))
    return kinds, tuple(dict.fromkeys(cls for shape in inner for cls in shape.services))


def each(convert: Callable[[Any, Any], Any], items: Any, context: Any) -> list[Any]:
    """Convert every item, and name the place in what goes wrong."""
    made: list[Any] = []
    try:
        for item in items:
            made.append(convert(item, context))
    except Fault as fault:
        raise Fault(str(fault), f"[{len(made)}]{fault.path}") from None
    return made


def through(converts: Sequence[Convert], items: Any, context: Any, step: Callable[[int], str]) -> list[Any]:
    """Convert each by its own, and name the place in what goes wrong: `step` calls it `.field`, or `[3]`."""
    made: list[Any] = []
    try:
        for convert, item in zip(converts, items, strict=True):
            made.append(item if convert is None else convert(item, context))
    except Fault as fault:
        raise Fault(str(fault), step(len(made)) + fault.path) from None
    return made


def write(shape: Shape, decode: Callable[[bytes], Any], converted: Any) -> tuple[bytes, Any]:
    """The bytes of what `to` gave, and what the receiver's decoder makes of them. Fault where that is another value."""
    body = ENCODE(converted)
    try:
        came = decode(body)
    except msgspec.ValidationError as error:
        raise fault_of(error, shape) from None
    if came != converted:
        path = _difference(converted, came)
        if path is not None:
            there, here = _reached(converted, path), _reached(came, path)
            raise Fault(
                f"expected {type(here).__name__}, got {type(there).__name__}"
                if type(here) is not type(there)
                else f"{there!r:.60} would arrive as {here!r:.60}",
                _named(shape, path),
            )
    return body, came


def fault_of(error: Exception, shape: Shape) -> Fault:
    """What msgspec says, with the place as the program calls it."""
    text, _, path = str(error).partition(" - at `$")
    return Fault(text, _named(shape, [int(i) if i.isdigit() else -1 for i in _INDEX.findall(path)]))


_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")


def _named(shape: Any, path: list[int]) -> str:
    """A path of places on the wire, in the names of fields and keys."""
    said = ""
    for place in path:
        if shape is not None and 0 <= place < len(shape.parts):
            step, shape = shape.parts[place]
            said += step
        else:
            said += "[...]" if place < 0 else f"[{place}]"
            shape = None if shape is None else shape.each
    return said


def _difference(sent: Any, came: Any) -> list[int] | None:
    """Where two values differ; None where they only seem to: not a number is never equal to itself."""
    if isinstance(came, list | tuple):
        if not isinstance(sent, type(came)) or len(sent) != len(came):
            return []
        for place, (one, other) in enumerate(zip(sent, came, strict=True)):
            if one != other:
                path = _difference(one, other)
                if path is not None:
                    return [place, *path]
        return None
    return None if sent == came or (sent != sent and came != came) else []


def _reached(value: Any, path: list[int]) -> Any:
    for place in path:
        value = value[place]
    return value
