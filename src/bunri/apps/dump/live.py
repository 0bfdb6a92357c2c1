"""Runs in: the monitor, with the user's rights. A living capture: the processes of one, and what keeps them going.

    kernel --packets--> ring memory --> decoder --text--> monitor --> terminal
                          ^ mapped, without its socket       \\-records--> writer
    opener (the socket) --bell--> decoder

The monitor makes the packet socket, since that takes CAP_NET_RAW, and reads nothing from it: unbound, it receives
nothing. It keeps its copy so that a new decoder can be given the same memory.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType

import bunri
from bunri.apps.dump import bpf, capture
from bunri.apps.dump.decoder import LiveDecoder
from bunri.apps.dump.linktypes import LINK_TYPES, described, number_of
from bunri.apps.dump.messages import Batch, Counted, Cursor, Instruction, Job, Names, Place, RingShape, Style
from bunri.apps.dump.monitor import Failed, compile_expression, complain, names_for
from bunri.apps.dump.opener import Opener
from bunri.apps.dump.options import Options
from bunri.apps.dump.output import Output
from bunri.apps.dump.ring import PLACE

_BLOCK = 1 << 19
_WAIT = 60  # milliseconds until a block that is not full comes all the same
_SIOCGIFHWADDR, _SIOCGIFFLAGS = 0x8927, 0x8913
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
    device = find(options.interface or _first(), options.link)
    if options.action == "links":
        name, text = LINK_TYPES[device.link]
        print(f"Data link types for {device.name} (use option -y to set):\n  {name} ({text})")
        return 0
    program = compile_expression(options.expression, device.link, options.snap, optimize=options.optimize)
    if options.listing:
        print(bpf.listing(program, min(options.listing, 3)), end="")
        return 0
    with ExitStack() as stack:
        return _capture(device, program, options, style, stack)


def _first() -> str:
    """The first interface that is up and is not the loopback, as libpcap chooses."""
    for _, name in socket.if_nameindex():
        if name != "lo" and _flags(name) & 1:
            return name
    return "lo"


def _ask(name: str, request: int) -> bytes:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return fcntl.ioctl(sock.fileno(), request, struct.pack("16s24x", name.encode()[:15]))


def _flags(name: str) -> int:
    return int(struct.unpack_from("=H", _ask(name, _SIOCGIFFLAGS), 16)[0])


def find(name: str, link: str) -> Device:
    """The interface of this name. Failed where there is none."""
    wanted = number_of(link) if link else None
    if link and wanted is None:
        raise Failed(f"{link} is not a valid data link type")
    if name == "any":
        chosen = wanted or _COOKED2
        if chosen not in (_COOKED, _COOKED2):
            raise Failed(f"any: {link} is not one of the DLTs supported by this device")
        return Device(name, 0, chosen, 2 if chosen == _COOKED2 else 1)
    try:
        index = int(name) if re.fullmatch("[0-9]+", name) else socket.if_nametoindex(name)
        name = socket.if_indextoname(index)
        hardware = struct.unpack_from("=H", _ask(name, _SIOCGIFHWADDR), 16)[0]
    except (OSError, OverflowError):
        raise Failed(
            f"{name}: No such device exists\n(there is no interface of this name; `bunri dump -D` lists them)"
        ) from None
    found = _LINKS.get(hardware, _COOKED2)
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


def _for_kernel(
    program: list[Instruction], device: Device, options: Options
) -> tuple[list[Instruction], list[Instruction]]:
    """What the kernel filters with, and what the decoder does.

    The kernel takes VLAN tags out of frames before filters see them, so that an expression about tags can only be
    decided where they are put back: by the decoder.
    """
    everything: list[Instruction] = [(0x06, 0, 0, options.snap)]
    if not options.expression:
        return everything, []
    if re.search(r"\bvlan\b", options.expression):
        return everything, program
    if device.cooked:
        cooked = bpf.for_cooked(program, device.cooked)
        return (everything, program) if cooked is None else (cooked, [])
    return program, []


class Living:
    """The processes of a capture."""

    def __init__(
        self, device: Device, program: list[Instruction], options: Options, style: Style, stack: ExitStack
    ) -> None:
        self._stack = stack
        self._options = options
        kernel, rest = _for_kernel(program, device, options)
        self._socket = stack.enter_context(_socket(device))
        blocks = max(options.buffer // _BLOCK, 2)
        self.shape = RingShape(
            _BLOCK, blocks, device.link, device.cooked, options.snap, style.nanoseconds, _loopback(), options.direction
        )
        self._progress = stack.enter_context(bunri.File(os.memfd_create("progress", os.MFD_CLOEXEC)))
        os.ftruncate(self._progress.fileno(), 4096)
        self._seen = bunri.Mapped(self._progress.fileno(), 4096, bunri.Access.READ).buffer
        self._bell = stack.enter_context(bunri.File(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)))
        interfaces = dict(socket.if_nameindex()) if device.cooked == 2 else {}
        prints = not options.count and (not options.write or options.prints)
        self._job = Job(style, rest, prints, bool(options.write), interfaces)
        self._names: Names | None = names_for(stack, style.numeric)
        self.opener = stack.enter_context(Opener.start(self._socket, self._bell))
        wait = 1 if options.immediate else _WAIT
        try:
            self.opener.open(device.index, kernel, _BLOCK, blocks, wait, int(options.promiscuous))
        except bunri.PeerError as fault:
            raise Failed(f"{device.name}: the capture could not be opened: {fault}") from None
        self._cursor = Cursor()
        self._decoder = self._start(Place(0, 0))
        self._watching = bunri.call(self.opener.watch)
        stack.callback(self._close)
        self.lost: list[bytes] = []

    def _start(self, place: Place) -> LiveDecoder:
        length = self.shape.block_size * self.shape.blocks
        memory = bunri.Mapped(self._socket.fileno(), length, bunri.Access.WRITE)
        progress = bunri.Mapped(self._progress.fileno(), 4096, bunri.Access.WRITE)
        return LiveDecoder.start(self._job, self.shape, memory, progress, self._bell, place, self._cursor, self._names)

    def _close(self) -> None:
        self._decoder.close()
        self._watching.cancel()

    def batches(self, most: int) -> Iterator[Batch]:
        """What decoders make of the packets."""
        while True:
            try:
                for batch in self._decoder.packets(most):
                    self._cursor = batch.cursor
                    if most > 0:
                        most = max(most - batch.packets, 0)
                    yield batch
                return
            except bunri.PeerError as fault:
                batch = self._replace(fault, most)
            self._cursor = batch.cursor
            if most > 0:
                most = max(most - batch.packets, 0)
            yield batch
            if most == 0:
                return

    def _replace(self, fault: bunri.PeerError, most: int) -> Batch:
        """Another decoder, behind the packet that ended the one before; what that one had not told of its block."""
        block, packet, first = PLACE.unpack_from(self._seen)
        if block >= self.shape.blocks or packet >= 1 << 20 or first > packet:
            block = packet = first = 0  # what died wrote it: a lie costs packets of this capture, nothing else
        self._decoder.close()
        cause = bunri.printable(str(fault).partition("\n")[0], limit=200)
        untold = Batch(b"", b"", 0, self._cursor)
        try:
            with bunri.deadline(5), self._start(Place(block, packet)) as finder:
                self.lost.append(finder.lost())
            with bunri.deadline(5), self._start(Place(block, first)) as again:
                untold = again.until(packet, most)
        except bunri.PeerError as another:
            complain(f"packets of a block were left out: {bunri.printable(str(another), limit=200)}")
        complain(f"a packet was left out: {cause}")
        self._decoder = self._start(Place(block, packet + 1))
        return untold

    def counted(self) -> Counted:
        """What the kernel counted."""
        return bunri.call(self.opener.counted).result(timeout=5)


def _loopback() -> int:
    try:
        return socket.if_nametoindex("lo")
    except OSError:
        return 0


def _capture(device: Device, program: list[Instruction], options: Options, style: Style, stack: ExitStack) -> int:
    living = Living(device, program, options, style, stack)
    if not options.style.verbose and not options.write and not options.count:
        sys.stderr.write("bunri dump: verbose output suppressed, use -v[v]... for full protocol decode\n")
    if device.name == "any":
        sys.stderr.write(f"bunri dump: data link type {LINK_TYPES[device.link][0]}\n")
    name = bunri.printable(device.name)  # whoever may rename interfaces may be somebody else
    sys.stderr.write(f"listening on {name}, {described(device.link)}, snapshot length {options.snap} bytes\n")
    sys.stderr.flush()
    output = Output(options, stack)
    output.open(device.link, options.snap)
    taken = _Taken(living)
    with _Signals(taken):
        try:
            for batch in living.batches(options.most):
                taken.packets += batch.packets
                output.take(batch)
                if output.full:
                    break
        except _Interrupted:
            pass
    sys.stdout.flush()
    if options.count:
        print(f"{taken.packets} packet{_s(taken.packets)}")
    taken.tell(long=True)
    if options.quarantine and any(living.lost):
        data = capture.file_header({12: 101}.get(device.link, device.link), options.snap, nanoseconds=style.nanoseconds)
        with open(options.quarantine, "wb") as file:
            file.write(data + b"".join(living.lost))
    return 0


def _s(count: int) -> str:
    return "" if count == 1 else "s"


class _Interrupted(BaseException):
    """Ctrl-C, SIGTERM, or SIGHUP."""


class _Taken:
    """The statistics."""

    def __init__(self, living: Living) -> None:
        self._living = living
        self.packets = 0

    def tell(self, *, long: bool) -> None:
        """As tcpdump tells them: three lines at the end, one line for SIGUSR1."""
        said = [f"{self.packets} packet{_s(self.packets)} captured"]
        try:
            counted = self._living.counted()
        except (TimeoutError, bunri.PeerError) as fault:
            complain(f"the kernel's counts cannot be had: {bunri.printable(str(fault) or 'no answer', limit=200)}")
        else:
            said += [
                f"{counted.received} packet{_s(counted.received)} received by filter",
                f"{counted.dropped} packet{_s(counted.dropped)} dropped by kernel",
            ]
        sys.stderr.write("\n".join(said) + "\n" if long else f"bunri dump: {', '.join(said)}\n")
        sys.stderr.flush()


class _Signals:
    """Ctrl-C, SIGTERM and SIGHUP end the capture, SIGUSR1 tells how far it is."""

    def __init__(self, taken: _Taken) -> None:
        self._taken = taken
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # as nohup wants it
            self._before[number] = signal.signal(number, self._tell if number == signal.SIGUSR1 else self._stop)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        raise _Interrupted

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._taken.tell(long=False)
