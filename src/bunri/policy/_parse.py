"""Runs in: the process that writes the policy; pure. Parses what people write into plain values, once."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable

from bunri.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_LARGEST = 1 << 62
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


def nearest(word: str, valid: Iterable[str]) -> str:
    """The tail of an error message: the nearest valid spelling, or all of them where they are few."""
    import difflib  # not for zygotes

    choices = sorted(valid)
    close = difflib.get_close_matches(word.lower(), [c.lower() for c in choices], n=1, cutoff=0.5)
    if close:
        return f"Did you mean {next(c for c in choices if c.lower() == close[0])!r}?"
    return f"Valid: {', '.join(choices)}" if len(choices) <= 24 else "There is nothing near it"


def size(value: object, where: str) -> int:
    """Bytes. "512M", "1.5G", 4096; units are powers of 1024."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise UsageError(f'{where}: {value!r} is no size. Write a number of bytes, or "512K", "256M", "1G"')
        value = (
            int(float(match[1]) * _FACTORS[match[2].upper()])
            if "." in match[1]
            else int(match[1]) * _FACTORS[match[2].upper()]
        )
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f'{where}: a size is an int (bytes) or a string as "512M"; got {value!r}')
    if not 0 <= value < _LARGEST:
        raise UsageError(f"{where}: {value} bytes is out of range. Write 0 to 2^62 bytes")
    return value


def show_size(value: int) -> str:
    """The shortest exact spelling: 536870912 -> "512M"."""
    for unit in ("T", "G", "M", "K"):
        if value and value % _FACTORS[unit] == 0:
            return f"{value // _FACTORS[unit]}{unit}"
    return str(value)


def duration(value: object, where: str) -> float:
    """Seconds. "250ms", "5s", "1m", "2h", 0.25, 5."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise UsageError(
                f'{where}: {value!r} is no duration. Write a number of seconds, or "250ms", "5s", "1m", "2h"'
            )
        value = float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f'{where}: a duration is a number of seconds or a string as "5s"; got {value!r}')
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"{where}: {value} seconds is out of range. Write more than 0; None where no bound is meant")
    return round(float(value), 6)


def show_duration(value: float) -> str:
    """The shortest exact spelling: 60.0 -> "1m", 0.25 -> "250ms"."""
    for unit in ("h", "m", "s"):
        if value >= _SECONDS[unit] and value % _SECONDS[unit] == 0:
            return f"{int(value // _SECONDS[unit])}{unit}"
    return f"{value * 1000:g}ms" if value < 1 else f"{value:.15g}s"


def count(value: object, where: str, *, most: int = 1_000_000) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{where}: a whole number is needed; got {value!r}")
    if not 0 <= value <= most:
        raise UsageError(f"{where}: {value} is out of range. Write 0 to {most}")
    return value


def path(value: object, where: str) -> str:
    """An absolute path without "..", with single slashes, without one at the end."""
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{where}: a path is a str or a pathlib.Path; got {value!r}")
    text = os.fspath(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if not isinstance(text, str):
        raise UsageError(f"{where}: a path is text; got {text!r}. Decode it with os.fsdecode")
    if "\0" in text:
        raise UsageError(f"{where}: the path {text!r} has a NUL in it")
    if not is_text(text):
        raise UsageError(
            f"{where}: the path {text!r} is no UTF-8, and grants are text. Grant the folder that it lies in"
        )
    if not text.startswith("/"):
        raise UsageError(
            f"{where}: the path {text!r} is relative, and a worker's directory is /. "
            f"Write it from /, as {'/' + text.removeprefix('./')!r}"
        )
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(
            f"{where}: the path {text!r} has '..' in it: what it names depends on links. Write the path it leads to"
        )
    return "/" + "/".join(parts)


def is_text(text: str) -> bool:
    """Whether it has no bytes in it that are no UTF-8, as Python carries them from a command line (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def name(value: object, where: str, what: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise UsageError(f"{where}: {value!r} is no {what}")
    return value


def covers(outer: str, inner: str) -> bool:
    """Whether `inner` is `outer` or lies beneath it."""
    return inner == outer or outer == "/" or inner.startswith(outer + "/")
