"""Runs in: the monitor, with the user's rights. A living capture: the processes of one, and what keeps them going.

    kernel --packets--> ring memory --> decoder --text--> monitor --> terminal
                          ^ mapped, without its socket       \\-records--> writer
    opener (the socket) --bell--> decoder

The monitor makes the packet socket, since that takes CAP_NET_RAW, and reads nothing from it: unbound, it receives
nothing. It keeps its copy so that a new decoder can be given the same memory.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from msgspec.structs import replace

import bunri
from bunri.apps.dump import bpf
from bunri.apps.dump.decoder import MEMORY, LiveDecoder
from bunri.apps.dump.interfaces import ANY, hardware, interfaces
from bunri.apps.dump.linktypes import LINK_TYPES, described, list_of, number_of
from bunri.apps.dump.messages import Batch, Counted, Cursor, Instruction, Job, Place, RingShape, Style
from bunri.apps.dump.monitor import (
    PATIENCE_FOR_ONE,
    Failed,
    Interrupted,
    Signals,
    answer,
    begin,
    cause_of,
    compile_expression,
    complain,
    names_for,
)
from bunri.apps.dump.opener import Opener
from bunri.apps.dump.options import Options
from bunri.apps.dump.output import LeftOut, Output, show
from bunri.apps.dump.ring import PLACE

T = TypeVar("T")

_BLOCK = 1 << 19
_SUPPRESSED = "verbose output suppressed, use -v[v]... for full protocol decode\n"
_WAIT = 60  # milliseconds until a block that is not full comes all the same
NOWHERE = PLACE.pack(1 << 32, 0, 0)  # where a decoder is that has not come to its place
GONE = "The interface disappeared"
_MOST_VAIN = 3  # decoders in turn that end where no packet is
_ETHERNET, _RAW, _COOKED, _COOKED2 = 1, 12, 113, 276
# Hardware types whose frames are Ethernet's, or have no link header at all (if_arp.h).
_LINKS = {1: _ETHERNET, 772: _ETHERNET, 65534: _RAW, 768: _RAW, 776: _RAW, 778: _RAW, 519: _RAW}


@dataclass(frozen=True)
class Device:
    """What is listened to: its index (0: every one), link type, and whether its frames come without their header."""

    name: str
    index: int
    link: int
    cooked: int


def run(options: Options, style: Style) -> int:
    """Capture until -c, Ctrl-C or -W ends it."""
    if options.self_confine:
        raise Failed("--self-confine reads a file; name one with -r")
    device = find(options.interface or interfaces()[0].name, options.link)
    if options.lists_links:
        links = (_COOKED, _COOKED2) if device.name == ANY else (device.link,)
        sys.stderr.write(list_of(bunri.printable(device.name), links))
        return 0
    if device.name == ANY or options.link:
        sys.stderr.write(f"bunri dump: data link type {LINK_TYPES[device.link][0]}\n")
    program = compile_expression(options.expression, device.link, options.snap, optimize=options.optimize)
    if options.listing:
        show(bpf.listing(program, min(options.listing, 3)).encode())
        return 0
    with ExitStack() as stack:
        return _capture(device, program, options, style, stack)


def find(name: str, link: str) -> Device:
    """The interface of this name. Failed where there is none."""
    wanted = number_of(link) if link else None
    if re.fullmatch("[0-9]+", name) and name not in (known for _, known in socket.if_nameindex()):
        numbered = interfaces()
        if not 1 <= int(name[:9]) <= len(numbered):
            raise Failed("Invalid adapter index")
        name = numbered[int(name) - 1].name
    if name == ANY:
        chosen = wanted or _COOKED2
        if chosen not in (_COOKED, _COOKED2):
            raise Failed(f"any: {link} is not one of the DLTs supported by this device")
        return Device(name, 0, chosen, 2 if chosen == _COOKED2 else 1)
    try:
        index = socket.if_nametoindex(name)
        kind = hardware(name)
    except (OSError, OverflowError):
        raise Failed(
            f"{name}: No such device exists\n(there is no interface of this name; `bunri dump -D` lists them)"
        ) from None
    found = _LINKS.get(kind, _COOKED2)
    if wanted is not None and wanted != found:
        raise Failed(f"{link} is not one of the DLTs supported by this device")
    return Device(name, index, found, 2 if found == _COOKED2 else 0)


def _socket(device: Device) -> socket.socket:
    kind = socket.SOCK_DGRAM if device.cooked else socket.SOCK_RAW
    try:
        return socket.socket(socket.AF_PACKET, kind, 0)
    except PermissionError:
        raise Failed(
            f"{device.name}: You don't have permission to perform this capture on that device\n"
            "(socket: Operation not permitted: it takes CAP_NET_RAW; files are read with -r without it)"
        ) from None


def for_kernel(
    program: list[Instruction], device: Device, expression: str, snap: int
) -> tuple[list[Instruction], list[Instruction]]:
    """What the kernel filters with, and what the decoder does.

    The kernel takes VLAN tags out of frames before filters see them, so that an expression about tags can only be
    decided where they are put back: by the decoder.
    """
    everything: list[Instruction] = [(0x06, 0, 0, snap)]
    if not expression:
        return everything, []
    if re.search(r"\bvlan\b", expression):
        if bpf.asks_direction(program):
            raise Failed("inbound and outbound do not go together with vlan: write -Q in or -Q out")
        return everything, program
    if device.cooked:
        cooked = bpf.for_cooked(program, device.cooked)
        return (everything, program) if cooked is None else (cooked, [])
    return program, []


class Ear:
    """What a decoder of a living capture needs: the ring's memory, the bell, and where to write down how far it is."""

    def __init__(
        self,
        device: Device,
        kernel: list[Instruction],
        shape: RingShape,
        stack: ExitStack,
        *,
        immediate: bool = False,
        promiscuous: bool = True,
    ) -> None:
        self.device = device
        self.shape = shape
        self.length = shape.block_size * shape.blocks
        self._socket = stack.enter_context(_socket(device))
        self._progress = stack.enter_context(bunri.File(os.memfd_create("progress", os.MFD_CLOEXEC)))
        os.ftruncate(self._progress.fileno(), 4096)
        self._seen = bunri.Mapped(self._progress.fileno(), 4096, bunri.Access.READ).buffer
        self.bell = stack.enter_context(bunri.File(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)))
        self._opener = stack.enter_context(Opener.start(self._socket, self.bell))
        wait = 1 if immediate else _WAIT
        try:
            self._opener.open(device.index, kernel, shape.block_size, shape.blocks, wait, int(promiscuous))
        except bunri.PeerError as fault:
            raise Failed(f"{device.name}: the capture could not be opened: {cause_of(fault)}") from None
        self._gone = False
        self._watching = bunri.call(self._opener.watch)
        stack.callback(lambda: self._watching.cancel())

    def maps(self) -> tuple[bunri.Mapped, bunri.Mapped]:
        """The ring and the place, for one decoder, which has come nowhere yet."""
        os.pwrite(self._progress.fileno(), NOWHERE, 0)
        return (
            bunri.Mapped(self._socket.fileno(), self.length, bunri.Access.WRITE),
            bunri.Mapped(self._progress.fileno(), 4096, bunri.Access.WRITE),
        )

    def place(self) -> bytes:
        """Where the decoder is, as it says."""
        return bytes(self._seen[: PLACE.size])

    def is_gone(self) -> bool:
        """Whether there is no such interface any more. One that is only down may come up again."""
        if not self._gone and self._watching.done():
            try:
                error = self._watching.result()
            except bunri.PeerError as fault:
                raise Failed(f"pcap_loop: the opener ended: {cause_of(fault)}") from None
            if error != errno.ENETDOWN:
                raise Failed(f"pcap_loop: the opener ended with {errno.errorcode.get(error, 'no error that there is')}")
            try:
                socket.if_indextoname(self.device.index)
                self._watching = bunri.call(self._opener.watch)
            except OSError:
                self._gone = True
        return self._gone

    def counted(self) -> Counted:
        """What the kernel counted."""
        return bunri.call(self._opener.counted).result(timeout=5)


class Living:
    """The decoders of a capture."""

    def __init__(
        self,
        ear: Ear,
        job: Job,
        left_out: LeftOut,
        signals: Signals,
        stack: ExitStack,
    ) -> None:
        self._ear = ear
        self._job = job
        self._left_out = left_out
        self._signals = signals
        self._names = names_for(stack, job.style.numeric)
        self._cursor = Cursor()
        self._vain = 0
        self._decoder = self._start(self._job, Place(0, 0))
        stack.callback(self._close)

    def _start(self, job: Job, place: Place) -> LiveDecoder:
        """A decoder that goes on from a place. It writes the place down when it is there."""
        ear = self._ear
        policy = LiveDecoder.policy.with_(memory=MEMORY + ear.length)
        return LiveDecoder.start_under(policy, job, ear.shape, *ear.maps(), ear.bell, place, self._cursor, self._names)

    def _close(self) -> None:
        self._decoder.close()

    def batches(self, most: int) -> Iterator[Batch]:
        """What decoders make of the packets; now and then nothing. Failed when the interface has gone away, behind its
        last packet."""
        ear = self._ear
        call = begin(self._decoder.batch, most)
        while True:
            before = ear.place()
            try:
                batch = self._answer(call)
                if batch.packets < 0 or 0 <= most < batch.packets:
                    raise bunri.ProtocolError("a decoder says that it had fewer packets than none, or more than it may")
                is_last = ear.is_gone() and before == ear.place()
                self._vain = 0
            except bunri.PeerError as fault:
                batch = self._replace(fault, most)
                is_last = False
            self._cursor = batch.cursor
            if most > 0:
                most = max(most - batch.packets, 0)
            if most and not is_last:
                call = begin(self._decoder.batch, most)  # it goes on while this batch is printed
            yield batch
            if most == 0:
                return
            if is_last:
                raise Failed(f"pcap_loop: {GONE}")

    def _answer(self, call: bunri.Call[T]) -> T:
        with self._signals.waiting():
            return answer(call, PATIENCE_FOR_ONE, self._news)

    def _news(self) -> object:
        """Where the decoder is, and how often it asked. As long as it is not there its start is waited for: where many
        have died, starts are held back."""
        place = self._ear.place()
        if place == NOWHERE:
            return object()
        return place, self._names.asked if self._names is not None else 0

    def _replace(self, fault: bunri.PeerError, most: int) -> Batch:
        """Another decoder, behind the packet on which the one before ended; what that one had not told of its block."""
        self._decoder.close()
        cause = cause_of(fault)
        ear = self._ear
        if ear.place() == NOWHERE:
            raise Failed(f"{ear.device.name}: no decoder can be started: {cause}")
        block, packet, first = PLACE.unpack(ear.place())
        if block >= ear.shape.blocks or packet >= 1 << 20 or first > packet:
            block = packet = first = 0  # what ended wrote it: a lie costs packets of this capture, nothing else
        untold = self._untold(block, first, packet, most)
        self._cursor = untold.cursor
        try:
            quiet = replace(self._job, prints=False, records=True)
            with closing(self._start(quiet, Place(block, packet))) as finder:
                lost = self._answer(begin(finder.lost))
        except bunri.PeerError:
            lost = Batch(b"", b"", 0, self._cursor)
        if lost is None:
            self._vain += 1
            if self._vain == _MOST_VAIN:
                raise Failed(f"{ear.device.name}: decoders end where no packet is: {cause}")
            complain(f"a decoder was replaced: {cause}")
        else:
            self._left_out.report("a packet", cause, lost.records)
            self._cursor = replace(lost.cursor, reference=self._cursor.reference)
            packet += 1
            if self._job.records and untold.packets != most:
                untold = replace(untold, records=untold.records + lost.records, packets=untold.packets + lost.packets)
        self._decoder = self._start(self._job, Place(block, packet))
        return replace(untold, cursor=self._cursor)

    def _untold(self, block: int, first: int, packet: int, most: int) -> Batch:
        """What the packets of a block make that stand before the one on which a decoder ended."""
        if first < packet:
            try:
                with closing(self._start(self._job, Place(block, first))) as again:
                    return self._answer(begin(again.until, packet, most))
            except bunri.PeerError as another:
                complain(f"packets of a block were left out: {cause_of(another)}")
        return Batch(b"", b"", 0, self._cursor)


def shape_for(device: Device, snap: int, buffer: int, direction: str, *, nanoseconds: bool) -> RingShape:
    """The ring of a device, `buffer` bytes of it at least."""
    try:
        loopback = socket.if_nametoindex("lo")
    except OSError:
        loopback = 0
    if device.index not in (0, loopback):
        loopback = 0  # nothing of it comes
    blocks = max(buffer // _BLOCK, 2)
    return RingShape(_BLOCK, blocks, device.link, device.cooked, snap, nanoseconds, loopback, direction)


def _capture(device: Device, program: list[Instruction], options: Options, style: Style, stack: ExitStack) -> int:
    signals = stack.enter_context(Signals(asks=True))
    left_out = LeftOut(options.quarantine, stack, signals)
    kernel, rest = for_kernel(program, device, options.expression, options.snap)
    shape = shape_for(device, options.snap, options.buffer, options.direction, nanoseconds=style.nanoseconds)
    ear = Ear(device, kernel, shape, stack, immediate=options.immediate, promiscuous=options.promiscuous)
    called = dict(socket.if_nameindex()) if device.cooked == 2 else {}
    prints = options.prints if options.write else not options.count
    living = Living(ear, Job(style, rest, prints, bool(options.write), called), left_out, signals, stack)
    output = Output(options, stack, signals)
    output.open(device.link, options.snap)
    left_out.open(device.link, options.snap, nanoseconds=style.nanoseconds)
    brief = not options.style.verbose and not options.write
    sys.stderr.write(f"bunri dump: {_SUPPRESSED if brief else ''}")
    name = bunri.printable(device.name)  # whoever may rename interfaces may be somebody else
    sys.stderr.write(f"listening on {name}, {described(device.link)}, snapshot length {options.snap} bytes\n")
    sys.stderr.flush()
    taken = _Taken(ear)
    if options.style.verbose and options.write and not options.prints:
        stack.enter_context(_EachSecond(taken))
    status = 0
    try:
        for batch in living.batches(options.most):
            taken.packets += batch.packets
            output.take(batch)
            if signals.was_asked():
                taken.tell(long=False)
            if output.full or signals.came:
                break
    except Interrupted:
        pass
    except Failed as failed:
        complain(str(failed))
        status = failed.status
    except bunri.BunriError as fault:  # as where this host lets no decoder be confined any more
        complain(str(fault))
        status = 1
    if signals.came and not options.write:
        show(b"\n")  # behind a line that may not be whole
    output.finish()
    taken.tell(long=True)
    left_out.finish()
    return status or int(left_out.count > 0)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


class _Taken:
    """The statistics."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self.packets = 0

    def tell(self, *, long: bool) -> None:
        """As tcpdump tells them: three lines at the end, one line for SIGUSR1."""
        said = [f"{self.packets} packet{_s(self.packets)} captured"]
        try:
            counted = self._ear.counted()
        except (TimeoutError, bunri.PeerError) as fault:
            complain(f"the kernel's counts cannot be had: {bunri.printable(str(fault) or 'no answer', limit=200)}")
        else:
            said += [
                f"{counted.received} packet{_s(counted.received)} received by filter",
                f"{counted.dropped} packet{_s(counted.dropped)} dropped by kernel",
            ]
        sys.stderr.write("\n".join(said) + "\n" if long else f"bunri dump: {', '.join(said)}\n")
        sys.stderr.flush()


class _EachSecond:
    """-v with -w: how many packets there are, told each second in which that changes."""

    def __init__(self, taken: _Taken) -> None:
        self._taken = taken
        self._told = -1
        self._before: object = None

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGALRM, self._tell)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)  # type: ignore[arg-type]

    def _tell(self, number: int, frame: FrameType | None) -> None:
        if self._told != self._taken.packets:
            self._told = self._taken.packets
            sys.stderr.write(f"Got {self._told}\r")
            sys.stderr.flush()
