"""Runs in: the user's shell. The subcommands by name; each is imported when it is called, so that `--help` is quick."""

from __future__ import annotations

import importlib

import click

import bunri

# name -> (module, what it does). The module's `command` is the click command.
COMMANDS = {
    "demo": ("bunri.cli.demo", "Decode hostile pictures in confined workers, and show what an attacker gets."),
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bunri.__version__, prog_name="bunri")
def bunri_command() -> None:
    """Privilege separation for Python programs on Linux."""


def run() -> int:
    """Run the command line; the exit status."""
    try:
        outcome = bunri_command.main(prog_name="bunri", standalone_mode=False)
    except click.Abort:
        return _fail("interrupted", 130)
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    except bunri.UsageError as fault:
        return _fail(str(fault), 2)
    except bunri.InternalError:
        raise  # a fault of ours: the traceback is wanted
    except bunri.BunriError as fault:
        return _fail(str(fault), 1)
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        return _fail(f"{where}{fault.strerror or fault}", 1)
    return outcome if isinstance(outcome, int) else 0


def _fail(message: str, status: int) -> int:
    click.echo(f"bunri: {bunri.printable(message, keep_newlines=True)}", err=True)
    return status
