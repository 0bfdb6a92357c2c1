"""Runs in: every process; pure. The numbers of objects on one channel (THREATS 29).

Numbers belong to the channel, are never used twice, and end with it. The same object under the same interface has one number, and counts how
often it was sent: the holder gives all of them back at once, and a release that crosses another sending on the way is no misuse.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from bunri.errors import ProtocolError, UsageError
from bunri.wire.contract import Contract

MOST_OBJECTS = 256  # alive at one time on one channel


class _Entry(NamedTuple):
    obj: Any
    contract: Contract
    sent: int


class ObjectTable:
    """Object <-> number."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._entries: dict[int, _Entry] = {}
        self._known: dict[
            tuple[int, type], int
        ] = {}  # (id of the object, interface) -> number; the entry keeps the object alive

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, obj: Any, contract: Contract) -> int:
        """The object's number; UsageError when too many are alive."""
        key = (id(obj), contract.cls)
        number = self._known.get(key)
        if number is not None:
            entry = self._entries[number]
            self._entries[number] = entry._replace(sent=entry.sent + 1)
            return number
        if len(self._entries) >= MOST_OBJECTS:
            raise UsageError(
                f"{MOST_OBJECTS} objects are in the worker's hands; it must drop some before it is handed another"
            )
        number = next(self._numbers)
        self._known[key] = number
        self._entries[number] = _Entry(obj, contract, 1)
        return number

    def get(self, number: int) -> tuple[Any, Contract]:
        """The object and the interface under which it was sent. ProtocolError for a number that is not alive."""
        entry = self._entries.get(number)
        if entry is None:
            raise ProtocolError(f"object {number} was never handed out, or was released")
        return entry.obj, entry.contract

    def release(self, number: int, count: int) -> None:
        """The holder has dropped what it received `count` times."""
        entry = self._entries.get(number)
        if entry is None or not 0 < count <= entry.sent:
            raise ProtocolError(f"a release of object {number} that was not received {count} times")
        if count == entry.sent:
            del self._entries[number]
            del self._known[id(entry.obj), entry.contract.cls]
        else:
            self._entries[number] = entry._replace(sent=entry.sent - count)
