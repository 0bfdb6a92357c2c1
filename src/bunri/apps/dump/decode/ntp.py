"""Runs in: the decoder, confined; pure. NTP (RFC 5905): time messages, and the head of control messages."""

from __future__ import annotations

import datetime

from bunri.apps.dump.decode.core import Dissector, u16, u32
from bunri.apps.dump.decode.text import characters, invalid

_MODES = {
    0: "unspecified", 1: "symmetric active", 2: "symmetric passive", 3: "Client", 4: "Server", 5: "Broadcast",
    6: "Control Message", 7: "Reserved",
}  # fmt: skip
_LEAPS = {0x00: "", 0x40: "+1s", 0x80: "-1s", 0xC0: "clock unsynchronized"}
_HEADER, _CONTROL = 48, 12
_EPOCH = datetime.datetime(1900, 1, 1)


def ntp(d: Dissector, o: int, length: int) -> None:
    """A message at `o`."""
    d.protocol = "ntp"
    status = d.buffer[o]
    mode = status & 7
    d.write(f"NTPv{status >> 3 & 7}, {_MODES[mode]}, length {length}")
    if not d.verbose:
        return
    leap = status & 0xC0
    d.write(f"\n\tLeap indicator: {_LEAPS[leap]} ({leap})")
    if mode < 6:
        _time(d, o, length)
    elif mode == 6:
        _control(d, o, length)


def _invalid(d: Dissector, o: int, length: int) -> None:
    invalid(d)
    if not d.has(o, length):
        d.mark()


def _signed(value: int) -> int:
    return value - 256 if value > 127 else value


def _time(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    w = d.write
    if length < _HEADER:
        _invalid(d, o, length)
        return
    stratum = b[o + 1]
    known = {0: "unspecified", 1: "primary reference"}.get(stratum)
    w(f", Stratum {stratum} ({known or ('secondary reference' if stratum <= 15 else 'reserved')})")
    poll = _signed(b[o + 2])
    w(f", poll {poll}")
    if -32 < poll < 32:
        w(f" ({1 << poll}s)" if poll >= 0 else f" (1/{1 << -poll}s)")
    w(f", precision {_signed(b[o + 3])}")
    for title, at in (("\n\tRoot Delay: ", 4), (", Root dispersion: ", 8)):
        if not d.has(o + at, 4):
            d.mark()
            return
        w(f"{title}{u16(b, o + at)}.{int(u16(b, o + at + 2) / 65536 * 1000000):06}")
    if not d.has(o + 12, 4):
        d.mark()
        return
    w(", Reference-ID: ")
    if stratum == 0:
        w("(unspec)")
    elif stratum == 1:
        characters(d, o + 12, 4)
    elif stratum in (62, 63):
        w(f"{d.ip4[b[o + 12 : o + 16]]} INFO_{'QUERY' if stratum == 62 else 'REPLY'}")
        return
    else:
        w(f"0x{u32(b, o + 12):08x}")
    _stamps(d, o, length)


def _stamps(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    for title, at in (("Reference Timestamp:  ", 16), ("Originator Timestamp: ", 24), ("Receive Timestamp:    ", 32),
                      ("Transmit Timestamp:   ", 40)):  # fmt: skip
        if not d.has(o + at, 8):
            d.mark()
            return
        d.write(f"\n\t  {title}{_stamp(b, o + at)}")
    d.write(f"\n\t    Originator - Receive Timestamp:  {_difference(b, o + 24, o + 32)}")
    d.write(f"\n\t    Originator - Transmit Timestamp: {_difference(b, o + 24, o + 40)}")
    left = length - _HEADER
    if left in (4, 20, 24):
        d.write(f"\n\tKey id: {u32(b, o + 48)}")
        if left > 4:
            if not d.has(o + 52, left - 4):
                d.mark()
                return
            d.write(f"\n\tAuthentication: {b[o + 52 : o + 48 + left].hex()}")
    elif left:
        d.write(f"\n\t({left} more bytes after the header)")


def _billionths(fraction: int) -> int:
    return int(fraction / 4294967296.0 * 1000000000.0)


def _stamp(b: bytes, o: int) -> str:
    second, fraction = u32(b, o), u32(b, o + 4)
    text = f"{second}.{_billionths(fraction):09}"
    if second:
        text += f" ({(_EPOCH + datetime.timedelta(seconds=second)).isoformat(timespec='seconds')}Z)"
    return text


def _difference(b: bytes, old: int, new: int) -> str:
    """New less old; where there is no old one, the new one."""
    before, after = (u32(b, old), u32(b, old + 4)), (u32(b, new), u32(b, new + 4))
    if before == (0, 0):
        return _stamp(b, new)
    first, last = before[0] << 32 | before[1], after[0] << 32 | after[1]
    size = abs(last - first)
    return f"{'+' if last > first else '-'}{size >> 32}.{_billionths(size & 0xFFFFFFFF):09}"


def _control(d: Dissector, o: int, length: int) -> None:
    b = d.buffer
    w = d.write
    if length < _CONTROL:
        _invalid(d, o, length)
        return
    control = b[o + 1]
    w(
        f", {'Response' if control & 0x80 else 'Request'}, {'Error' if control & 0x40 else 'OK'}, "
        f"{'More' if control & 0x20 else 'Last'}, OpCode={control & 31}\n"
    )
    w(f"\tSequence={u16(b, o + 2)}")
    status = u16(b, o + 4)
    w(f", Status={f'0x{status:x}' if status else '0'}")
    for title, at in (("Assoc.", 6), ("Offset", 8), ("Count", 10)):
        w(f", {title}={u16(b, o + at)}")
    count = u16(b, o + 10)
    if _CONTROL + count > length:
        _invalid(d, o, length)
    elif count:
        if not d.has(o + 12, count):
            d.mark()
            return
        # tcpdump's own words.
        w("\n\tTO-BE-DONE: data not interpreted")
