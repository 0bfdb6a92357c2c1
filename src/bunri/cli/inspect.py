"""Runs in: the user's shell. `bunri inspect`: what running processes may do, as the kernel says."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bunri.observe.against import Comparison
    from bunri.observe.facts import Facts
    from bunri.observe.family import Member


@click.command(name="inspect")
@click.argument("processes", metavar="PID|NAME...", nargs=-1, required=True)
@click.option("--against", "subject", metavar="POLICY|MODULE:COMPARTMENT",
              help="List how the processes named differ from what the policy promises.")  # fmt: skip
@click.option("--details", is_flag=True, help="Everything about each process, not only a line.")
@click.option("--filters", is_flag=True,
              help="Disassemble seccomp filters too. Needs root; stops each process for a moment.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(processes: tuple[str, ...], subject: str | None, details: bool, filters: bool, as_json: bool) -> int:
    """Say what running processes may do, whoever wrote them: ids, capabilities, seccomp, namespaces, root, mounts,
    limits, descriptors, memory. Each with all processes below it.

    Everything is read from the kernel. What your user may not read is said to be hidden: ask as root.

    \b
    Examples:
      bunri inspect sshd
      bunri inspect 4711 --details
      sudo bunri inspect vsftpd --filters --json
      bunri inspect 4711 --against app.decoder:Decoder

    Exit status: 0, 1 where a process differs from the policy, 2 for a mistake.
    """
    from bunri.cli.show import json_of
    from bunri.observe import facts as _facts
    from bunri.observe import family

    members = family.find(processes, below=subject is None)
    found: list[tuple[Member, Facts]] = []
    for member in members:
        try:
            found.append((member, _facts.read(member.pid, with_filters=filters)))
        except (ProcessLookupError, FileNotFoundError):
            continue  # it has ended since it was listed
    if subject is not None:
        return _compare([each for _, each in found], subject, as_json)
    if as_json:
        json_of([each for _, each in found])
        return 0
    if len(found) > 1:
        _table(found)
    if len(found) == 1 or details or filters:
        for _, each in found:
            _show(each)
    return 0


def _compare(found: list[Facts], text: str, as_json: bool) -> int:
    from bunri.cli.show import json_of
    from bunri.confine import detect
    from bunri.observe.against import compare
    from bunri.observe.subject import subject as subject_of

    subject = subject_of(text, detect())
    compared = [compare(each, subject) for each in found]
    if as_json:
        json_of(compared)
    else:
        for each in compared:
            _show_comparison(each)
    return 1 if any(each.differences for each in compared) else 0


def _show_comparison(it: Comparison) -> None:
    from bunri.cli.show import colour, heading, table

    bad = bool(it.differences)
    count = len(it.differences)
    verdict = f"{count} difference{'s' * (count > 1)}" if bad else f"as the policy says, in {len(it.right)} things"
    heading(f"process {it.pid} against {it.subject}")
    click.echo("  " + colour(verdict, "bad" if bad else "good"))
    table(
        [(field, f"should be {expected}", f"is {seen}") for field, expected, seen in it.differences],
        ["bad"] * len(it.differences),
    )
    table([(field, why) for field, why in it.hidden], ["note"] * len(it.hidden))


_COLUMNS = (
    "process",
    "name",
    "user",
    "capabilities",
    "no_new_privs",
    "seccomp",
    "own namespaces",
    "root",
    "fds",
    "PSS",
)


def _table(found: list[tuple[Member, Facts]]) -> None:
    from bunri.cli.show import table

    rows = [_COLUMNS, *(_row(member, each) for member, each in found)]
    table(rows, ["note", *("bad" if _is_mighty(each) else "" for _, each in found)], indent=0)


def _is_mighty(it: Facts) -> bool:
    """Rights over this host, and nothing that keeps it from using them."""
    return bool(it.capabilities["effective"]) and it.seccomp == "none" and not _is_in_own_users(it)


def _is_in_own_users(it: Facts) -> bool:
    """In a user namespace of its own: its capabilities are good for what belongs to that, and nothing else."""
    return (it.namespaces or {}).get("user") == "own"


def _row(member: Member, it: Facts) -> tuple[str, ...]:
    own = [name for name, whose in (it.namespaces or {}).items() if whose == "own"]
    return (
        "  " * member.depth + str(it.pid),
        it.name,
        it.user or str(it.uids[1]),
        few(it.capabilities["effective"])
        + (" in own" if _is_in_own_users(it) and it.capabilities["effective"] else ""),
        "yes" if it.no_new_privs else "no",
        it.seccomp if not it.seccomp_filters else f"{it.seccomp} ({it.seccomp_filters})",
        "?" if it.namespaces is None else few(own),
        it.root or "?",
        "?" if it.descriptors is None else str(len(it.descriptors)),
        size((it.memory or {}).get("pss")),
    )


def few(names: list[str] | tuple[str, ...], most: int = 3) -> str:
    if not names:
        return "none"
    return ", ".join(names) if len(names) <= most else f"{len(names)}"


def size(number: int | None) -> str:
    return "?" if number is None else f"{number / (1 << 20):.1f}M" if number >= 1 << 20 else f"{number >> 10}K"


def _show(it: Facts) -> None:
    from bunri.cli.show import colour, heading, lines, table

    click.echo()
    click.echo(colour(f"{it.pid} {it.name}", bold=True) + f", child of {it.parent}")
    lines([" ".join(it.command) or "(no command line)"])
    heading("identity")
    table([*_identity(it)])
    heading("capabilities")
    table([(name, few(names, 99)) for name, names in it.capabilities.items()],
          ["bad" if name == "effective" and names else "" for name, names in it.capabilities.items()])  # fmt: skip
    heading("confinement")
    table([*_confinement(it)])
    if it.descriptors is not None:
        kinds = Counter(each.kind for each in it.descriptors)
        heading(f"descriptors: {', '.join(f'{n} {kind}' for kind, n in kinds.most_common()) or 'none'}")
        table([(str(d.number), d.kind, d.access, d.target) for d in it.descriptors])
    if it.mounts is not None and (it.namespaces or {}).get("mnt") == "own":
        heading(f"mounts: {len(it.mounts)}")
        table([(m.at, m.kind, ",".join(m.options)) for m in it.mounts])
    if it.limits is not None:
        heading("limits (soft, hard)")
        table([(name, _limit(soft), _limit(hard)) for name, (soft, hard) in it.limits.items() if hard != -1])
    for number, each in enumerate(it.filters or ()):
        heading(f"filter {number + 1} of {len(it.filters or ())}, the oldest first: {each.instructions} instructions")
        lines(each.listing.splitlines())
    heading("hidden")
    table([*it.hidden.items()], ["note"] * len(it.hidden))


def _identity(it: Facts) -> list[tuple[str, str]]:
    return [
        ("user", f"{it.user or 'no name'}: uid {_ids(it.uids)}"),
        ("groups", f"gid {_ids(it.gids)}; {', '.join(map(str, it.groups)) or 'no others'}"),
        ("label", it.label or "?"),
        ("executable", it.executable or "?"),
        ("threads", str(it.threads)),
        ("memory", ", ".join(f"{name} {size(value)}" for name, value in (it.memory or {}).items()) or "?"),
        ("control group", it.cgroup or "?"),
        ("oom_score_adj", "?" if it.oom_score is None else str(it.oom_score)),
    ]


def _ids(ids: tuple[int, ...]) -> str:
    """One number where real, effective, saved and file system's are the same."""
    return str(ids[0]) if len(set(ids)) == 1 else "/".join(map(str, ids)) + " (real/effective/saved/file system)"


def _confinement(it: Facts) -> list[tuple[str, str]]:
    count = "" if it.seccomp_filters is None else f", {it.seccomp_filters} filters"
    spaces = "?"
    if it.namespaces is not None:
        own = [name for name, whose in it.namespaces.items() if whose == "own"]
        spaces = (
            f"own: {', '.join(own) or 'none'}; ours: {', '.join(n for n in it.namespaces if n not in own) or 'none'}"
        )
    return [
        ("no_new_privs", "yes" if it.no_new_privs else "no"),
        ("seccomp", it.seccomp + count),
        ("namespaces", spaces),
        ("root", it.root or "?"),
    ]


def _limit(value: int) -> str:
    return "unlimited" if value == -1 else str(value)
