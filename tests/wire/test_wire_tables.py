"""Numbers of objects on a channel: never used twice, counted, bounded, and misuse is a ProtocolError."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from wire_parts import taking

from bunri.channel.handles import OutgoingHandles
from bunri.errors import ProtocolError, UsageError
from bunri.service import Service
from bunri.wire import contract_of
from bunri.wire.tables import MOST_OBJECTS, ObjectTable


class Login(Service):
    async def password(self, text: str) -> bool: ...


class Files(Service):
    async def names(self) -> list[str]: ...


class Both(Login, Files):
    """One object under two interfaces."""


LOGIN, FILES = contract_of(Login), contract_of(Files)


def test_the_same_object_has_one_number_per_interface() -> None:
    table, obj = ObjectTable(), Both()
    assert table.add(obj, LOGIN) == table.add(obj, LOGIN)
    assert table.add(obj, FILES) != table.add(obj, LOGIN)


def test_an_object_is_found_under_the_interface_it_was_sent_as() -> None:
    table, obj = ObjectTable(), Both()
    number = table.add(obj, FILES)
    assert table.get(number) == (obj, FILES)


def test_a_number_that_was_never_handed_out_is_refused() -> None:
    table = ObjectTable()
    for number in (0, 1, 2**32 - 1):
        with pytest.raises(ProtocolError):
            table.get(number)
        with pytest.raises(ProtocolError):
            table.release(number, 1)


def test_a_released_number_is_dead_and_not_used_again() -> None:
    table = ObjectTable()
    first = table.add(Both(), LOGIN)
    table.release(first, 1)
    with pytest.raises(ProtocolError):
        table.get(first)
    assert table.add(Both(), LOGIN) != first


def test_a_release_that_crosses_another_sending_keeps_the_object() -> None:
    table, obj = ObjectTable(), Both()
    number = table.add(obj, LOGIN)
    table.add(obj, LOGIN)  # on its way while the holder drops what it had
    table.release(number, 1)
    assert table.get(number) == (obj, LOGIN)
    table.release(number, 1)
    with pytest.raises(ProtocolError):
        table.get(number)


@pytest.mark.parametrize("count", [0, 2, -1, 2**32 - 1])
def test_a_release_of_more_than_was_received_is_refused(count: int) -> None:
    table = ObjectTable()
    number = table.add(Both(), LOGIN)
    with pytest.raises(ProtocolError):
        table.release(number, count)
    assert len(table) == 1


def test_too_many_objects_alive_are_refused_and_a_release_makes_room() -> None:
    table, objects = ObjectTable(), [Both() for _ in range(MOST_OBJECTS + 1)]
    numbers = [table.add(obj, LOGIN) for obj in objects[:-1]]
    assert table.add(objects[0], LOGIN) == numbers[0]  # one that is there needs no room
    with pytest.raises(UsageError, match="256"):
        table.add(objects[-1], LOGIN)
    table.release(numbers[1], 1)
    assert table.add(objects[-1], LOGIN) not in numbers


def test_the_table_keeps_its_objects_so_that_an_id_is_not_taken_for_another() -> None:
    table = ObjectTable()
    numbers = [table.add(Both(), LOGIN) for _ in range(50)]
    assert len(set(numbers)) == 50


class TableMachine(RuleBasedStateMachine):
    """The table against the plainest model of it, in any order of sending and releasing."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ObjectTable()
        self.objects = [Both() for _ in range(5)]
        self.alive: dict[int, int] = {}  # number -> index of the object
        self.sent: Counter[int] = Counter()
        self.used: set[int] = set()

    @rule(index=st.integers(0, 4))
    def send(self, index: int) -> None:
        number = self.table.add(self.objects[index], LOGIN)
        if number not in self.alive:
            assert number not in self.used
            assert index not in self.alive.values()
        assert self.alive.setdefault(number, index) == index
        self.used.add(number)
        self.sent[number] += 1

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.alive)))
        count = data.draw(st.integers(1, self.sent[number]))
        self.table.release(number, count)
        self.sent[number] -= count
        if not self.sent[number]:
            del self.alive[number]

    @rule(number=st.integers(0, 60), count=st.integers(0, 3))
    def misuse(self, number: int, count: int) -> None:
        if 0 < count <= self.sent[number]:
            return
        with pytest.raises(ProtocolError):
            self.table.release(number, count)

    @invariant()
    def what_is_alive_is_there(self) -> None:
        assert len(self.table) == len(self.alive)
        for number, index in self.alive.items():
            assert self.table.get(number)[0] is self.objects[index]


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=20, stateful_step_count=25)


def test_an_object_of_a_message_that_was_not_sent_is_not_in_the_workers_hands() -> None:
    table, handed = ObjectTable(), Both()
    out = OutgoingHandles(table.add, lambda number: table.release(number, 1))
    with pytest.raises(UsageError):
        taking(Login, str).encode_arguments((handed, "a\0b"), out)
    assert len(table) == 0
