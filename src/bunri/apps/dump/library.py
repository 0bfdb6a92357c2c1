"""Runs in: a program that wants packets as values. It opens the capture; a confined decoder reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import bunri
from bunri.apps.dump.command import beginning, kind_of
from bunri.apps.dump.decoder import PacketDecoder
from bunri.apps.dump.messages import BadCapture, BadExpression, Decoded, Instruction, Style
from bunri.apps.dump.monitor import CHUNK, Failed, compile_expression

_PATIENCE = 20.0  # seconds for one piece


def packets(path: str | os.PathLike[str], expression: str = "", *, verbose: int = 0) -> Iterator[Decoded]:
    """The packets of a capture file (pcap or pcapng) that a filter expression lets through, in order.

    The text is tcpdump's line for the packet, as `-n -t` with `verbose` times `-v` prints it; its characters are
    printable ASCII, line feeds and tabs, whatever the packet holds. BadCapture where the file is none or ends too
    soon, after what could be read of it; BadExpression; OSError where it cannot be opened. A packet that ends the
    decoder ends the iteration with WorkerDied: what to do about it is the program's to say.

        for packet in packets("capture.pcap", "udp port 53"):
            print(packet.number, packet.text)
    """
    with open(path, "rb") as stream:
        head = beginning(stream)
        try:
            kind = kind_of(head)
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
            chunk = head
            while chunk:
                with bunri.deadline(_PATIENCE):
                    found = worker.feed(chunk)
                for packet in found:
                    # A decoder may be somebody's: a terminal gets no more than text.
                    yield packet if _plain(packet.text) else _escaped(packet)
                chunk = stream.read1(CHUNK)
            worker.finish()


def _plain(text: str) -> bool:
    return text.isascii() and all(character.isprintable() or character in "\n\t" for character in text)


def _escaped(packet: Decoded) -> Decoded:
    return Decoded(
        packet.number, packet.second, packet.nanosecond, packet.length, packet.data,
        bunri.printable(packet.text, keep_newlines=True),
    )  # fmt: skip
