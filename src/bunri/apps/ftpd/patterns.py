"""Runs in: the session worker; pure. The patterns of deny_file and its kin: *, ? and {a,b}, on each part of a path by itself."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    signs = {"*": ".*", "?": ".", "{": "(?:", "}": ")", ",": "|"}
    depth, parts = 0, list[str]()
    for sign in pattern:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        parts.append(re.escape(sign) if sign == "," and not depth else signs.get(sign, re.escape(sign)))
    return re.compile("".join(parts), re.DOTALL)


def check(pattern: str) -> str | None:
    """What is wrong with a pattern; None if nothing."""
    if "/" in pattern:
        return "a / matches nothing: each part of a path is looked at by itself. Name the file or the folder alone"
    depth = 0
    for sign in pattern:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth not in (0, 1):
            return "{ } are not nested, and each { needs its }"
    return "a { has no }" if depth else None


def matches(pattern: str, path: str) -> bool:
    """Whether any part of the path has the pattern, or contains it as it stands."""
    if not pattern:
        return False
    return any(pattern in part or _compiled(pattern).fullmatch(part) for part in path.split("/") if part)
