"""Runs in: the monitor, with the user's rights. `bunri dump`: arguments in, tcpdump's output out."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec.structs import replace

import bunri
from bunri.apps.dump import bpf
from bunri.apps.dump.decoder import Decoder
from bunri.apps.dump.linktypes import ETHERNET, described, number_of
from bunri.apps.dump.messages import Cursor, Job, Kind, Names, Style
from bunri.apps.dump.monitor import Failed, Interrupted, Signals, compile_expression, complain, names_for
from bunri.apps.dump.options import BadOption, Options, parse
from bunri.apps.dump.output import LeftOut, Output, flush, show, stand_in
from bunri.apps.dump.reading import Reading, Stream, beginning, wanted
from bunri.apps.dump.usage import HELP, USAGE

_ZONES = Path("/usr/share/zoneinfo")


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status: 0, 1 it failed, left packets out or was called wrongly, 14 it could not write."""
    stand_in()
    try:
        options = parse(arguments)
    except BadOption as bad:
        complain(str(bad))
        if bad.usage:
            sys.stderr.write(USAGE)
        return 1
    try:
        status = _run(options)
        flush()
    except Failed as failed:
        with suppress(Failed):  # one sentence is enough
            flush()
        complain(str(failed))
        return failed.status
    return status


def _run(options: Options) -> int:
    if options.action == "help":
        print(HELP, end="")
    elif options.action == "version":
        print(f"bunri dump version {bunri.__version__}, prints as tcpdump 4.99.3")
    elif options.action == "interfaces":
        from bunri.apps.dump.interfaces import interfaces

        show("".join(f"{number}.{each}\n" for number, each in enumerate(interfaces(), 1)).encode())
    elif options.read:
        return _read(options)
    elif options.listing and not options.interface:
        _list(options, number_of(options.link) if options.link else None)
    else:
        options.owner = _owner(options.user)
        from bunri.apps.dump import live

        return live.run(options, style_here(options.style))
    return 0


def _list(options: Options, link: int | None) -> None:
    """-d of packets that nobody named."""
    if link is None:
        sys.stderr.write("Warning: assuming Ethernet\n")
    program = compile_expression(options.expression, link or ETHERNET, options.snap, optimize=options.optimize)
    show(bpf.listing(program, min(options.listing, 3)).encode())


def _owner(user: str | None) -> tuple[int, int] | None:
    """-Z: whose the files of -w are, where root made them."""
    if user is None or os.geteuid() != 0:
        return None
    import pwd

    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise Failed(f"Couldn't find user '{user}'") from None
    return found.pw_uid, found.pw_gid


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
    with ExitStack() as stack:
        number = 0
        if options.read != "-":
            try:
                number = os.open(options.read, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as fault:
                raise Failed(f"{options.read}: {fault.strerror}") from None
            stack.callback(os.close, number)
        if options.self_confine:
            from bunri.apps.dump import selfconfine

            return selfconfine.read(Stream(number), options, style_here(options.style))
        return _reading(Stream(number), options, stack)


def _reading(stream: Stream, options: Options, stack: ExitStack) -> int:
    signals = stack.enter_context(Signals())
    prints = options.prints if options.write else not options.count
    job = Job(style_here(options.style), [], prints, bool(options.write), {})
    names = names_for(stack, options.style.numeric)
    decoder = _decoder_for(job, names, stack)
    try:
        with signals.waiting():
            kind = beginning(decoder, stream)
    except Interrupted:
        return 0
    _announce(options.read, kind)
    program = wanted(kind, options)
    if program is None:
        return 0
    options.owner = _owner(options.user)
    interfaces = dict(socket.if_nameindex()) if kind.link == 276 else {}
    if program or interfaces:  # what the first decoder could not be told
        job = replace(job, program=program, interfaces=interfaces)
        decoder.close()
        decoder = _decoder_for(job, names, stack)
    left_out = LeftOut(options.quarantine, stack, signals)
    output = Output(options, stack, signals)
    output.open(kind.link, kind.snap)
    left_out.open(kind.link, kind.snap, nanoseconds=options.style.nanoseconds)
    reading = Reading(stream, job, names, options.most, left_out, decoder, signals)
    return _print(reading, output, left_out, options, signals)


def _announce(name: str, kind: Kind) -> None:
    flush()
    said = f"reading from file {name}, {described(kind.link)}, snapshot length {kind.snap}"
    sys.stderr.write(bunri.printable(said) + "\n")
    if kind.link == 276:
        sys.stderr.write("Warning: interface names might be incorrect\n")
    sys.stderr.flush()


def _decoder_for(job: Job, names: Names | None, stack: ExitStack) -> Decoder:
    decoder = Decoder.start(job, Cursor(), names)
    stack.callback(decoder.close)
    return decoder


def _print(reading: Reading, output: Output, left_out: LeftOut, options: Options, signals: Signals) -> int:
    matched = 0
    fault = ""
    failed: Failed | None = None
    try:
        for batch in reading.batches():
            output.take(batch)
            matched += batch.packets
            fault = batch.fault
            if signals.came or output.full:
                break
    except Interrupted:
        pass
    except Failed as told:
        failed = told
    except bunri.HostError as told:  # as where this host lets no decoder be started any more
        failed = Failed(str(told))
    if options.count:
        show(f"{matched} packet{'' if matched == 1 else 's'}\n".encode())
    output.finish()
    left_out.finish()
    if failed is not None:
        raise failed
    if fault:
        raise Failed(f"pcap_loop: {bunri.printable(fault, limit=300)}")
    return 1 if left_out.count else 0
