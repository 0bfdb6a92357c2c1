"""How the usual libraries fall, tried on this one: pickles, names to import, names of exceptions, log records.

Each was shown to run code in the privileged side of a well-known library. Here the same bytes meet every decoder; what
decides is not that an exception came, but that nothing of what the bytes name was touched.
"""

from __future__ import annotations

import dataclasses
import logging
import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wire_parts import pack

import bunri
from bunri.errors import ProtocolError
from bunri.wire import MethodContract, contract_of
from bunri.wire.frames import Reader


@dataclasses.dataclass
class NotFound(Exception):
    name: str


class Served(bunri.Service):
    @bunri.raises(NotFound, ValueError)
    def text(self, a: str) -> str: ...
    @bunri.raises(NotFound)
    def nested(self, a: dict[str, list[str]]) -> list[str]: ...
    def raw(self, a: bytes) -> bytes: ...


METHODS = contract_of(Served).methods


def meets_every_decoder(body: bytes) -> list[Any]:
    """All values that come of it; a ProtocolError is the other permitted end."""
    values: list[Any] = []
    for method in METHODS:
        decoders: tuple[Any, ...] = (
            lambda b, m=method: m.decode_arguments(b, None, None),
            lambda b, m=method: m.decode_result(b, None, None),
            lambda b, m=method: m.decode_item(b, None, None),
            lambda b, m=method: m.decode_exception(b),
            lambda b: Reader().read(b),
        )
        for decode in decoders:
            try:
                values.append(decode(body))
            except ProtocolError:
                continue
    return values


class Boom:
    """What an owned worker answers."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return exec, (f"import pathlib; pathlib.Path({self.path!r}).touch()",)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def test_a_pickle_is_never_loaded(folder: Path) -> None:
    """Demonstration (a): the executor of the standard library runs this in the parent."""
    owned = folder / "owned"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bomb = pickle.dumps(Boom(str(owned)), protocol)
        for body in (bomb, pack(bomb), pack([bomb]), pack([{"a": [bomb]}]), b"\x00" + pack([bomb])):
            values = meets_every_decoder(body)
            assert all(type(value) in (bytes, tuple) for value in values)  # bytes stay bytes
    assert not owned.exists()
    pickle.loads(bomb)  # the control: where it is loaded, it runs
    assert owned.exists()


def test_a_name_is_never_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demonstration (b): a privileged daemon imports the module that a call names, and then says it exports nothing."""
    owned = folder / "owned"
    (folder / "evil_module_of_a_test.py").write_text(f"import pathlib\npathlib.Path({str(owned)!r}).touch()\n")
    monkeypatch.syspath_prepend(str(folder))
    name = "evil_module_of_a_test.X"
    for shaped in (name, [name], [name, [], {}], {"a": [name]}, [{name: [name]}], [3, name, [], {}], (name, ("x",))):
        meets_every_decoder(pack(shaped))
        meets_every_decoder(b"\x00" + pack(shaped))
    assert "evil_module_of_a_test" not in sys.modules
    assert not owned.exists()
    __import__("evil_module_of_a_test")  # the control
    assert owned.exists()
    del sys.modules["evil_module_of_a_test"]


def test_an_exception_is_never_looked_up_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Demonstration (c): the client calls whatever name the daemon gives for an exception."""
    called: list[Any] = []
    monkeypatch.setattr("os.system", lambda *args: called.append(args))
    for shaped in (["os.system", ["echo owned"]], ["ERR", "os.system", ["echo owned"]], "os.system", [1, "os.system"]):
        for number in (b"", b"\x00", b"\x01", b"\x02", b"\xff"):
            values = meets_every_decoder(number + pack(shaped))
            for value in values:
                assert not isinstance(value, BaseException) or type(value) in (NotFound, ValueError)
    assert not called
    __import__("os").system("echo owned")  # the control: the name leads to what was watched
    assert called


def test_a_log_record_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(logging, "makeLogRecord", made.append)
    record = {"name": "x", "msg": "%(a)s", "args": [{"a": "b"}], "levelno": 50}
    for shaped in (record, [record], [4, record]):
        meets_every_decoder(pack(shaped))
    assert not made


def test_a_text_is_never_formatted() -> None:
    method: MethodContract = METHODS[-1]
    assert method.name == "text"
    for text in ("%s%s%n", "{0.__class__.__init__.__globals__}", "${jndi:x}", "$(reboot)"):
        assert method.decode_arguments(pack([text]), None, None) == (text,)
