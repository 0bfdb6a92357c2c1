"""Runs in: a hardened service. It starts workers under policies that say what may be missing there, and reports."""

from __future__ import annotations

import json
import sys

from sizes import Sizes, gif

import bunri

P = bunri.Promise


class Forgiving(Sizes):
    policy = bunri.Policy(may_miss=(P.IDENTITY, P.MEMORY, P.PROCESSES))


def main() -> None:
    told: dict[str, object] = {}
    try:
        with Sizes.start() as worker:
            told["strict"] = worker.size(gif(1, 2))
            told["uid"] = worker.process.report.layer("uid").state.value
    except bunri.HostError as fault:
        told["refused"] = [fault.promise.value if fault.promise else None, str(fault)]
    with Forgiving.start() as worker:
        told["size"] = worker.size(gif(3, 4))
        report = worker.process.report
        told["kept"] = [promise.value for promise in P if report.keeps(promise)]
        told["layers"] = {layer.name: layer.state.value for layer in report.layers}
        try:
            told["read"] = worker.reads("/etc/passwd")
        except bunri.PeerError as fault:
            told["read"] = type(fault).__name__
        try:
            worker.size(b"DIE")
        except bunri.WorkerDied as fault:
            told["death"] = fault.exit.code
    with Forgiving.pool(2) as pool:
        told["pool"] = [done.result() for done in bunri.map(pool.size, [gif(n, n) for n in range(5)])]
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
