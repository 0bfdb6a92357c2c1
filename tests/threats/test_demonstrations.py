"""How the usual Python libraries fall, tried on bunri: an owned worker's answer never becomes code in the monitor.

Each sends, by the worker's own descriptor, the very bytes that are fatal elsewhere. What is a value of the declared type
arrives as that value; all else ends the worker. The controls show that the same bytes act where somebody interprets them.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import msgspec
import owned
import pytest

import bunri
from bunri.wire.frames import FrameKind, pack

# Sends one forged message as answer to the very call that runs it: its number is the monitor's second, after START.
SEND = "import os\nos.write(3, bytes.fromhex({packet!r}))\nimport time\ntime.sleep(30)"


def forged(kind: FrameKind, body: bytes, *, obj: int = 0, method: int = 0) -> BaseException | str:
    """What the caller gets when its worker answers so."""
    with owned.Owned.start() as worker:
        packet = pack(kind, body, obj=obj, method=method, call=2)
        try:
            return worker.run_code(SEND.format(packet=packet.hex()))
        except bunri.BunriError as fault:
            return fault


class Boom:
    """What an owned worker answers to an executor of the standard library."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return exec, (f"import pathlib; pathlib.Path({self.path!r}).touch()",)


def test_demonstration_a_an_answer_is_never_unpickled(tmp_path: Path) -> None:
    """ProcessPoolExecutor, Pipe, Queue, Manager, loky: the parent unpickles what the child sends."""
    mark = tmp_path / "owned"
    bomb = pickle.dumps(Boom(str(mark)))
    assert isinstance(forged(FrameKind.REPLY, bomb), bunri.WorkerDied)
    assert isinstance(forged(FrameKind.REPLY, msgspec.msgpack.encode(bomb)), bunri.WorkerDied)
    told = forged(FrameKind.REPLY, msgspec.msgpack.encode(bomb.hex()))  # a text, as declared: a text it stays
    assert told == bomb.hex()
    assert not mark.exists()
    pickle.loads(bomb)  # the control
    assert mark.exists()


def test_demonstration_b_a_name_in_a_call_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A privileged daemon that imports the module a call names, and then finds that it exports nothing."""
    mark = tmp_path / "owned"
    (tmp_path / "evil_module_of_b.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for body in (["evil_module_of_b.X", [], {}], [3, "evil_module_of_b.X"], "evil_module_of_b.X"):
        for kind in (FrameKind.CALL, FrameKind.START, FrameKind.FAILED):
            assert isinstance(forged(kind, msgspec.msgpack.encode(body), obj=1), bunri.WorkerDied)
    assert "evil_module_of_b" not in sys.modules
    assert not mark.exists()
    importlib.import_module("evil_module_of_b")  # the control
    assert mark.exists()
    del sys.modules["evil_module_of_b"]


def test_demonstration_c_an_exception_is_never_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that imports and calls whatever name the daemon gives for its exception."""
    called: list[Any] = []
    monkeypatch.setattr("os.system", lambda *args: called.append(args))
    for body in (["os.system", "echo owned"], ["os.system", ["echo owned"]], "os.system"):
        for kind in (FrameKind.ERROR, FrameKind.RAISED):
            fault = forged(kind, msgspec.msgpack.encode(body))
            assert type(fault) in (bunri.WorkerDied, bunri.RemoteError)
    # The one body above that is in the grammar of an ERROR is told as text: two names that mean nothing here.
    fault = forged(FrameKind.ERROR, msgspec.msgpack.encode(["os.system", "echo owned"]))
    assert isinstance(fault, bunri.RemoteError)
    assert not called
    getattr(importlib.import_module("os"), "system")("echo owned")  # noqa: B009  the control: a name, looked up and called
    assert called
