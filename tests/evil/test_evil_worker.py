"""A worker that speaks the wire by hand: the monitor neither crashes, hangs, grows nor runs anything; the sender dies with the
cause, and its neighbour never notices."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator

import evil_parts
import pytest
from evil_parts import Evil, Sender
from marked import Mark

import bunri
from bunri.channel.target import target_of
from bunri.wire.frames import FrameKind, pack


class BellHere(evil_parts.Bell):
    def ring(self, by: int) -> int:
        return by


@pytest.fixture(autouse=True)
def neighbour() -> Iterator[None]:
    """Another worker, in the middle of things, answers before and after."""
    with Evil.start(BellHere()) as other:
        assert other.speak("result = bell.ring(1)") == "1"
        yield
        assert other.speak("result = bell.ring(2)") == "2"


def death(code: str, *, within: float = 10) -> str:
    """The cause of the death that follows."""
    with Evil.start(BellHere()) as worker:
        with pytest.raises(bunri.WorkerDied) as caught, bunri.deadline(within):
            speak_twice(worker, code)
        return str(caught.value)


def speak_twice(worker: Evil, code: str) -> None:
    """What was answered before the fault counts; the next call meets it."""
    worker.speak(code)
    worker.speak("time.sleep(20)")


HAND_MADE = {
    "a longer packet than there may be": ("os.write(3, b'x' * 65_537)", "more than 65536 bytes"),
    "a length beyond the packet": ("os.write(3, pack(K.REPLY, b'x' * 9, call=2)[:-3])", "in a packet that has 6"),
    "half a header": ("os.write(3, pack(K.CALL)[:11])", "inside a header"),
    "half a body, seventeen times": (
        "for n in range(17): os.write(3, pack(K.CHUNK, b'x', obj=4, call=n))",
        "too many unfinished messages",
    ),
    "a body without an end": (
        "while True: os.write(3, pack(K.CHUNK, b'x' * 60_000, obj=4, call=2))",
        "more than 67108864 bytes",
    ),
    "an empty chunk": ("os.write(3, pack(K.CHUNK, b'', obj=4, call=2))", "empty chunk"),
    "a second answer": ("os.write(3, pack(K.REPLY, b'\\xa1x', call=2))", "call 2, which is not out"),
    "an answer to another's call": ("os.write(3, pack(K.REPLY, b'\\xa1x', call=2**32 - 1))", "which is not out"),
    "an item of a plain call": ("os.write(3, pack(K.ITEM, b'\\xa1x', call=2))", "no stream"),
    "the end of a plain call": ("os.write(3, pack(K.END, call=2))", "the end of a stream that is none"),
    "an exception nobody declared": ("os.write(3, pack(K.RAISED, b'\\x00\\xa1x', call=2))", "does not declare"),
    "a release of what it was never handed": ("os.write(3, pack(K.RELEASE, obj=9, call=1))", "a release of object 9"),
    "a second release": ("for _ in 'ab': os.write(3, pack(K.RELEASE, obj=1, call=1))", "a release of object 1"),
    "a release of more than came": ("os.write(3, pack(K.RELEASE, obj=1, call=5))", "5 times"),
    "a call after the release": (
        "os.write(3, pack(K.RELEASE, obj=1, call=1)); os.write(3, pack(K.CALL, b'\\x91\\x01', obj=1, call=9))",
        "object 1 was never handed out, or was released",
    ),
    "a method that does not exist": ("os.write(3, pack(K.CALL, b'\\x90', obj=1, method=7, call=9))", "method 7 of Bell"),
    "arguments of another type": ("os.write(3, pack(K.CALL, b'\\x91\\xa1x', obj=1, call=9))", "Expected `int`, got `str`"),
    "more arguments": ("os.write(3, pack(K.CALL, b'\\x92\\x01\\x02', obj=1, call=9))", "Expected `array` of length 1"),
    "deeper than there is": ("os.write(3, pack(K.CALL, b'\\x91' * 60_000, obj=1, call=9))", "Expected `int`"),
    "blocks that were not lent": ("os.write(3, pack(K.FREED, call=3))", "3 arena blocks given back"),
    "descriptors that did not come": ("os.write(3, pack(K.REPLY, b'\\xa1x', call=2, descriptors=2))", "another number"),
    "a flag of its own": ("os.write(3, pack(K.REPLY, b'\\xa1x', call=2, flags=128))", "flags 128"),
    "what only a monitor says": ("os.write(3, pack(K.START, b'\\x90'))", "a START message"),
    "a packet of nothing": ("os.write(3, b'')", "closed its channel"),
}  # fmt: skip


@pytest.mark.parametrize("name", HAND_MADE)
def test_a_message_made_by_hand_ends_its_sender(name: str) -> None:
    code, why = HAND_MADE[name]
    assert why in death(code)


PAGE = "os.write(3, pack(K.REPLY, b'\\x92\\xc4\\x00\\x07', call=2, blobs={blobs})); time.sleep(20)"
BLOBS = {
    "beyond its half of the arena": ("[(0, (8 << 20) - 32768, 32769)]", "outside of the sender's half"),
    "in the monitor's half": ("[(0, 0, 32768)]", "outside of the sender's half"),
    "across both halves": ("[(0, (4 << 20) - 1, 32768)]", "outside of the sender's half"),
    "of a length that no arena has": ("[(0, 4 << 20, 2**32 - 1)]", "outside of the sender's half"),
    "smaller than what travels there": ("[(0, 4 << 20, 32767)]", "too small for it"),
    "for a field that is a number": ("[(1, 4 << 20, 32768)]", "large bytes for place 1, which takes none"),
    "for a field that is not there": ("[(2, 4 << 20, 32768)]", "large bytes for place 2, which takes none"),
    "twice for one": ("[(0, 4 << 20, 32768)] * 2", "two blobs for argument 0"),
    "that never came": ("[(0, 2**32 - 1, 32768)]", "32768 bytes announced, 0 came"),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOBS)
def test_large_bytes_of_a_record_that_are_a_lie_end_their_sender(name: str) -> None:
    blobs, why = BLOBS[name]
    with Evil.start(BellHere()) as worker:
        with pytest.raises(bunri.WorkerDied) as caught, bunri.deadline(10):
            worker.page(PAGE.format(blobs=blobs))
        assert why in str(caught.value)


def test_large_bytes_of_a_record_that_are_where_they_are_said_to_be_come_through() -> None:
    """The control: the same by hand and without a lie, and as it is sent."""
    with Evil.start(BellHere()) as worker:
        assert worker.page(PAGE.format(blobs="[(0, 4 << 20, 32768)]")) == evil_parts.Page(bytes(32768), 7)
    with Evil.start(BellHere()) as worker:
        assert worker.page("") == evil_parts.Page(bytes(1 << 20), 7)


def test_a_stream_that_ignores_its_credit_ends_its_sender() -> None:
    with Evil.start(BellHere()) as worker:
        with pytest.raises(bunri.WorkerDied, match="items ahead"), bunri.deadline(10):
            list(worker.rows("os.write(3, pack(K.ITEM, b'\\x01', call=2) * 40)\ntime.sleep(20)"))


FLOODS = {
    "calls, unread": "while True: os.write(3, pack(K.CALL, b'\\x91\\x01', obj=1, call=9) * 400)",
    "calls, one a packet": "while True: os.write(3, pack(K.CALL, b'\\x91\\x01', obj=1, call=9))",
    "credit": "while True: os.write(3, pack(K.CREDIT, method=1, call=9) * 400)",
    "cancellations": "while True: os.write(3, pack(K.CANCEL, call=9) * 400)",
    "silence": "time.sleep(60)",
    "itself stopped": "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_or_silence_neither_fills_nor_holds_the_monitor(name: str) -> None:
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with Evil.start(BellHere()) as worker, pytest.raises((bunri.WorkerDied, bunri.DeadlineExceeded)), bunri.deadline(1):
        worker.speak(FLOODS[name])
    assert time.monotonic() - begun < 20  # the deadline is 1; a machine may be busy
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


SEND = "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=3); "
DESCRIPTORS = {
    "beside what carries none": ("pack(K.CREDIT, method=1, call=9, descriptors=3)", "where none belong"),
    "beside an error": ("pack(K.ERROR, b'', call=2, descriptors=3)", "where none belong"),
    "more than it says": ("pack(K.REPLY, b'\\xa1x', call=2, descriptors=1)", "another number"),
    "beside a result that has no place for them": ("pack(K.REPLY, b'\\xa1x', call=2, descriptors=3)", "no value of the message names"),
    "beside a call of an object that is none": ("pack(K.CALL, b'\\x90', obj=9, call=9, descriptors=3)", "object 9"),
    "with an answer that is not out": ("pack(K.REPLY, b'\\xa1x', call=99, descriptors=3)", "not out"),
    "with a packet of nothing": ("b''", "closed its channel"),
    "with blobs that are none": ("pack(K.REPLY, b'\\xa1x', call=2, descriptors=3, blobs=[(0, 0, 70_000_000)])", "lies outside"),
}  # fmt: skip


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_descriptors_out_of_place_end_their_sender_and_are_closed(name: str, mark: Mark) -> None:
    message, why = DESCRIPTORS[name]
    with bunri.File.open(mark.path, "rb") as file, Sender.start(file) as worker:
        with pytest.raises(bunri.WorkerDied) as caught, bunri.deadline(10):
            worker.speak(SEND + f"socket.send_fds(s, [{message}], [mark] * 3); time.sleep(20)")
    assert why in str(caught.value)
    del caught
    assert mark.still_open() == 0


def test_a_descriptor_in_its_place_comes_through(mark: Mark) -> None:
    """The control."""
    with bunri.File.open(mark.path, "rb") as file, Sender.start(file) as worker:
        with worker.give() as came:
            assert os.pread(came.fileno(), 4, 0) == b"mark"
            assert mark.still_open() == 2
    assert mark.still_open() == 0


IMPOSTOR = {
    "a kind that does not exist": b"\xff" * 20,
    "half a header": b"\x03",
    "a method that does not exist": pack(FrameKind.CALL, b"\x90", method=99, call=9),
    "arguments that do not fit": pack(FrameKind.CALL, b"\x91\xcc", call=9),
    "an object of its own": pack(FrameKind.CALL, b"\x90", obj=4, call=9),
    "an answer it did not ask for": pack(FrameKind.REPLY, b"\xc0", call=9),
    "a release": pack(FrameKind.RELEASE, obj=1, call=1),
    "a second start, of nothing": pack(FrameKind.START, b"\xc0", call=9),
    "a worker's word": pack(FrameKind.READY),
    "seventeen halves": b"".join(pack(FrameKind.CHUNK, b"x", obj=3, call=n) for n in range(17)),
}


@pytest.mark.parametrize("name", IMPOSTOR)
def test_a_worker_that_is_told_nonsense_ends_and_runs_nothing(name: str) -> None:
    with Evil.start(BellHere()) as worker:
        assert worker.speak("result = 1") == "1"
        target_of(worker).side.link.sock.send(IMPOSTOR[name])
        assert worker.process.wait().code != 0
        with pytest.raises(bunri.WorkerDied):
            worker.speak("result = 1")
