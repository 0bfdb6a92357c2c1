"""Runs in: the developer's machine. The whole test command: `make test`, and its parts.

    tools/suite.py test     linters, types, docs, then pytest in every way this host allows, and one table at the end
    tools/suite.py check    the fast part of it: linters, types, and the quick tests as the user who asks
    tools/suite.py lint | types | docs

Ends with 1 when anything failed. Nothing is skipped silently: what did not run stands in the list at the end, with the
reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from runs import TOP, Matrix, Outcome, run_matrix

PYTHON = sys.executable
LINT = {
    "ruff check": ["ruff", "check", "--no-fix", "."],
    "ruff format": ["ruff", "format", "--check", "."],
}
TYPES = {
    "mypy --strict": ["mypy"],
    "pyright strict": ["pyright", "--warnings", "--pythonpath", PYTHON],
}
DOCS = {"mkdocs --strict": ["mkdocs", "build", "--strict"]}
QUICK = ["-m", "not slow", "-x"]


def main(arguments: list[str]) -> int:
    what, rest = (arguments[0], arguments[1:]) if arguments else ("test", [])
    match what:
        case "test":
            return show(statics(LINT | TYPES | DOCS), run_matrix(rest))
        case "check":
            return show(statics(LINT | TYPES), run_here([*QUICK, *rest]))
        case "lint":
            return show(statics(LINT), Matrix())
        case "types":
            return show(statics(TYPES), Matrix())
        case "docs":
            return show(statics(DOCS), Matrix())
        case _:
            print(__doc__, file=sys.stderr)
            return 2


def statics(checks: dict[str, list[str]]) -> list[Outcome]:
    return [static(name, command) for name, command in checks.items()]


def static(name: str, command: list[str]) -> Outcome:
    """One tool over the whole checkout. It prints what it finds; here only whether it was content."""
    print(f"\n== {name}", flush=True)
    # A home of its own: what a tool keeps or reads there must not decide.
    with tempfile.TemporaryDirectory(prefix="bunri-") as home:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}
        started = time.monotonic()
        done = subprocess.run(
            [PYTHON, "-m", *command], cwd=TOP, env=inherited | {"HOME": home}, stdin=subprocess.DEVNULL, check=False
        )
    problems = [f"ended with {done.returncode}; what it found is above"] if done.returncode else []
    return Outcome(name, seconds=time.monotonic() - started, problems=problems)


def run_here(arguments: list[str]) -> Matrix:
    """pytest in the checkout itself, as the user who asks."""
    print("\n== pytest, the quick tests, here", flush=True)
    started = time.monotonic()
    done = subprocess.run([PYTHON, "-m", "pytest", "-q", *arguments], cwd=TOP, check=False)
    problems = [f"pytest ended with {done.returncode}"] if done.returncode else []
    return Matrix([Outcome("pytest (quick)", seconds=time.monotonic() - started, problems=problems)])


# The table at the end


def show(checks: list[Outcome], matrix: Matrix) -> int:
    outcomes = checks + matrix.outcomes
    print("\n" + "=" * 96)
    print(
        f"{'what':<16} {'python':<8} {'as':<14} {'result':<8} "
        f"{'passed':>7} {'failed':>7} {'skipped':>8} {'known':>6} {'seconds':>8}"
    )
    for outcome in outcomes:
        print(row(outcome))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        print(f"\n{label(outcome)}:")
        for line in [*outcome.problems, *(case.name for case in outcome.cases if case.outcome == "failed")]:
            print(f"  {line}")
    show_not_run(matrix)
    show_known(matrix)
    print(f"\n{'FAILED: ' + ', '.join(map(label, failed)) if failed else 'all passed'}")
    return 1 if failed else 0


def label(outcome: Outcome) -> str:
    return " ".join(part for part in (outcome.what, outcome.python, outcome.who and f"as {outcome.who}") if part)


def row(outcome: Outcome) -> str:
    counts = [str(outcome.count(kind)) if outcome.cases else "" for kind in ("passed", "failed", "skipped", "known")]
    result = "passed" if outcome.passed else "FAILED"
    return (
        f"{outcome.what:<16} {outcome.python:<8} {outcome.who:<14} {result:<8} "
        f"{counts[0]:>7} {counts[1]:>7} {counts[2]:>8} {counts[3]:>6} {outcome.seconds:>8.1f}"
    )


def show_not_run(matrix: Matrix) -> None:
    """Every skip with its reason, and every combination that could not be made."""
    if matrix.not_run or any(outcome.count("skipped") for outcome in matrix.outcomes):
        print("\nnot run here, and why:")
    for line in matrix.not_run:
        print(f"  {line}")
    show_cases(matrix, "skipped")


def show_known(matrix: Matrix) -> None:
    """Expected failures: their tests run, and say what is wrong until it is mended (xfail is strict here)."""
    if any(outcome.count("known") for outcome in matrix.outcomes):
        print("\nknown faults, each with a test that fails as expected:")
    show_cases(matrix, "known")


def show_cases(matrix: Matrix, kind: str) -> None:
    """By reason, then by test without its parameters, then the runs it happened in."""
    reasons: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for outcome in matrix.outcomes:
        for case in outcome.cases:
            if case.outcome == kind:
                reasons[case.detail][case.name.partition("[")[0]].append(f"{outcome.python} {outcome.who}")
    for reason, functions in reasons.items():
        print(f"  {reason}")
        for name, runs in functions.items():
            print(f"      {name} ({', '.join(dict.fromkeys(runs))})")


if __name__ == "__main__":
    os.chdir(Path(TOP))
    sys.exit(main(sys.argv[1:]))
