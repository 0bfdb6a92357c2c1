"""Runs in: the user's shell. `bunri graph`: a program's compartments and services, without running it."""

from __future__ import annotations

import click


@click.command(name="graph")
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option("--dot", "as_dot", is_flag=True, help="Print it for Graphviz.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(modules: tuple[str, ...], as_dot: bool, as_json: bool) -> int:
    """Show each compartment of the modules with its policy, the services that it can call, and the handles that travel.

    The modules are imported, as their program would. What is spelled dangerous is red.

    \b
    Examples:
      bunri graph app.decoder
      bunri graph app.decoder app.session --dot | dot -Tsvg > roles.svg

    Exit status: 0, 2 for a mistake.
    """
    from bunri.cli.show import colour, heading, json_of, table
    from bunri.errors import UsageError
    from bunri.observe import graph

    if as_dot and as_json:
        raise UsageError("--dot and --json are two ways to print it. Take one")
    found = graph.roles(modules)
    if not found:
        raise UsageError(f"no compartment is defined in {', '.join(modules)}")
    if as_json:
        json_of(found)
        return 0
    if as_dot:
        click.echo(graph.dot(found))
        return 0
    for role in found:
        heading(f"{role.kind} {role.name}")
        rows = [("policy", role.policy), ("methods", ", ".join(role.methods)), ("may call", ", ".join(role.calls)),
                ("is handed", ", ".join(role.handed)), ("hands up", ", ".join(role.hands))]  # fmt: skip
        table([row for row in rows if row[1]])
        for danger in role.dangers:
            click.echo("  " + colour(danger, "bad"))
    return 0
