"""Runs in: the confined worker that plays the attacker, and its zygote. The decoder's policy, an attacker's code."""

from __future__ import annotations

import bunri
from bunri.apps.demo.attacks import Target, attempt
from bunri.apps.demo.decoder import POLICY


class Attacker(bunri.Compartment):
    """A decoder after a file has taken it over."""

    policy = POLICY

    def attempt(self, name: str, target: Target) -> tuple[str, str]:
        """Try one action; ("got" or "refused", detail)."""
        return attempt(name, target)
