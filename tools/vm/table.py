"""Runs in: the developer's machine. docs/kernels.md: kernel x promise x layer, as the guests reported it."""

from __future__ import annotations

from typing import Any, Final

from vm.boot import Answers
from vm.images import TOP

PAGE: Final = TOP / "docs/kernels.md"
BEGIN: Final = "<!-- from here on written by make test-vm -->\n"
SIGNS: Final = {"in force": "yes", "weaker": "weaker", "missing": "-"}
WHO: Final = {0: "root", 1000: "user"}


def write(answers: dict[str, Answers]) -> None:
    """Keep the page's own words, and write the rest anew."""
    kept = PAGE.read_text().split(BEGIN)[0]
    parts = [_layers(answers), _tests(answers), _skips(answers)]
    PAGE.write_text(kept + BEGIN + "\n" + "\n".join(parts))
    print(f"written: {PAGE.relative_to(TOP)}")


def _layers(answers: dict[str, Answers]) -> str:
    columns: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    rows: dict[tuple[str, str], None] = {}
    for each in answers.values():
        for found in each.of("layers"):
            name = f"{'.'.join(map(str, found['kernel']))} {found['arch']} {WHO[found['uid']]}"
            columns[name] = {(one["promise"], one["name"]): one for one in found.get("layers", ())}
            rows |= dict.fromkeys(columns[name])
    lines = ["## Layers of a worker under the default policy\n"]
    lines.append("`yes`: in force and seen from outside. `yes*`: in force, by the worker's own word. `-`: missing.\n")
    lines.append(f"| promise | layer | {' | '.join(columns)} |")
    lines.append("|---" * (2 + len(columns)) + "|")
    for promise, layer in rows:
        cells = [_cell(column.get((promise, layer))) for column in columns.values()]
        lines.append(f"| {promise} | {layer} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(layer: dict[str, Any] | None) -> str:
    if layer is None:
        return "refused"
    own_word = layer["state"] != "missing" and layer["seen"] == "worker"
    return SIGNS[str(layer["state"])] + ("*" if own_word else "")


def _tests(answers: dict[str, Answers]) -> str:
    lines = [
        "## Tests in the guests\n",
        "| guest | on | tests | as | passed | failed | skipped |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in answers.items():
        for found in each.found:
            if "passed" in found:
                counts = f"{found['passed']} | {len(found['failed'])} | {len(found['skipped'])}"
                lines.append(f"| {name} | {each.when} | {found['job']} | {WHO[found['uid']]} | {counts} |")
    return "\n".join(lines) + "\n"


def _skips(answers: dict[str, Answers]) -> str:
    reasons: dict[str, set[str]] = {}
    for name, each in answers.items():
        for found in each.found:
            for why in found.get("skipped", {}).values():
                reasons.setdefault(" ".join(why).strip(), set()).add(f"{name} {WHO[found['uid']]}")
    lines = ["Skipped there, and why:\n"]
    lines += [f"- {why}: {', '.join(sorted(names))}" for why, names in sorted(reasons.items())]
    return "\n".join(lines) + "\n"
