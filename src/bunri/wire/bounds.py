"""Runs in: every process. The bounds of a message, and the scan that keeps them (THREATS 24).

Decoding hostile bytes is the monitor's attack surface: one mebibyte of empty lists becomes a hundred mebibytes of
Python objects, a list of lists of lists ends the C stack, and integers picked so that they collide turn a dict into
minutes of work. Every bound stands here and is counted before the value is built.
"""

from __future__ import annotations

from typing import Final

from bunri.errors import UsageError

ITEMS: Final = 65_536  # objects in one value; a body of that many bytes cannot hold more
NESTING: Final = 32  # containers inside each other
HANDLES: Final = 16  # descriptors and services in one message
DIGITS: Final = 64  # of a Decimal
EXPONENT: Final = 6144  # of a Decimal, as in IEEE decimal128
OPEN_KEYS: Final = 8_192  # keys of one dict or set whose hash an attacker can compute (all but str, bytes and dates)
EQUAL_HASHES: Final = 8  # such keys with one and the same hash
BLOB: Final = 32_768  # bytes from which an argument, a result, or a field of a result travels beside the body
UNIT: Final = {"": 1, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class Fault(Exception):
    """A value that may not cross. Never leaves the wire: it becomes a UsageError or a ProtocolError, with a path."""

    def __init__(self, text: str, path: str = "") -> None:
        self.path = path
        super().__init__(text)


def parse_size(text: str) -> int:
    """The bytes in a size such as "64K", "1M" or "2G" (powers of 1024)."""
    cleaned = text.strip().upper().removesuffix("IB")
    number, unit = cleaned.rstrip("BKMG"), cleaned.lstrip("0123456789")
    if not (number.isascii() and number.isdigit()) or unit not in UNIT:
        raise UsageError(f"{text!r} is not a size: write a whole number and B, K, M or G, such as '64K' or '1M'")
    return int(number) * UNIT[unit]


# How many bytes stand between the first byte of a msgpack object and its payload's length, per kind of first byte.
_SKIP: Final = {  # first byte -> bytes of payload that follow
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bytes and str: width of the length field
_ARRAY: Final = {0xDC: 2, 0xDD: 4}
_MAP: Final = {0xDE: 2, 0xDF: 4}


def scan(body: bytes) -> None:
    """Refuse a body with more than ITEMS objects or NESTING levels, without building any of them.

    The work is bounded by ITEMS steps, however long the body is. Whether the rest of it is well formed is the typed
    decoder's business.
    """
    at, end, seen = 0, len(body), 0
    open_levels: list[int] = []  # how many objects are still missing in each open container
    while at < end:
        seen += 1
        if seen > ITEMS:
            raise Fault(f"more than {ITEMS} items in one value")
        first = body[at]
        at += 1
        inside = -1  # objects in this one, when it is a container
        if first <= 0x7F or first >= 0xE0:
            pass
        elif first >= 0xA0 and first <= 0xBF:
            at += first & 0x1F
        elif first <= 0x8F:
            inside = 2 * (first & 0x0F)
        elif first <= 0x9F:
            inside = first & 0x0F
        elif first in _SIZED:
            width = _SIZED[first]
            at += width + int.from_bytes(body[at : at + width], "big")
        elif first in _SKIP:
            at += _SKIP[first]
        elif first in _ARRAY:
            inside, at = int.from_bytes(body[at : at + _ARRAY[first]], "big"), at + _ARRAY[first]
        elif first in _MAP:
            inside, at = 2 * int.from_bytes(body[at : at + _MAP[first]], "big"), at + _MAP[first]
        else:
            raise Fault(f"a type byte 0x{first:02x} that the protocol does not use")
        if inside > ITEMS * 2:
            raise Fault(f"more than {ITEMS} items in one value")
        if open_levels:
            open_levels[-1] -= 1
        if inside >= 0:
            open_levels.append(inside)
            if len(open_levels) > NESTING:
                raise Fault(f"nested deeper than {NESTING} levels")
        while open_levels and open_levels[-1] == 0:
            open_levels.pop()
