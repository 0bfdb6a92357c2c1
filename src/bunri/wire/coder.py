"""Runs in: every process; pure. One direction of a method: a value of a shape as bytes, and back.

A sender reads its own message with the receiver's decoder before it goes out: what would end the sender as a protocol error is its
own `UsageError` first, with the path of the value. What came and is faulty is a `ProtocolError`.
"""

# Annotations are values here, and of values made of them no checker knows the type:
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import builtins
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

import msgspec

from bunri.errors import ProtocolError, UsageError
from bunri.text import printable
from bunri.wire import bounds
from bunri.wire.bounds import Fault
from bunri.wire.frames import LARGEST_BODY, LARGEST_UNCUT, MOST_BLOBS
from bunri.wire.handles import Sink, Source
from bunri.wire.plain import INT64, TUPLE, refuse_view
from bunri.wire.registry import HandleKind
from bunri.wire.shape import ENCODE, Blob, Shape, fault_of, through, write
from bunri.wire.shapes import shape_of

Blobs = Sequence[tuple[int, Any]]


class Places(Enum):
    """What has the places at which bytes stand."""

    NONE = "the value is one"
    ARGUMENTS = "a tuple of arguments"
    FIELDS = "a record, as it is on the wire"


class Coder:
    """A value of a shape. `blobs`: the places at which large bytes may stand beside the body, and what they are places of."""

    def __init__(self, shape: Shape, where: str, blobs: Mapping[int, Blob], places: Places) -> None:
        self._shape = shape
        self._to, self._back = shape.to, shape.back
        self._decode = msgspec.msgpack.Decoder(shape.wire).decode
        self._where = where
        self._blobs = blobs
        self._bounded = {place: blob for place, blob in blobs.items() if blob.least or blob.most is not None}
        self._spread = places is not Places.NONE
        self._in_wire = places is Places.FIELDS
        self._is_bare = shape.to is None and shape.back is None and not blobs

    @property
    def has_blobs(self) -> bool:
        """Whether large bytes may travel beside the body."""
        return bool(self._blobs)

    def encode(self, value: Any, sink: Sink | None) -> tuple[bytes, Blobs]:
        """The body, and what travels beside it. UsageError, with what was duplicated closed, for a value that may not cross."""
        if not self._is_bare:
            return self._encode_whole(value, sink)
        # Numbers and their like need no converter. Whatever is wrong with one is found by the whole way, and named there.
        try:
            body = ENCODE(value)
            if len(body) <= bounds.ITEMS and self._decode(body) == value:
                return body, ()
        except Exception:
            return self._encode_whole(value, sink)
        return self._encode_whole(value, sink)

    def _encode_whole(self, value: Any, sink: Sink | None) -> tuple[bytes, Blobs]:
        blobs: Blobs = ()
        given = None if sink is None else _Given(sink)
        try:
            if self._blobs and not self._in_wire:
                value, blobs = self._take_blobs(value)
            wire = value if self._to is None else self._to(value, given)
            if self._in_wire:
                wire, blobs = self._take_blobs(wire)
            body, wire = write(self._shape, self._decode, wire)
            if len(body) > bounds.ITEMS:
                bounds.scan(body)
            if self._back is not None:
                if self._in_wire:
                    wire = self._put_blobs(wire, dict(blobs))
                self._back(wire, given)
            _refuse_too_large(body, blobs)
        except Fault as fault:
            _take_back(sink)
            raise UsageError(f"{self._where}: {fault} - at `${fault.path}`") from None
        except (msgspec.MsgspecError, UnicodeError, OverflowError, TypeError, ValueError, RecursionError) as fault:
            _take_back(sink)
            raise UsageError(f"{self._where}: {fault}") from None
        except BaseException:
            _take_back(sink)
            raise
        return body, blobs

    def decode(self, body: bytes, source: Source | None, blobs: dict[int, bytes] | None) -> Any:
        """The value. ProtocolError, with what came beside it closed, for anything that the shape does not allow."""
        try:
            if self._is_bare and source is None and not blobs and len(body) <= bounds.ITEMS:
                return self._decode(body)
            if len(body) > bounds.ITEMS:
                bounds.scan(body)
            wire = self._decode(body)
            if self._in_wire:
                wire = self._put_blobs(wire, blobs or {})
            value = wire if self._back is None else self._back(wire, source)
            if self._blobs and not self._in_wire:
                value = self._put_blobs(value, blobs or {})
            elif blobs and not self._blobs:
                raise Fault("large bytes beside a message that takes none")
            if source is not None:
                source.finish()
            return value
        except Fault as fault:
            self._refuse(source, f"{fault} - at `${fault.path}`")
        except msgspec.ValidationError as error:
            named = fault_of(error, self._shape)
            self._refuse(source, f"{named} - at `${named.path}`")
        except (
            msgspec.MsgspecError,
            UnicodeError,
            OverflowError,
            TypeError,
            ValueError,
            OSError,
            RecursionError,
        ) as error:
            self._refuse(source, str(error))
        except ProtocolError:
            if source is not None:
                source.close_unclaimed()
            raise

    def _refuse(self, source: Source | None, text: str) -> typing.NoReturn:
        if source is not None:
            source.close_unclaimed()
        raise ProtocolError(f"{self._where}: {printable(text, limit=500)}") from None

    def _take_blobs(self, value: Any) -> tuple[Any, Blobs]:
        """Large bytes out of the value, an empty one in their place; no more of them than one message may have."""
        taken: list[tuple[int, Any]] = []
        for place, blob in self._blobs.items():
            data = value[place] if self._spread else value
            if not isinstance(data, bytes | bytearray | memoryview):
                continue
            if isinstance(data, memoryview):
                refuse_view(data)
            self._check_length(place, blob, len(data))
            if len(data) >= bounds.BLOB and len(taken) < MOST_BLOBS:
                whole = data if not isinstance(data, memoryview) or data.c_contiguous else data.tobytes()
                taken.append((place, whole))
                value = self._with(value, place, b"" if self._in_wire else blob.made_of(b""))
        return value, taken

    def _put_blobs(self, value: Any, came: dict[int, bytes]) -> Any:
        for place, data in came.items():
            blob = self._blobs.get(place)
            there = (value[place] if self._spread else value) if blob is not None else None
            if blob is None or there is None or len(there):
                raise Fault(f"large bytes for place {place}, which takes none")
            value = self._with(value, place, data if self._in_wire or blob.made_of is bytes else blob.made_of(data))
        for place, blob in self._bounded.items():
            there = value[place] if self._spread else value
            if there is not None:
                self._check_length(place, blob, len(there))
        return value

    def _with(self, value: Any, place: int, data: Any) -> Any:
        return (*value[:place], data, *value[place + 1 :]) if self._spread else data

    def _check_length(self, place: int, blob: Blob, length: int) -> None:
        wrong = blob.refuse(length)
        if wrong is not None:
            raise Fault(wrong, self._shape.parts[place][0] if self._spread else "")


def _refuse_too_large(body: bytes, blobs: Blobs) -> None:
    """What is put together from pieces is bounded at the other end, where more of it would be an attack."""
    if not blobs and len(body) <= LARGEST_UNCUT:
        return
    size = sum(len(data) for _, data in blobs) + (len(body) if len(body) > LARGEST_UNCUT else 0)
    if size > LARGEST_BODY:
        raise Fault(
            f"{size} bytes are too many for one message, which has at most {LARGEST_BODY}. Hand a File over, or give it in pieces, as a stream"
        )


def arguments_coder(shapes: list[Shape], where: str) -> tuple[Coder, str]:
    """Of the canonical tuple of arguments, and its spelling."""
    spelling = ", ".join(s.spelling for s in shapes)
    blobs = {i: s.blob for i, s in enumerate(shapes) if s.blob is not None}
    shapes = [_loose(s) for s in shapes]
    to_all, back_all = [s.to for s in shapes], [s.back for s in shapes]
    step = "[{}]".format

    def to(args: Any, sink: Any) -> Any:
        return tuple(through(to_all, args, sink, step))

    def back(args: Any, source: Any) -> Any:
        return tuple(through(back_all, args, source, step))

    wire: Any = TUPLE[tuple(s.wire for s in shapes)] if shapes else tuple[()]
    parts = tuple((f"[{i}]", s) for i, s in enumerate(shapes))
    shape = Shape(spelling, wire, to if any(to_all) else None, back if any(back_all) else None, parts=parts)
    return Coder(shape, where, blobs, Places.ARGUMENTS), spelling


def result_coder(shape: Shape, where: str) -> Coder:
    """Of one value."""
    if shape.blobs:
        wire: Any = TUPLE[tuple(_loose(part).wire for _, part in shape.parts)]
        return Coder(shape._replace(wire=wire), where, shape.blobs, Places.FIELDS)
    return Coder(_loose(shape), where, {} if shape.blob is None else {0: shape.blob}, Places.NONE)


def _loose(shape: Shape) -> Shape:
    """Where bytes may travel beside the body, their length is not looked at in it."""
    return shape if shape.blob is None else shape._replace(wire=shape.blob.wire)


class _Given:
    """A sink that keeps what it is given, and gives it back: so the receiver's checks can be made on the sender's own message."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._handles: list[Any] = []
        self._services: dict[int, Any] = {}
        self._count = 0

    def add_descriptor(self, handle: Any, kind: HandleKind) -> Any:
        self._count_one()
        told = self._sink.add_descriptor(handle, kind)
        self._handles.append(handle)
        return told

    def add_service(self, service: Any, interface: type) -> int:
        self._count_one()
        number = self._sink.add_service(service, interface)
        self._services[number] = service
        return number

    def descriptor(self, told: Any, kind: HandleKind) -> Any:
        return self._handles[told[0] if kind is HandleKind.MAPPED else told]

    def service(self, number: int, interface: type) -> Any:
        return self._services[number]

    def _count_one(self) -> None:
        self._count += 1
        if self._count > bounds.HANDLES:
            raise Fault(f"more than {bounds.HANDLES} handles in one message")


def _take_back(sink: Sink | None) -> None:
    """The message does not go out: what was duplicated for it is closed."""
    if sink is not None:
        sink.close()


# Exceptions that a method declares.

BUILTIN_EXCEPTIONS: Final = frozenset(
    value for value in vars(builtins).values() if isinstance(value, type) and issubclass(value, Exception)
)
_LONGEST_TEXT: Final = 4096  # characters


class Raised:
    """The exceptions that `bunri.raises` declares, by number."""

    def __init__(self, types: tuple[type[Exception], ...], where: str) -> None:
        self._types = types
        shapes = [_exception_shape(cls, where) for cls in types]
        # Whole in the body: an exception is no place for large bytes.
        self._coders = [Coder(shape, f"{where} raises", {}, Places.NONE) for shape in shapes]
        self.spelling = str([shape.spelling for shape in shapes])

    def encode(self, fault: BaseException) -> bytes | None:
        """The message for a declared exception; None for any other."""
        number = self._number_of(type(fault))
        if number is None:
            return None
        try:
            body, _ = self._coders[number].encode(fault, None)
        except UsageError:
            return None  # its fields are not what it declares: then it is undeclared
        return bytes([number]) + body

    def _number_of(self, cls: type) -> int | None:
        if cls in self._types:
            return self._types.index(cls)
        # Which OSError it is, the system chooses: the nearest one that is declared covers it. No other class is cut down to its base.
        if issubclass(cls, OSError) and cls in BUILTIN_EXCEPTIONS:
            return next((self._types.index(near) for near in cls.__mro__ if near in self._types), None)
        return None

    def decode(self, body: bytes) -> BaseException:
        """The exception that came. ProtocolError for a number that is not declared."""
        if not body or body[0] >= len(self._coders):
            raise ProtocolError("an exception that the method does not declare")
        made: BaseException = self._coders[body[0]].decode(body[1:], None, None)
        return made


def _exception_shape(cls: type[Exception], where: str) -> Shape:
    if dataclasses.is_dataclass(cls):
        return shape_of(cls, f"{where} raises {cls.__qualname__}")
    text = typing.Annotated[str, msgspec.Meta(max_length=_LONGEST_TEXT)]
    if issubclass(cls, OSError):
        # Its number chooses the class again: OSError(2, ...) is a FileNotFoundError. The file's name stays where it is.
        wire: Any = TUPLE[typing.Optional[INT64], text]  # noqa: UP045
        return Shape(cls.__qualname__, wire, _os_error_to, lambda told, source: _os_error(cls, *told))
    return Shape(
        cls.__qualname__, text, lambda fault, sink: _plain_text(_said(fault)), lambda text, source: cls(printable(text))
    )


def _said(fault: BaseException) -> str:
    """What it was made with: the text of a KeyError is that in quotes, and would be quoted again."""
    match fault.args:
        case (str(text),):
            return text
        case _:
            return str(fault)


def _plain_text(text: str) -> str:
    return text[:_LONGEST_TEXT].encode("utf-8", "replace").decode()


def _os_error_to(fault: Any, sink: Any) -> Any:
    number = fault.errno if isinstance(fault.errno, int) else None
    return (number, _plain_text(str(fault) if number is None else str(fault.strerror)))


def _os_error(cls: type[Exception], number: int | None, text: str) -> Exception:
    return cls(printable(text)) if number is None else cls(number, printable(text))
