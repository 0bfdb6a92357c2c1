"""Runs in: the user's shell. `bunri dump`: tcpdump's options are read by the program itself, in tcpdump's way."""

from __future__ import annotations

import click


@click.command(
    name="dump",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Print packets, as tcpdump does, decoded in a process that holds nothing."""
    if arguments in (("--help",), ("-h",)):
        from bunri.apps.dump.usage import HELP

        click.echo(HELP, nl=False)
        return 0
    from bunri import early

    with early.imports():
        from bunri.apps.dump.command import main

    return main(arguments)
