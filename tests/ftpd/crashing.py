"""Runs in: zygotes and workers. A pre-login worker that dies when it is told to."""

from __future__ import annotations

import ctypes

from bunri.apps.ftpd.prelogin import PreLogin


class Crashing(PreLogin):
    """As somebody has it who has found a fault of memory."""

    def _answer(self, word: str, argument: str) -> None:
        if word == "CRASH":
            ctypes.string_at(8)
        super()._answer(word, argument)
