"""Runs in: the user's shell. `bunri explain`: what a policy allows, what keeps it here, and "can it ...?"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bunri.observe.answer import Answer
    from bunri.observe.explain import Explanation
    from bunri.plan import Host


@click.command(name="explain")
@click.argument("subject", metavar="POLICY|MODULE:COMPARTMENT")
@click.option("--host", "host_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Another host, as `bunri doctor --json` printed it there.")  # fmt: skip
@click.option("--can", "questions", multiple=True, metavar="QUESTION",
              help="Ask: yes or no, and what decides. May be given several times.")  # fmt: skip
@click.option("--listing", is_flag=True, help="Show the filter's instructions too.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(subject: str, host_file: Path | None, questions: tuple[str, ...], listing: bool, as_json: bool) -> int:
    """Say what a policy file or a compartment may do, which layers keep that here, and what is missing.

    A compartment's module is imported, as its program would.

    \b
    Questions:
      "open PATH read|write|create|execute"     "connect HOST:PORT"
      "listen PORT"     "unix PATH"             "CALL [NUMBER ...]", as "ptrace" or "kill 1 9"

    \b
    Examples:
      bunri explain app.decoder:Decoder
      bunri explain policy.toml --host server.json
      bunri explain app.decoder:Decoder --can "open /etc/passwd read" --can ptrace

    Exit status: 0, 2 for a mistake, 3 where the host cannot keep the policy.
    """
    from bunri.cli.show import json_of
    from bunri.observe import question as _question
    from bunri.observe.answer import answer
    from bunri.observe.doctor import summary
    from bunri.observe.explain import explain
    from bunri.observe.subject import subject as subject_of

    asked = [_question.parse(text) for text in questions]
    host = _host(host_file)
    found = subject_of(subject, host)
    if asked:
        answers = [answer(found, each, reads_files=host_file is None) for each in asked]
        _show_answers(answers, as_json)
        return 0
    explanation = explain(found, summary(host))
    if as_json:
        json_of(explanation)
    else:
        _show(explanation, listing)
    return 3 if explanation.refused else 0


def _host(file: Path | None) -> Host:
    """The host of the file, or this one, tried."""
    if file is None:
        from bunri.confine import detect

        return detect()
    import msgspec

    from bunri.cli.show import read_text
    from bunri.errors import UsageError
    from bunri.plan import Host

    try:
        return Host.from_json(read_text(file))
    except msgspec.MsgspecError as fault:
        raise UsageError(f"{str(file)!r} is no host as `bunri doctor --json` prints it: {fault}") from None


def _show_answers(answers: list[Answer], as_json: bool) -> None:
    from bunri.cli.show import colour, json_of, lines
    from bunri.observe.answer import Verdict

    if as_json:
        json_of(answers)
        return
    for each in answers:
        style = "good" if each.verdict is Verdict.YES else "bad"
        error = f" ({each.error})" if each.error else ""
        click.echo(f"{colour(each.question, bold=True)}: {colour(each.verdict.value + error, style)}, by: {each.layer}")
        lines(each.why)


def _show(it: Explanation, listing: bool) -> None:
    from bunri.cli.show import colour, heading, lines, table
    from bunri.observe.explain import missing

    click.echo(f"{colour(it.name, bold=True)} on {it.host}")
    if it.refused:
        click.echo(colour(f"would not start: {it.refused}", "bad"))
    heading("policy")
    lines([it.policy])
    heading("granted")
    table(it.grants or [("nothing", "")])
    heading("kept by")
    kept = [each for each in it.layers if each.state == "in force"]
    table([(each.promise, each.name, each.detail) for each in kept])
    heading("missing or weaker here")
    absent = missing(it)
    table(
        [(x.promise, x.name, x.state, x.detail) for x in absent],
        ["note" if x.state == "weaker" else "" for x in absent],
    )
    heading("steps of the template, once")
    lines(it.template_steps or ["none"])
    heading(f"steps of each worker, cloned with namespaces: {', '.join(it.namespaces) or 'none'}")
    lines(it.worker_steps or ["none"])
    sizes = " and ".join(map(str, it.filter_sizes))
    heading(f"filter: {len(it.rules)} rules; for one call the first that holds decides; {sizes or 'no'} instructions")
    for number, rule in enumerate(it.rules, 1):
        click.echo(f"{number:4}. {colour(rule.rule)}")
        click.echo(f"      {colour(rule.reason, 'dim')}")
    if listing:
        heading("instructions")
        lines(it.listing.splitlines())
    if it.notes:
        heading("notes")
        lines(it.notes)
