"""Runs in: the monitor. Whom a worker runs as, in numbers."""

from __future__ import annotations

import os
import pwd

import msgspec

from bunri.errors import UsageError
from bunri.policy import User, UserKind


class Identity(msgspec.Struct, frozen=True):
    """A user in numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def resolve(user: User, dynamic: int | None) -> Identity | None:
    """The numbers of a policy's user; `dynamic` is the uid taken for User.dynamic(), and None then gives None.

    UsageError for a name that the user database does not have.
    """
    if user.kind is UserKind.DYNAMIC:
        return None if dynamic is None else Identity(dynamic, dynamic)
    if user.kind is UserKind.SAME:
        return Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))
    if user.kind is UserKind.IDS:
        assert user.uid is not None and user.gid is not None
        return Identity(user.uid, user.gid, user.groups)
    assert user.name is not None
    try:
        entry = pwd.getpwnam(user.name)
    except KeyError:
        raise UsageError(f"there is no user {user.name!r} on this host. Create it, or write User.dynamic()") from None
    return Identity(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user.name, entry.pw_gid)))
