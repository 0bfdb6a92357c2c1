"""Runs in: every process; pure. What a coder asks of the channel for the handles in a message."""

from __future__ import annotations

from typing import Any, Protocol

from bunri.wire.registry import HandleKind


class Sink(Protocol):
    """Where the handles of one message that is being encoded go."""

    descriptors: list[int]
    """Duplicates, in the order of their indexes, to be sent beside the message and closed then."""

    def close(self) -> None:
        """The message will not go out: close the duplicates."""
        ...

    def move(self) -> None:
        """It was a result: close what was duplicated for it."""
        ...

    def add_descriptor(self, handle: Any, kind: HandleKind) -> Any:
        """What stands for the handle in the message: its index (for a Mapped: index, length, access)."""
        ...

    def add_service(self, service: Any, interface: type) -> int:
        """The number of the object on this channel."""
        ...


class Source(Protocol):
    """Where the handles of one message that is being decoded come from."""

    def descriptor(self, told: Any, kind: HandleKind) -> Any:
        """The handle; Fault or ProtocolError when it is not of the kind."""
        ...

    def service(self, number: int, interface: type) -> Any:
        """The stub, or the original, of an object's number."""
        ...

    def finish(self) -> None:
        """Everything that came was claimed, once; else ProtocolError."""
        ...

    def close_unclaimed(self) -> None:
        """The message is refused: close what came with it."""
        ...
