"""Runs in: the process that reads or writes a policy file; pure. Policies as TOML.

    version = 1
    memory = "512M"
    files = ["fs.read('/usr/share/fonts')", "fs.scratch('/tmp', '16M')"]
    may_miss = ["MEMORY"]

Keys are Policy's keywords, and `profile` for those of Policy.compute(), strict() and dangerous_unconfined(). Grants are
strings in the API's spelling, read by a grammar of their own. A key that is not known is refused, with the
nearest that is.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final, cast

from bunri import seccomp
from bunri.errors import UsageError
from bunri.policy import _grammar, _parse
from bunri.policy.policy import HOLES, Policy, base_of, fields_of
from bunri.policy.user import User, UserKind
from bunri.policy.words import AT_START, AtStart, Profile

VERSION: Final = 1
_HOLE: Final = "AT_START"
_PROFILES: Final = {profile.value: profile for profile in Profile}


def to_toml(policy: Policy) -> str:
    """The policy as the text of a file; `from_toml` gives an equal one. Only what differs from the defaults is written.

    UsageError for rules of `bunri.seccomp` in syscalls=: they have no spelling in a file, names and groups have.
    """
    lines = [f"version = {VERSION}"]
    if policy.profile is not Profile.NORMAL:
        lines.append(f"profile = {_text(policy.profile.value)}")
    base = base_of(policy)[1]
    tables: list[str] = []
    for name in fields_of():
        value = getattr(policy, name)
        if name == "user" and policy.profile is Profile.DANGEROUS_UNCONFINED:
            pass  # its constructor's own argument: always written
        elif value == getattr(base, name):
            continue
        if isinstance(value, Mapping):
            pairs = cast("Mapping[str, str]", value)
            tables += [f"\n[{name}]", *(f"{_text(key)} = {_text(text)}" for key, text in pairs.items())]
        else:
            lines.append(f"{name} = {_written(name, value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _written(name: str, value: object) -> str:
    if isinstance(value, AtStart):
        return _text(_HOLE)
    if value is None:
        return _text("none")
    if name in ("memory", "file_size"):
        return _text(_parse.show_size(cast(int, value)))
    if name in ("cpu", "wall"):
        return _text(_parse.show_duration(cast(float, value)))
    if isinstance(value, tuple):
        return f"[{', '.join(_text(_word(name, item)) for item in cast('tuple[object, ...]', value))}]"
    return str(value) if isinstance(value, int) else _text(_word(name, value))


def _word(name: str, item: object) -> str:
    if isinstance(item, seccomp.Rule):
        raise UsageError(f"$.{name}: {item} has no spelling in a file. Name the calls or a group instead")
    if isinstance(item, User):
        return item.name if item.kind is UserKind.NAMED and item.name != _HOLE else repr(item)
    if isinstance(item, str):
        return item
    return item.name if name in ("capabilities", "may_miss") else repr(item)  # type: ignore[attr-defined]


def _text(value: str) -> str:
    """A basic string of TOML: JSON's escapes, and DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_toml(text: str) -> Policy:
    """The policy that the text of a file spells. UsageError, with the line where it is known, for anything unclear."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise UsageError(f"this is no TOML: {fault}") from None
    try:
        return _policy(found)
    except UsageError as fault:
        field = re.match(r"\$\.(\w+)", str(fault))
        raise UsageError(f"{fault}{_line(text, field[1]) if field else ''}") from None


def _policy(found: dict[str, Any]) -> Policy:
    _check_version(found)
    profile = found.pop("profile", Profile.NORMAL.value)
    if not isinstance(profile, str) or profile not in _PROFILES:
        raise UsageError(f"$.profile: {profile!r} is none. {_parse.nearest(str(profile), _PROFILES)}")
    values: dict[str, Any] = {}
    for name, value in found.items():
        if name not in fields_of():
            known = (*fields_of(), "version", "profile")
            raise UsageError(f"$.{name}: no such key. {_parse.nearest(name, known)}")
        values[name] = _read(name, value)
    return _made(_PROFILES[profile], values)


def _made(profile: Profile, values: dict[str, Any]) -> Policy:
    match profile:
        case Profile.NORMAL:
            return Policy(**values)
        case Profile.COMPUTE:
            return Policy.compute().with_(**values)
        case Profile.STRICT:
            return Policy.strict().with_(**values)
        case Profile.DANGEROUS_UNCONFINED:
            user = values.pop("user", User.same())
            return Policy.dangerous_unconfined(user=user).with_(**values)


def _check_version(found: dict[str, Any]) -> None:
    version = found.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise UsageError(
            f"$.version: {version!r} cannot be read here. The first line of a policy file is: version = {VERSION}"
        )


def _read(name: str, value: object) -> object:
    if value == _HOLE and name in HOLES:
        return AT_START
    if value == "none" and name in ("cpu", "wall", "file_size"):
        return None
    if name == "user" and isinstance(value, str) and "(" in value:
        return _grammar.grant(value, "$.user")
    if name in ("files", "network"):
        if not isinstance(value, list):
            raise UsageError(f"$.{name}: a list of strings is needed, as [\"fs.read('/usr')\"]; got {value!r}")
        return [_one(name, index, item) for index, item in enumerate(cast("list[object]", value))]
    return value


def _one(name: str, index: int, item: object) -> object:
    where = f"$.{name}[{index}]"
    if not isinstance(item, str):
        raise UsageError(f"{where}: {item!r} is no string")
    return _grammar.grant(item, where)


def _line(text: str, key: str) -> str:
    """Where the key stands, if that is plain to see."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[?\s*[\"']?{re.escape(key)}[\"']?\s*[\]=.]", line):
            return f" (line {number})"
    return ""
