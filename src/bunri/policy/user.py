"""Runs in: nowhere; values only. Who a worker is."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from bunri.errors import UsageError
from bunri.policy import _parse

_LARGEST_ID = 0xFFFFFFFE  # 0xFFFFFFFF means "leave it" to setresuid(2)


class UserKind(Enum):
    DYNAMIC = "dynamic"
    NAMED = "named"
    IDS = "ids"
    SAME = "same"


class User(msgspec.Struct, frozen=True):
    """An identity. Made by the four named constructors; constructing one looks nothing up."""

    kind: UserKind
    name: str = ""
    uid: int = -1
    gid: int = -1
    groups: tuple[int, ...] = ()

    @classmethod
    def dynamic(cls) -> User:
        """A uid of its own, from 61184 to 65519, that no other live process has. An ordinary user keeps his own uid."""
        return cls(UserKind.DYNAMIC)

    @classmethod
    def named(cls, name: str) -> User:
        """The user of that name, with his groups, as the monitor's user database has them when the worker starts."""
        return cls(UserKind.NAMED, name=_parse.name(name, "User.named", "user name"))

    @classmethod
    def ids(cls, uid: int, gid: int, groups: Iterable[int] = ()) -> User:
        """These numbers, and no look-up."""
        listed = tuple(sorted({_parse.count(group, "User.ids(groups)", most=_LARGEST_ID) for group in groups}))
        return cls(
            UserKind.IDS,
            uid=_parse.count(uid, "User.ids(uid)", most=_LARGEST_ID),
            gid=_parse.count(gid, "User.ids(gid)", most=_LARGEST_ID),
            groups=listed,
        )

    @classmethod
    def same(cls) -> User:
        """Whoever starts it. As root the worker is uid 0 without capabilities: it still owns root's files."""
        return cls(UserKind.SAME)

    def __repr__(self) -> str:
        if self.kind is UserKind.NAMED:
            return f"User.named({self.name!r})"
        if self.kind is UserKind.IDS:
            groups = f", {self.groups!r}" if self.groups else ""
            return f"User.ids({self.uid}, {self.gid}{groups})"
        return f"User.{self.kind.value}()"


def parse(value: object, where: str) -> User:
    """A User, or a string as short for User.named."""
    if isinstance(value, User):
        return value
    if isinstance(value, str):
        return User.named(_parse.name(value, where, "user name"))
    raise UsageError(
        f'{where}: {value!r} is no user. Write User.dynamic(), User.same(), User.ids(uid, gid), or a name as "ftp"'
    )
