"""Runs in: the decoder, confined; pure. Domain names as they stand in messages (RFC 1035 4.1.4), compressed or not.

A message may be made of thousands of names that are each a chain of thousands of pointers, or of labels behind the part
of a name that is printed. Where such a chain leads is remembered for the message, so that each of its bytes is walked
over once, whatever it is made of.
"""

from __future__ import annotations

from collections.abc import Callable

from bunri.apps.dump.decode.core import Dissector, shown
from bunri.apps.dump.decode.text import characters

_KIND, _POINTER, _EXTENDED, _RESERVED = 0xC0, 0xC0, 0x40, 0x80
_BITS = 1  # the one extended label there ever was (RFC 2673)
MOST = 255
REMEMBERED = 4096  # names


class Chains:
    """Where pointers and labels of one message lead that print nothing."""

    def __init__(self, buffer: bytes, start: int) -> None:
        self._buffer = buffer
        self._start = start
        self._labels: dict[int, int] = {}
        self._pointers: dict[int, int] = {}
        self._both: dict[int, int] = {}

    def are_of(self, buffer: bytes, start: int) -> bool:
        """Whether it is this message."""
        return self._buffer is buffer and self._start == start

    def past_labels(self, at: int) -> int:
        """Where the first thing stands from `at` on that is no ordinary label."""
        return _followed(self._labels, at, self._label)

    def past_pointers(self, target: int) -> int:
        """The target of the last pointer, where a pointer has this one and what stands there is a pointer again."""
        return _followed(self._pointers, target, lambda each: self._pointer(each, self._start + each))

    def past_both(self, target: int) -> int:
        """The same, where labels may stand before the pointers."""
        return _followed(self._both, target, lambda each: self._pointer(each, self.past_labels(self._start + each)))

    def _label(self, at: int) -> int:
        b = self._buffer
        return at + 1 + b[at] if at + 1 < len(b) and b[at] < _EXTENDED and b[at] else at

    def _pointer(self, target: int, at: int) -> int:
        """The target of the pointer at `at`, if one is there that leads backwards from `target`; else `target`."""
        b = self._buffer
        if at + 1 >= len(b) or b[at] & _KIND != _POINTER:
            return target
        return min((b[at] << 8 | b[at + 1]) & 0x3FFF, target)


def _followed(known: dict[int, int], at: int, step: Callable[[int], int]) -> int:
    """Where steps lead from `at` until one stays where it is."""
    passed: list[int] = []
    while (end := known.get(at, -1)) < 0:
        passed.append(at)
        following = step(at)
        if following == at:
            end = at
            break
        at = following
    for each in passed:
        known[each] = end
    return end


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
    end = d.buffer.find(0, at, at + MOST + 1) + 1
    text = d.names.get(d.buffer[at:end])
    return (text, end) if text is not None else ("", 0)


def chains(d: Dissector, start: int) -> Chains:
    """Those of the message at work, which begins at `start`."""
    found = d.chains
    if not (isinstance(found, Chains) and found.are_of(d.buffer, start)):
        found = d.chains = Chains(d.buffer, start)
    return found


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
            if long > MOST:
                bound = chains(d, start).past_both(target)
                at = chains(d, start).past_labels(start + bound)
            elif at < len(b) and b[at] >= _POINTER:
                bound = chains(d, start).past_pointers(target)
                at = start + bound
        else:
            if size & _KIND == _EXTENDED:
                _bits(d, at)
            else:
                long = _characters(d, at, step, long)
            at += step
            if long <= MOST:
                w(".")
            else:
                at = chains(d, start).past_labels(at)
            long += 1
        step = _label(d, at)
        size = b[at]
        at += 1
        if not compressed:
            end = at + step
    if long > MOST:
        w("<DOMAIN NAME TOO LONG>")
    if end < 0:
        raise Unreadable
    if not compressed and end == b.find(0, first) + 1 <= first + MOST + 1:
        # The same bytes up to the first zero are the same name wherever they stand.
        if len(d.names) >= REMEMBERED:
            d.names.clear()
        d.names[b[first:end]] = "".join(d.lines[before:])
    return end


def _characters(d: Dissector, at: int, size: int, long: int) -> int:
    """A label, as far as a name may be long; how long the name is now."""
    room = MOST - long
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
