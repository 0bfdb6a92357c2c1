"""The same with a loop, which its module does not import."""

from __future__ import annotations

import sys

import bunri


class Looping(bunri.Compartment):
    """With a loop."""

    async def loaded(self) -> list[str]:
        return sorted(sys.modules)
