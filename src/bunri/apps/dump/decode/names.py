"""Runs in: the decoder, confined; pure. Domain names as they stand in messages (RFC 1035 4.1.4), compressed or not."""

from __future__ import annotations

from bunri.apps.dump.decode.core import Dissector, shown
from bunri.apps.dump.decode.text import characters

_KIND, _POINTER, _EXTENDED, _RESERVED = 0xC0, 0xC0, 0x40, 0x80
_BITS = 1  # the one extended label there ever was (RFC 2673)
_MOST = 255
_REMEMBERED = 4096  # names


class Unreadable(Exception):
    """A name, or what follows from it, cannot be read: the message ends here."""


def skip(d: Dissector, at: int) -> int:
    """Where the name at `at` ends."""
    b = d.buffer
    end = len(b)
    while True:
        if at >= end:
            raise Unreadable
        size = b[at]
        at += 1
        if size == 0:
            return at
        kind = size & _KIND
        if kind == _POINTER:
            return at + 1
        if kind == 0:
            at += size
        elif kind == _EXTENDED:
            if size & 63 != _BITS or at >= end:
                raise Unreadable
            at += 1 + ((b[at] or 256) + 7) // 8
        else:
            raise Unreadable


def _label(d: Dissector, at: int) -> int:
    """How many bytes the label at `at` has behind its first."""
    b = d.buffer
    if at >= len(b):
        raise Unreadable
    size = b[at]
    kind = size & _KIND
    if kind in (0, _POINTER):
        return size
    if kind == _RESERVED:
        d.write("<BAD LABEL TYPE>")
        raise Unreadable
    if size & 63 != _BITS:
        d.write(f"<ELT {size & 63}>")
        raise Unreadable
    if at + 1 >= len(b):
        raise Unreadable
    return ((b[at + 1] or 256) + 7) // 8 + 1


def seen(d: Dissector, at: int) -> tuple[str, int]:
    """The text of the name at `at` and where it ends, if it is one that stood whole in a packet before; else 0."""
    end = d.buffer.find(0, at) + 1
    text = d.names.get(d.buffer[at:end])
    return (text, end) if text is not None else ("", 0)


def name(d: Dissector, at: int, start: int) -> int:
    """Print a name of the message that begins at `start`; where the name ends. A pointer leads backwards, or nowhere."""
    text, end = seen(d, at)
    if end:
        d.write(text)
        return end
    b = d.buffer
    w = d.write
    first, before = at, len(d.lines)
    step = _label(d, at)
    bound = at - start & 0xFFFFFFFF  # one option says that its message begins behind it: as in tcpdump, no bound then
    size = b[at]
    at += 1
    if size == 0:
        w(".")
        return at
    compressed = False
    end = -1 if size & _KIND == _POINTER else at + step
    long = 0
    while size and at < len(b):
        if size & _KIND == _POINTER:
            if not compressed:
                end, compressed = at + 1, True
            target = (size << 8 | b[at]) & 0x3FFF
            if target >= bound:
                w("<BAD PTR>")
                raise Unreadable
            bound = target
            at = start + target
            step = _label(d, at)
            size = b[at]
            at += 1
            continue
        if size & _KIND == _EXTENDED:
            _bits(d, at)
        else:
            long = _characters(d, at, step, long)
        at += step
        if long <= _MOST:
            w(".")
        long += 1
        step = _label(d, at)
        size = b[at]
        at += 1
        if not compressed:
            end += step + 1
    if long > _MOST:
        w("<DOMAIN NAME TOO LONG>")
    if end < 0:
        raise Unreadable
    if not compressed and end == b.find(0, first) + 1 <= first + _MOST + 1:
        # The same bytes up to the first zero are the same name wherever they stand.
        if len(d.names) >= _REMEMBERED:
            d.names.clear()
        d.names[b[first:end]] = "".join(d.lines[before:])
    return end


def _characters(d: Dissector, at: int, size: int, long: int) -> int:
    """A label, as far as a name may be long; how long the name is now."""
    room = _MOST - long
    if size <= room:
        piece = d.buffer[at : at + size]
        d.write(piece.decode() if piece.isalnum() and piece.isascii() else shown(piece))
        if len(piece) < size:
            raise Unreadable
    elif room > 0 and not characters(d, at, room):
        raise Unreadable
    return long + size


def _bits(d: Dissector, at: int) -> None:
    b = d.buffer
    if at >= len(b):
        raise Unreadable
    count = b[at] or 256
    d.write("\\[x")
    left = count
    end = at + 1 + (count + 3) // 4
    at += 1
    while at < end and left > 7:
        d.write(f"{b[at]:02x}")
        at += 1
        left -= 8
    if left > 4:
        d.write(f"{b[at] & 0xFF << 8 - left:02x}")
    elif left > 0:
        d.write(f"{b[at] >> 4 & 0x0F << 4 - left:x}")
    d.write(f"/{count}]")
