"""Runs in: zygotes and workers. Compartments that are looked at."""

from __future__ import annotations

import bunri


class Quiet(bunri.Compartment):
    def ping(self) -> int:
        return 1


class Writer(bunri.Compartment):
    policy = bunri.Policy(files=[bunri.fs.scratch("/tmp", "1M")], open_files=99)

    def ping(self) -> int:
        return 1
