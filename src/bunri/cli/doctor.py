"""Runs in: the user's shell. `bunri doctor`: what this host can do for confined programs."""

from __future__ import annotations

import click


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the host as JSON: what `explain --host` takes.")
def command(as_json: bool) -> int:
    """Try each layer of confinement here, and say what works, what does not, and what to change.

    Everything is tried in a child, as the user who asks: ask as the user who will run the program.

    \b
    Examples:
      bunri doctor
      bunri doctor --json > server.json      there
      bunri explain app:Worker --host server.json      here

    Exit status: 0 the default policy can be kept here, 3 it cannot.
    """
    from bunri.cli.show import colour, heading, table
    from bunri.confine import detect
    from bunri.observe import doctor

    host = detect()
    kept = doctor.promises(host)
    found = doctor.findings(host)
    status = 0 if all(each.kept for each in kept) and doctor.can_start(host) else 3
    if as_json:
        click.echo(host.to_json())
        return status
    click.echo(colour(doctor.summary(host), bold=True))
    heading("what was tried")
    table(
        [("yes" if each.works else "no", each.name, each.detail, each.gives) for each in found],
        ["" if each.works else "bad" for each in found],
    )
    missing = [each for each in found if not each.works]
    if missing:
        heading("what would change it")
        table([(each.name, each.remedy) for each in missing])
    heading("what a worker under the default policy would have here")
    table(
        [
            (each.promise.value, "kept" if each.kept else "NOT KEPT", ", ".join(each.layers) or each.remedy)
            for each in kept
        ],
        ["good" if each.kept else "bad" for each in kept],
    )
    return status
