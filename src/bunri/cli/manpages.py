"""Runs in: the user's shell. `bunri manpages FOLDER`: the man pages, made from the commands as they are.

The language is man(7), of which only TH, SH, TP, PP, B, nf and fi are used.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import click


@click.command(name="manpages")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write bunri's man pages below FOLDER, a folder on the manual's path.

    \b
    Example:
      bunri manpages ~/.local/share/man && man bunri-inspect
    """
    place = folder / "man1"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (place / name).write_text(text)
    click.echo(f"{len(pages())} pages in {place}")


def pages() -> dict[str, str]:
    """File name -> text."""
    from bunri.cli.commands import COMMANDS, bunri_command

    context = click.Context(bunri_command, info_name="bunri")
    made = {"bunri.1": page("bunri", "privilege separation for Python programs", bunri_command, context)}
    for name, (_, summary) in sorted(COMMANDS.items()):
        found = bunri_command.get_command(context, name)
        assert found is not None
        sub = click.Context(found, info_name=name, parent=context)
        made[f"bunri-{name}.1"] = page(f"bunri-{name}", summary.rstrip("."), found, sub)
    return made


def page(name: str, summary: str, of: click.Command, context: click.Context) -> str:
    usage = " ".join(
        ["bunri", *([context.info_name or ""] if context.parent else []), *of.collect_usage_pieces(context)]
    )
    lines = [f'.TH "{name.upper()}" 1 "" "bunri" "User Commands"', ".SH NAME", f"{plain(name)} \\- {plain(summary)}"]
    lines += [".SH SYNOPSIS", f".B {plain(usage)}", ".SH DESCRIPTION", *body(of.help or "")]
    options = [record for each in of.get_params(context) if (record := each.get_help_record(context)) is not None]
    if options:
        lines.append(".SH OPTIONS")
        for spelled, text in options:
            lines += [".TP", f".B {plain(spelled)}", plain(text)]
    from bunri.cli.commands import COMMANDS

    if isinstance(of, click.Group):
        lines.append(".SH COMMANDS")
        for sub, (_, text) in sorted(COMMANDS.items()):
            lines += [".TP", f".B bunri {plain(sub)}", plain(text)]
        others = [f"bunri-{sub}(1)" for sub in sorted(COMMANDS)]
    else:
        others = ["bunri(1)"]
    return "\n".join([*lines, ".SH SEE ALSO", plain(", ".join(others)), ""])


def body(text: str) -> list[str]:
    """click's help: paragraphs; those that begin with \\b keep their lines."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        kept = paragraph.startswith("\b\n")
        lines.append(".PP")
        lines += (
            [".nf", *map(plain, paragraph[2:].splitlines()), ".fi"] if kept else [plain(" ".join(paragraph.split()))]
        )
    return lines


def plain(text: str) -> str:
    """Text that no line of is a request, and no character of an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
