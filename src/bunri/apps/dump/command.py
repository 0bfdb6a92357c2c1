"""Runs in: the monitor, with the user's rights. `bunri dump`: arguments in, tcpdump's output out."""

from __future__ import annotations

import io
import os
import signal
import socket
import stat
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType

import bunri
from bunri.apps.dump import capture
from bunri.apps.dump.decoder import Decoder
from bunri.apps.dump.linktypes import LINK_TYPES, described, number_of
from bunri.apps.dump.messages import Cursor, Instruction, Job, Kind, Names, Style
from bunri.apps.dump.monitor import CHUNK, LONG, Failed, Reading, Source, compile_expression, complain, names_for
from bunri.apps.dump.options import BadOption, Options, parse
from bunri.apps.dump.output import Output
from bunri.apps.dump.usage import HELP

_ZONES = Path("/usr/share/zoneinfo")


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status: 0, 1 it failed, 2 it was called wrongly."""
    try:
        options = parse(arguments)
    except BadOption as bad:
        complain(str(bad))
        return 2
    except OSError as fault:
        complain(f"{fault.filename}: {fault.strerror}")
        return 1
    try:
        return _run(options)
    except Failed as failed:
        sys.stdout.flush()
        complain(str(failed))
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _run(options: Options) -> int:
    if options.action == "help":
        print(HELP, end="")
    elif options.action == "version":
        print(f"bunri dump {bunri.__version__}\nprints as tcpdump 4.99.3")
    elif options.action == "interfaces":
        found = socket.if_nameindex()
        for index, name in found:
            print(f"{index}.{bunri.printable(name)}")
        last = max((index for index, _ in found), default=0)
        print(f"{last + 1}.any (Pseudo-device that captures on all interfaces)")
    elif options.read:
        return _read(options)
    else:
        from bunri.apps.dump import live

        return live.run(options, style_here(options.style))
    return 0


def style_here(style: Style) -> Style:
    """With what only this host knows: its time zone and, without -n, its names of ports."""
    services: dict[str, dict[int, str]] = {"tcp": {}, "udp": {}}
    if not style.numeric:
        for kind, port, name in _services():
            services[kind].setdefault(port, name)
    return replace(style, zone=_zone(), services=services)


def _services() -> list[tuple[str, int, str]]:
    try:
        lines = Path("/etc/services").read_text(errors="replace").splitlines()
    except OSError:
        return []
    found: list[tuple[str, int, str]] = []
    for line in lines:
        words = line.partition("#")[0].split()
        port, _, kind = words[1].partition("/") if len(words) > 1 else ("", "", "")
        if kind in ("tcp", "udp") and port.isdigit():
            found.append((kind, int(port), bunri.printable(words[0], limit=60)))
    return found


def _zone() -> bytes:
    """The local time zone's file: the decoder can open none. Empty where TZ is a rule or there is no file (UTC)."""
    name = os.environ.get("TZ")
    path = Path("/etc/localtime") if name is None else _ZONES / name.removeprefix(":")
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    return data if data.startswith(b"TZif") else b""


def _read(options: Options) -> int:
    """-r: a capture file, or standard input."""
    try:
        stream = open(0 if options.read == "-" else options.read, "rb", closefd=options.read != "-")  # noqa: SIM115
    except OSError as fault:
        raise Failed(f"{options.read}: {fault.strerror}") from None
    if options.self_confine:
        from bunri.apps.dump import selfconfine

        return selfconfine.read(stream, options, style_here(options.style))
    with ExitStack() as stack:
        if options.read != "-":
            stack.callback(stream.close)
        return _reading(stream, options, stack)


def _reading(stream: Source, options: Options, stack: ExitStack) -> int:
    head = beginning(stream)
    prints = not options.count and (not options.write or options.prints)
    job = Job(style_here(options.style), [], prints, bool(options.write), {})
    names = names_for(stack, options.style.numeric)
    decoder = _decoder_for(job, names, stack)
    kind = told_by(decoder, head)
    _announce(options.read, kind)
    if options.action == "links":
        name, text = LINK_TYPES.get(kind.link, (f"DLT {kind.link}", ""))
        print(f"Data link types for {options.read} (use option -y to set):\n  {name} ({text})")
        return 0
    if options.link and number_of(options.link) != kind.link:
        raise Failed(f"data link type {options.link} is not that of the file")
    program: list[Instruction] = []
    if options.expression or options.listing:
        program = compile_expression(options.expression, kind.link, kind.snap, optimize=options.optimize)
    if options.listing:
        from bunri.apps.dump.bpf import listing

        print(listing(program, min(options.listing, 3)), end="")
        return 0
    interfaces = dict(socket.if_nameindex()) if kind.link == 276 else {}
    if program or interfaces:  # what the first decoder could not be told
        job = replace(job, program=program, interfaces=interfaces)
        decoder.close()
        decoder = _decoder_for(job, names, stack)
    reading = Reading(Prefixed(head, stream), job, names, options.most, decoder, long=is_long(stream))
    output = Output(options, stack)
    output.open(kind.link, kind.snap)
    return _print(reading, output, options, kind)


def _announce(name: str, kind: Kind) -> None:
    sys.stdout.flush()
    said = f"reading from file {name}, {described(kind.link)}, snapshot length {kind.snap}"
    sys.stderr.write(bunri.printable(said) + "\n")
    if kind.link == 276:
        sys.stderr.write("Warning: interface names might be incorrect\n")
    sys.stderr.flush()


def _decoder_for(job: Job, names: Names | None, stack: ExitStack) -> Decoder:
    decoder = Decoder.start(job, Cursor(), names)
    stack.callback(decoder.close)
    return decoder


def _print(reading: Reading, output: Output, options: Options, kind: Kind) -> int:
    matched = 0
    fault = ""
    ended = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        for batch in reading.batches():
            output.take(batch)
            matched += batch.packets
            fault = batch.fault
            if ended or output.full:
                break
    finally:
        signal.signal(signal.SIGINT, before)
    sys.stdout.flush()
    if options.count:
        print(f"{matched} packet{'' if matched == 1 else 's'}")
    report_lost(reading, options, kind)
    if fault:
        raise Failed(f"pcap_loop: {bunri.printable(fault, limit=300)}")
    return 0


def is_long(stream: Source) -> bool:
    """A file in which there is enough to do for two decoders, where each has a processor, and this process too.

    On two processors that others used as well, two decoders took longer than one."""
    if len(os.sched_getaffinity(0)) < 3 or not isinstance(stream, io.BufferedReader):
        return False
    status = os.fstat(stream.fileno())
    return stat.S_ISREG(status.st_mode) and status.st_size >= LONG


def report_lost(reading: Reading, options: Options, kind: Kind) -> None:
    """Packets that no decoder survived."""
    for lost in reading.lost:
        complain(f"packet {lost.number} was left out: {lost.cause}")
    if options.quarantine and reading.quarantined:
        nano = options.style.nanoseconds
        data = capture.file_header({12: 101}.get(kind.link, kind.link), kind.snap, nanoseconds=nano)
        Path(options.quarantine).write_bytes(data + b"".join(reading.quarantined))


def beginning(stream: Source) -> bytes:
    """Enough of the file to know what it is."""
    head = b""
    while len(head) < CHUNK:
        more = stream.read1(CHUNK - len(head))
        head += more
        if not more or len(head) >= 4096:
            break
    return head


def kind_of(head: bytes) -> Kind:
    """Link type and length, for whoever has no use for the decoder that told them."""
    job = Job(Style(), [], prints=False, records=False, interfaces={})
    with Decoder.start(job, Cursor(), None) as worker:
        return told_by(worker, head)


def told_by(worker: Decoder, head: bytes) -> Kind:
    """Link type and length: read by a decoder, as all that is in the file. A capture without packets has them too."""
    try:
        with bunri.deadline(20):
            kind = worker.kind(head)
    except bunri.PeerError as fault:
        raise Failed(f"the beginning of the file could not be read: {fault}") from None
    if kind.fault:
        raise Failed(bunri.printable(kind.fault, limit=300))
    return kind


class Prefixed:
    """A stream of which the beginning was read already."""

    def __init__(self, head: bytes, stream: Source) -> None:
        self._head = head
        self._stream = stream

    def read1(self, size: int = -1) -> bytes:
        """The next bytes."""
        head, self._head = self._head, b""
        return head or self._stream.read1(size)
