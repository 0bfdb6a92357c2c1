"""Runs in: the user's shell. The subcommands by name; each is imported when it is called, so that `--help` is quick."""

from __future__ import annotations

import difflib
import importlib
from typing import Final

import click

import bunri
from bunri.cli.status import interrupted, status_of
from bunri.text import printable

# name -> (module, what it does). One line a command; the module's `command` is the click command.
COMMANDS: Final = {
    "completion": ("bunri.cli.completion", "Print the lines that make a shell complete bunri's words."),
    "doctor": ("bunri.cli.doctor", "Try what this host can do, and say what to change."),
    "explain": ("bunri.cli.explain", "Say what a policy or a compartment may do here, and what decides."),
    "inspect": ("bunri.cli.inspect", "Say what running processes may do, and how they differ from a policy."),
    "graph": ("bunri.cli.graph", "Show a program's compartments, their policies and what each may call."),
    "manpages": ("bunri.cli.manpages", "Write the man pages of these commands to a folder."),
    "demo": ("bunri.cli.demo", "Decode hostile pictures in confined workers, and show what an attacker gets."),
    "run": ("bunri.cli.run", "Run any program, confined."),
    "dump": ("bunri.cli.dump", "Print packets as tcpdump does, decoded in a process that holds nothing."),
    "ftpd": ("bunri.cli.ftpd", "Serve a folder by FTP, each peer by confined processes of its own."),
}


class Commands(click.Group):
    """A group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(COMMANDS))}."
            raise click.UsageError(f"No such command {printable(args[0])!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(bunri.__version__, prog_name="bunri")
def bunri_command() -> None:
    """Privilege separation for Python programs on Linux.

    \b
    Exit status: 0 done; 1 a finding, or it failed; 2 called wrongly;
    3 this host lacks what is needed; 130 interrupted.
    """


def run() -> int:
    """Run the command line; the exit status."""
    return status_of(_main)


def _main() -> object:
    try:
        return bunri_command.main(prog_name="bunri", standalone_mode=False)
    except click.Abort:
        return interrupted()
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
