"""Runs in: the developer's machine. `make threats`: each attack of docs/THREATS.md, tried, as a table.

A threat has two tests. The attack does the thing in a worker: it must be refused.
The control does the same thing where the rule is missing: it must work, or the attack proved nothing.
"""

from __future__ import annotations

import os
import re
import sys

from runs import TOP, Case, Outcome, run_matrix

TEST = re.compile(r"::test_threat_(\d\d)_(control)?")  # whatever is no control is an attack
TITLE = re.compile(r"^\| *(\d+) *\| *([^|]+?) *\|", re.MULTILINE)  # a row of the table in docs/THREATS.md


def main(arguments: list[str]) -> int:
    if not (TOP / "tests/threats").is_dir():
        print("there is no tests/threats yet")
        return 1
    matrix = run_matrix(["tests/threats", *arguments], only_this_python=True)
    print()
    heading = "  ".join(f"{outcome.who + ':':<15} {'':<13}" for outcome in matrix.outcomes)
    print(f"{'':<52}{heading}")
    columns = "  ".join(f"{'attack refused':<15} {'control works':<13}" for _ in matrix.outcomes)
    print(f"{'threat':<52}{columns}")
    for number, title in sorted(titles().items()):
        cells = [
            f"{answer(outcome, number, 'attack'):<15} {answer(outcome, number, 'control'):<13}"
            for outcome in matrix.outcomes
        ]
        print(f"{number:>3}  {title[:46]:<47}{'  '.join(cells)}")
    show_rest(matrix.outcomes, matrix.not_run)
    return 0 if matrix.outcomes and all(outcome.passed for outcome in matrix.outcomes) else 1


def titles() -> dict[int, str]:
    page = (TOP / "docs/THREATS.md").read_text()
    return {int(number): title.replace("**", "").replace("`", "") for number, title in TITLE.findall(page)}


def answer(outcome: Outcome, number: int, half: str) -> str:
    """Whether every such test passed, some, or none; `not tried` when this host could not."""
    outcomes = {case.outcome for case in tests_of(outcome, number, half)}
    if not outcomes:
        return "no test"
    if "failed" in outcomes:
        return "NO"
    return "yes" if outcomes == {"passed"} else ("yes, in part" if "passed" in outcomes else "not tried")


def tests_of(outcome: Outcome, number: int, half: str) -> list[Case]:
    return [
        case
        for case in outcome.cases
        if (match := TEST.search(case.name)) and int(match[1]) == number and (match[2] or "attack") == half
    ]


def show_rest(outcomes: list[Outcome], not_run: list[str]) -> None:
    for line in not_run:
        print(f"\nnot run: {line}")
    for outcome in outcomes:
        for case in outcome.cases:
            if case.outcome != "passed":
                print(f"\n{case.outcome} as {outcome.who}: {case.name}\n    {case.detail.partition(chr(10))[0]}")
        for problem in outcome.problems:
            print(f"\nas {outcome.who}: {problem}")


if __name__ == "__main__":
    os.chdir(TOP)
    sys.exit(main(sys.argv[1:]))
