"""Runs in: the user's shell. `bunri completion SHELL`: the lines that make a shell complete bunri's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

HOW = {
    "bash": 'eval "$(bunri completion bash)"                       in ~/.bashrc',
    "zsh": 'eval "$(bunri completion zsh)"                        in ~/.zshrc, after compinit',
    "fish": "bunri completion fish > ~/.config/fish/completions/bunri.fish",
}
_INDENT = "\n  "


@click.command(name="completion", epilog=f"\b\nIn your shell's own file:{_INDENT}{_INDENT.join(HOW.values())}")
@click.argument("shell", type=click.Choice(sorted(HOW)))
def command(shell: str) -> None:
    """Print the lines that make SHELL complete bunri's commands, options and values.

    \b
    Example:
      eval "$(bunri completion bash)"
    """
    from bunri.cli.commands import bunri_command

    of_shell = get_completion_class(shell)
    assert of_shell is not None  # the choice above has only those that click knows
    click.echo(of_shell(bunri_command, {}, "bunri", "_BUNRI_COMPLETE").source())
