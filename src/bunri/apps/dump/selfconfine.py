"""Runs in: one process, which opens its capture with the user's rights and then gives all of them up for ever.

The pattern of tcpdump itself: `--self-confine`. One process is less than several: whoever owns it still holds what it
opened, where the decoder of the other mode holds nothing. But no file can be opened any more, and no other interface
listened to, which tcpdump's own drop of its uid leaves possible.
"""

from __future__ import annotations

import io
import sys

import bunri
from bunri.apps.dump.capture import Capture
from bunri.apps.dump.linktypes import described
from bunri.apps.dump.messages import BadCapture, Cursor, Instruction, Job, Style
from bunri.apps.dump.monitor import CHUNK, Failed, compile_expression, safe
from bunri.apps.dump.options import Options
from bunri.apps.dump.work import Work


def read(stream: io.BufferedReader, options: Options, style: Style) -> int:
    """Print a capture file."""
    from bunri.apps.dump.command import beginning, kind_of

    head = beginning(stream)
    kind = kind_of(head)  # the zygotes that this takes end with `confine`
    program: list[Instruction] = []
    if options.expression:
        program = compile_expression(options.expression, kind.link, kind.snap, optimize=options.optimize)
    said = f"reading from file {options.read}, {described(kind.link)}, snapshot length {kind.snap}"
    sys.stderr.write(bunri.printable(said) + "\n")
    sys.stderr.flush()
    work = Work(Job(style, program, not options.count, False, {}), Cursor(), None)
    work.set_link(kind.link)
    source = Capture(Cursor(), 9 if style.nanoseconds else 6)
    bunri.confine(bunri.Policy(memory="512M", cpu=None), keep=(0, 1, 2, stream.fileno()))
    matched = 0
    chunk = head
    while chunk:
        work.begin(options.most - matched if options.most >= 0 else -1)
        fault = ""
        places = source.places(chunk)
        try:
            for place in places:
                work.take(*place)
                if work.full:
                    break
        except BadCapture as bad:
            fault = bad.said
        places.close()
        batch = work.end(source.cursor, fault)
        matched += batch.packets
        sys.stdout.buffer.write(safe(batch.text))
        if batch.fault:
            sys.stdout.flush()
            raise Failed(f"pcap_loop: {batch.fault}")
        if batch.done:
            break
        chunk = stream.read1(CHUNK)
    if options.count:
        print(f"{matched} packet{'' if matched == 1 else 's'}")
    sys.stdout.flush()
    return 0
