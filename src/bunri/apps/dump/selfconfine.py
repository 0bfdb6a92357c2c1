"""Runs in: one process, which opens its capture with the user's rights and then gives all of them up for ever.

The pattern of tcpdump itself: `--self-confine`. One process is less than several: whoever owns it still holds what it
opened, where the decoder of the other mode holds nothing. But no file can be opened any more, and no other interface
listened to, which tcpdump's own drop of its uid leaves possible.
"""

from __future__ import annotations

import sys

import bunri
from bunri.apps.dump.capture import Capture
from bunri.apps.dump.linktypes import described
from bunri.apps.dump.messages import BadCapture, Batch, Cursor, Job, Style
from bunri.apps.dump.monitor import Failed, Interrupted, Signals, safe
from bunri.apps.dump.options import Options
from bunri.apps.dump.output import flush, nowhere, show
from bunri.apps.dump.reading import Stream, kind_of, wanted
from bunri.apps.dump.work import Work


def read(stream: Stream, options: Options, style: Style) -> int:
    """Print a capture file."""
    kind = kind_of(stream)  # the zygotes that this takes end with `confine`
    said = f"reading from file {options.read}, {described(kind.link)}, snapshot length {kind.snap}"
    sys.stderr.write(bunri.printable(said) + "\n")
    sys.stderr.flush()
    program = wanted(kind, options)
    if program is None:
        return 0
    work = Work(Job(style, program, not options.count, False, {}), Cursor(), None)
    work.set_link(kind.link)
    source = Capture(Cursor(), 9 if style.nanoseconds else 6)
    flushes = options.line_buffered or sys.stdout.isatty()
    matched = 0
    fault = ""
    with Signals() as signals:
        bunri.confine(bunri.Policy(memory="512M", cpu=None), keep=(0, 1, 2, stream.number, nowhere()))
        try:
            while matched != options.most and not fault:
                with signals.waiting():
                    chunk = stream.read()
                if not chunk:
                    fault = source.finish()
                    break
                batch = _piece(source, work, chunk, options.most - matched if options.most >= 0 else -1)
                matched += batch.packets
                fault = batch.fault
                show(safe(batch.text), now=flushes)
        except Interrupted:
            pass
    if options.count:
        show(f"{matched} packet{'' if matched == 1 else 's'}\n".encode())
    flush()
    if fault:
        raise Failed(f"pcap_loop: {bunri.printable(fault, limit=300)}")
    return 0


def _piece(source: Capture, work: Work, chunk: bytes, most: int) -> Batch:
    """What the capture's next bytes make."""
    work.begin(most)
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
    return work.end(source.cursor, fault)
