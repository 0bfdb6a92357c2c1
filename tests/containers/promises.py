"""Runs in: a program of its own in a container, as its user. Which promises are kept there, as JSON on its output.

It starts a worker of the default policy. A promise that this refuses is named in may_miss, with what the error said,
and it starts again, until one stands; what its report says is in force, is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bunri
from bunri.plan.report import State

sys.path.insert(0, str(Path(__file__).parent.parent / "threats"))

import owned


def main() -> None:
    missing: dict[str, str] = {}
    while True:
        policy = bunri.Policy(may_miss=[bunri.Promise(name) for name in missing])
        owned.Owned.policy = policy
        try:
            with owned.Owned.start() as worker:
                worker.run_code("result = 1")
                layers = worker.process.report.layers
            break
        except bunri.HostError as error:
            if error.promise is None or error.promise.value in missing:
                raise
            missing[error.promise.value] = str(error)
    kept: dict[str, list[str]] = {}
    for layer in layers:
        if layer.promise is not None and layer.state is not State.MISSING:
            weak = f" ({layer.detail.partition(':')[0]})" if layer.state is not State.IN_FORCE else ""
            kept.setdefault(layer.promise.value, []).append(layer.name + weak)
    json.dump({"kept": kept, "missing": missing}, sys.stdout)


if __name__ == "__main__":
    main()
