"""Runs in: the user's shell. What a command was refused, and the options of `bunri run` that would allow it."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from bunri.cli.show import colour

if TYPE_CHECKING:
    from bunri.errors import Denial

_ABSENT = "A file that it did not find may be there, but not for it: --read PATH"
_FILES = {"read": "--read", "write": "--write", "execute": "--execute"}


def show(denials: Iterable[Denial]) -> None:
    """On stderr: each refusal once, with how often it was met, and then the options."""
    counts: dict[Denial, int] = {}
    for denial in denials:
        counts[denial] = counts.get(denial, 0) + 1
    if not counts:
        click.echo(colour(f"bunri run: its filter and its broker refused it nothing. {_ABSENT}", "dim"), err=True)
        return
    click.echo(colour("bunri run: it was refused", bold=True), err=True)
    for denial, count in counts.items():
        often = f"  ({count} times)" if count > 1 else ""
        click.echo(f"  {colour(_what(denial), 'bad')}  {colour(f'by {denial.layer}{often}', 'dim')}", err=True)
    options = dict.fromkeys(option for denial in counts for option in options_of(denial))
    if options:
        click.echo(colour("what would allow it, if you want that", bold=True), err=True)
        for option in options:
            click.echo(f"  {colour(option, 'good')}", err=True)
    for grant in dict.fromkeys(denial.grant for denial in counts if denial.grant and "when=" in denial.grant):
        click.echo(
            colour(f"an option cannot say which arguments; narrower, in Python: Policy({grant})", "dim"), err=True
        )
    click.echo(colour(_ABSENT, "dim"), err=True)


def as_json(denials: Iterable[Denial]) -> None:
    """On stderr: each refusal as one line."""
    for denial in denials:
        click.echo(denial.to_json(), err=True)


def _what(denial: Denial) -> str:
    arguments = ", ".join(denial.arguments) if denial.arguments is not None else "..."
    return f"{denial.call}({arguments})"


def options_of(denial: Denial) -> Iterator[str]:
    """The grant, spelled as options."""
    if denial.grant is None:
        if denial.call in ("mmap", "mprotect", "pkey_mprotect"):
            yield "--dangerous-jit"
        return
    call = ast.parse(f"Policy({denial.grant})", mode="eval").body
    assert isinstance(call, ast.Call)
    for keyword in call.keywords:
        for value in keyword.value.elts if isinstance(keyword.value, ast.List) else [keyword.value]:
            option = _option(keyword.arg or "", value)
            if option is not None:
                yield option


def _option(field: str, value: ast.expr) -> str | None:
    if field in ("threads", "processes"):
        return f"--{field} {ast.unparse(value)}"
    if isinstance(value, ast.Constant):  # a system call
        return f"--allow {shlex.quote(str(value.value))}"
    assert isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)
    name = value.func.attr
    words = [each.value for each in value.args if isinstance(each, ast.Constant)]
    if field == "syscalls":  # a rule: there is no option for its condition
        return f"--allow {shlex.quote(str(words[0]))}"
    if len(words) != len(value.args):
        return {"connect": "--connect HOST:PORT", "unix": "--unix PATH"}.get(name)
    if name == "connect":
        host, port = map(str, words)
        return f"--connect {f'[{host}]' if ':' in host else host}:{port}"
    if name in _FILES and ":/" in str(words[0]):
        return None  # the option would take it for PATH:AT, and grant another path than the one that was refused
    return f"{_FILES.get(name, f'--{name}')} {shlex.quote(str(words[0]))}"
