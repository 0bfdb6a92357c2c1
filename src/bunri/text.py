"""Runs in: every process. Makes text that a worker wrote safe to show (THREATS 25).

A worker's text may hold terminal escapes, line breaks that forge log records, bidirectional marks that reorder what
a reader sees, and unpaired surrogates that make a terminal's encoder raise.
`printable` is the one function that turns such text into something harmless; everything that shows text of a worker
calls it.
"""

from __future__ import annotations

import unicodedata

LONGEST = 8192  # characters; a longer text is cut, and says so

# Categories: Cc control, Cf format (bidi marks, zero-width), Cs surrogate, Co private, Cn unassigned, Zl/Zp line
# separators.
_HOSTILE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class Untrusted(str):
    """Text that a less trusted process wrote. Its `str()` and formatting are escaped; `raw` is what was written."""

    __slots__ = ()

    @property
    def raw(self) -> str:
        return str.__str__(self)

    def __str__(self) -> str:
        return printable(self)

    def __format__(self, spec: str) -> str:
        return format(printable(self), spec)


def printable(text: str, *, limit: int = LONGEST, keep_newlines: bool = False) -> str:
    """The text with everything that could steer a terminal, forge a line or reorder a reader's view escaped.

    `limit` is in characters of the input. With `keep_newlines` a plain line feed stays (tracebacks, shown indented);
    nothing else does.
    """
    raw = str.__str__(text)
    cut = len(raw) > limit
    if cut:
        raw = raw[:limit]
    if not (raw.isascii() and raw.isprintable()):
        raw = "".join(_escape(c) if not (keep_newlines and c == "\n") else c for c in raw)
    return f"{raw}... [cut]" if cut else raw


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _HOSTILE:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
