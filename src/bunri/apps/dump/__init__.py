"""Runs in: every process of `bunri dump`: tcpdump, with a decoder that holds nothing.

monitor.py      the user's process: opens files and the packet socket, starts the others, passes bytes along
  command.py    its arguments; options.py, output.py, selfconfine.py belong to it
  reading.py    a capture file; live.py a living capture: what keeps their decoders going
opener.py       holds the packet socket: binds it, filters it, waits for it; sees no packet
compiler.py     a worker for one filter expression: libpcap
decoder.py      packets in, text out: no file, no network, no packet socket
  work.py       what is done with each packet; decode/ one module for each protocol
  capture.py    capture files; ring.py the kernel's ring
writer.py       appends records to a file that it is handed
resolver.py     names for addresses, without -n
bpf.py          the machine that filters run on: the monitor checks with it, the decoder runs it
messages.py     what travels between them
values.py       for programs: `for packet in bunri.apps.dump.packets(path)`, or `.listen(interface)`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bunri.apps.dump.messages import BadCapture as BadCapture
    from bunri.apps.dump.messages import BadExpression as BadExpression
    from bunri.apps.dump.messages import Datagram as Datagram
    from bunri.apps.dump.messages import Decoded as Decoded
    from bunri.apps.dump.messages import Network as Network
    from bunri.apps.dump.messages import Segment as Segment
    from bunri.apps.dump.values import listen as listen
    from bunri.apps.dump.values import packets as packets

__all__ = ["BadCapture", "BadExpression", "Datagram", "Decoded", "Network", "Segment", "listen", "packets"]


def __getattr__(name: str) -> Any:
    # Later, since this package is also imported by its workers, which must not know the monitor's modules.
    if name in ("listen", "packets"):
        from bunri.apps.dump import values

        return getattr(values, name)
    if name in __all__:
        from bunri.apps.dump import messages

        return getattr(messages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
