"""Runs in: the user's shell. How commands print: colour on terminals only, every strange character escaped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import click

from bunri.errors import UsageError
from bunri.text import printable

STYLES: Final = {"good": "green", "bad": "red", "note": "yellow", "dim": "bright_black"}


def colour(text: str, style: str = "", *, bold: bool = False) -> str:
    """The text for `echo`, which takes colours away where there is no terminal."""
    return click.style(printable(text), fg=STYLES.get(style), bold=bold)


def heading(text: str) -> None:
    click.echo()
    click.echo(colour(text, bold=True))


def lines(texts: Iterable[str], *, indent: int = 2) -> None:
    for text in texts:
        click.echo(" " * indent + printable(text))


def table(rows: Sequence[Sequence[str]], styles: Sequence[str] = (), *, indent: int = 2) -> None:
    """Columns as wide as their widest cell; the last as it is. `styles`: one for each row."""
    if not rows:
        return
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]) - 1)]
    for index, row in enumerate(shown):
        cells = [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
        text = (" " * indent + "  ".join(cells)).rstrip()
        click.echo(click.style(text, fg=STYLES.get(styles[index])) if styles and styles[index] else text)


def json_of(value: object) -> None:
    """A value as JSON, ASCII only: what a worker wrote cannot steer a terminal through it."""
    import json

    import msgspec

    click.echo(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=True))


def read_text(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{str(path)!r} is no text") from None
