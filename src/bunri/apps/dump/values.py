"""Runs in: a program that wants packets as values. It opens the capture, or the packet socket; a confined decoder reads."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import bunri
from bunri.apps.dump.capture import MOST_CAPTURED
from bunri.apps.dump.decoder import MEMORY, LivePacketDecoder, PacketDecoder
from bunri.apps.dump.live import GONE, Ear, find, for_kernel, shape_for
from bunri.apps.dump.messages import BadCapture, BadExpression, Decoded, Instruction, Style
from bunri.apps.dump.monitor import PATIENCE_FOR_ONE, Failed, answer, begin, compile_expression
from bunri.apps.dump.reading import Stream, kind_of

_PIECE = 1 << 14  # bytes: what the values of its packets have of members is as much as one answer may have
_PATIENCE = 20.0  # seconds for one piece
_SIZES = {4: 4, 6: 16}  # bytes of an address, by version of IP


def packets(path: str | os.PathLike[str], expression: str = "", *, verbose: int = 0) -> Iterator[Decoded]:
    """The packets of a capture file (pcap or pcapng) that a filter expression lets through, in order.

    `ip` and `carried` (Segment, Datagram) are the outermost headers. The text is tcpdump's line for the packet, as
    `-n -t` with `verbose` times `-v` prints it; its characters are printable ASCII, line feeds and tabs, whatever the
    packet holds. All of it was made by a decoder that may be somebody's: what it says may be wrong.
    BadCapture where the file is none, is wrong somewhere or ends too soon, after what could be read of it;
    BadExpression; OSError where it cannot be opened. A packet on which the decoder ends or hangs ends the iteration with
    a PeerError (WorkerDied, DeadlineExceeded): what to do about it is the program's to say.

        for packet in packets("capture.pcap", "tcp"):
            if isinstance(packet.carried, Segment) and packet.carried.flags & 2:
                print(packet.number, ipaddress.ip_address(packet.ip.source), packet.text)
    """
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield from _packets(Stream(number), expression, verbose)
    finally:
        os.close(number)


def _packets(stream: Stream, expression: str, verbose: int) -> Iterator[Decoded]:
    try:
        kind = kind_of(stream)
    except Failed as failed:
        raise BadCapture(str(failed)) from None
    program: list[Instruction] = []
    if expression:
        try:
            program = compile_expression(expression, kind.link, kind.snap, optimize=True)
        except Failed as failed:
            raise BadExpression(str(failed)) from None
    style = Style(verbose=verbose, numeric=1, time=1, nanoseconds=True)
    with PacketDecoder.start(style, program) as worker:
        while chunk := stream.read():
            for start in range(0, len(chunk), _PIECE):
                with bunri.deadline(_PATIENCE):
                    found = worker.feed(chunk[start : start + _PIECE])
                for packet in found:
                    yield _checked(packet)
        worker.finish()


def listen(
    interface: str, expression: str = "", *, verbose: int = 0, snap: int = MOST_CAPTURED, buffer: int = 2 << 20
) -> Iterator[Decoded]:
    """The packets that arrive at an interface ("any": at every one), as `packets` gives those of a file.

    `snap` bytes of each are captured; the kernel has `buffer` bytes for those that are not taken yet, and drops what
    comes then. It takes CAP_NET_RAW. It goes on until the iterator is closed, or nobody has it any more: by then no
    process of it is left.
    OSError, with tcpdump's words, where the interface cannot be listened to or has gone away; BadExpression; PeerError
    where the decoder ends or hangs on a packet.

        for packet in listen("eth0", "udp port 53"):
            print(packet.text)
    """
    with ExitStack() as stack:
        try:
            yield from _heard(stack, interface, expression, verbose, snap, buffer)
        except Failed as failed:
            raise OSError(str(failed)) from None


def _heard(
    stack: ExitStack, interface: str, expression: str, verbose: int, snap: int, buffer: int
) -> Iterator[Decoded]:
    device = find(interface, "")
    program: list[Instruction] = []
    if expression:
        try:
            program = compile_expression(expression, device.link, snap, optimize=True)
        except Failed as failed:
            raise BadExpression(str(failed)) from None
    kernel, rest = for_kernel(program, device, expression, snap)
    ear = Ear(device, kernel, shape_for(device, snap, buffer, "", nanoseconds=True), stack)
    style = Style(verbose=verbose, numeric=1, time=1, nanoseconds=True)
    interfaces = dict(socket.if_nameindex()) if device.cooked == 2 else {}
    policy = LivePacketDecoder.policy.with_(memory=MEMORY + ear.length)
    worker = stack.enter_context(
        LivePacketDecoder.start_under(policy, style, rest, interfaces, ear.shape, *ear.maps(), ear.bell)
    )
    while True:
        before = ear.place()
        found = answer(begin(worker.batch), PATIENCE_FOR_ONE, ear.place)
        for packet in found:
            yield _checked(packet)
        if ear.is_gone() and before == ear.place():
            raise Failed(f"{interface}: {GONE}")


def _checked(packet: Decoded) -> Decoded:
    """A decoder may be somebody's: a terminal gets no more than text, and an address is as long as its version says."""
    text, ip = packet.text, packet.ip
    if not (text.isascii() and all(character.isprintable() or character in "\n\t" for character in text)):
        packet = replace(packet, text=bunri.printable(text, keep_newlines=True))
    if ip is not None and {len(ip.source), len(ip.target)} != {_SIZES.get(ip.version)}:
        packet = replace(packet, ip=None, carried=None)
    return packet
