"""Compartments of an attacker who asks services by hand: more than anybody answers, and in numbers of his own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import bunri
from bunri.channel.handles import OutgoingHandles
from bunri.channel.target import target_of
from bunri.wire import contract_of
from bunri.wire.frames import FrameKind, pack, pack_large


class Slow(bunri.Service):
    """Answers late."""

    async def text(self, text: str) -> int: ...

    async def lists(self, lists: list[list[int]]) -> int: ...

    async def files(self, files: list[bunri.File]) -> int: ...


METHODS = {method.name: method for method in contract_of(Slow).methods}


class Asking(bunri.Compartment):
    """Was handed it. Its filter lets it send descriptors, for `files` takes some."""

    policy = bunri.Policy(memory=bunri.AT_START)

    def __init__(self, slow: Slow) -> None:
        self._slow = slow

    def large(self, data: bytes) -> int:
        """For its sake there is an arena."""
        return len(data)

    def rows(self, size: int, count: int, honest: bool) -> Iterator[str]:
        """So many, each of that size; all at once, whatever credit there is, where it is not honest."""
        for _ in range(count if honest else 0):
            yield "x" * size
        method = next(m for m in contract_of(Asking).methods if m.name == "rows")
        body = method.encode_item("x" * size, None)[0]
        for _ in range(0 if honest else count):
            for packet in pack_large(FrameKind.ITEM, body, call=2):
                os.write(3, packet)

    def _files(self, count: int) -> None:
        """Ask with so many files, 16 in a call, and do not wait."""
        link = target_of(self._slow).side.link
        for call in range(100, 100 + count // 16):
            sink = OutgoingHandles(lambda *_: 0)
            handed = [bunri.File(os.dup(1)) for _ in range(16)]
            body = METHODS["files"].encode_arguments((handed,), sink)[0]
            number = METHODS["files"].number
            for packet in pack_large(FrameKind.CALL, body, obj=1, method=number, call=call, descriptors=16):
                link.send(packet, sink.descriptors)
            for file in handed:
                file.close()
            sink.close()
            time.sleep(0.01)  # so many may not be under way at one time (unix(7), ETOOMANYREFS)

    def run_code(self, code: str) -> str:
        space: dict[str, object] = {
            "os": os,
            "time": time,
            "ask": ask,
            "say": say,
            "text": text,
            "lists": lists,
            "files": self._files,
        }
        exec(code, space)
        return str(space.get("result"))


class WithChildren(bunri.Compartment):
    """May make processes."""

    policy = bunri.Policy(processes=bunri.AT_START, cpu=bunri.AT_START, may_miss=[bunri.Promise.MEMORY])

    def burn(self, seconds: float, each: float, ignored: bool) -> float:
        """So much processor time, all of it in children that live for `each`."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN if ignored else signal.SIG_DFL)
        for _ in range(round(seconds / each)):
            if os.fork() == 0:
                begun = time.process_time()
                while time.process_time() - begun < each:
                    pass
                os._exit(0)
            with contextlib.suppress(ChildProcessError):
                os.wait()
        return seconds


def ask(name: str, body: bytes, call: int) -> None:
    for packet in pack_large(FrameKind.CALL, body, obj=1, method=METHODS[name].number, call=call):
        os.write(3, packet)


def say(kind: str, times: int, **more: int) -> None:
    """So many messages of a kind that has no body."""
    for _ in range(times):
        os.write(3, pack(FrameKind[kind], **more))  # type: ignore[arg-type]


def text(size: int) -> bytes:
    """The arguments of `text`."""
    return METHODS["text"].encode_arguments(("x" * size,), None)[0]


def lists(count: int) -> bytes:
    """The arguments of `lists`: each of the lists is a byte on the wire, and 56 as an object."""
    return METHODS["lists"].encode_arguments(([[]] * count,), None)[0]
