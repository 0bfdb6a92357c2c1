"""A compartment whose workers and zygotes are killed."""

from __future__ import annotations

import time

import bunri


class Victim(bunri.Compartment):
    def twice(self, number: int) -> int:
        return number * 2

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Reused(Victim):
    reuse = bunri.Reuse.DANGEROUS_ACROSS_PRINCIPALS
