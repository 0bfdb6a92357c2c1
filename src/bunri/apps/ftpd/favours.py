"""Runs in: the monitor. What some configurations grant a session besides: each is made only where its option is on.

| option | service | whose rights act |
|---|---|---|
| chown_uploads | `Uploads` | a broker opens, as the session's user; the monitor changes the owner of what that broker opened |
| text_userdb_names | `Owners` | a broker looks up, as a user id of its own |
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
from collections.abc import Awaitable
from typing import Protocol

import bunri
from bunri import broker
from bunri.apps.ftpd.accounts import Account
from bunri.apps.ftpd.messages import Owners, Uploads

log = logging.getLogger("bunri.ftpd")


class UploadsHere(Uploads):
    """New files of one session, given to chown_username before the session has them.

    No descriptor comes from the session: what is given away was opened here, new, regular, with one name and the
    subject's own. So a session cannot have somebody else's file given away (vsftpd takes a descriptor from it).
    """

    def __init__(self, earned: Account) -> None:
        self._folder = broker.Directory.at(earned.root, bunri.Access.WRITE, user=earned.user)
        self._owner = pwd.getpwnam(earned.config.chown_username).pw_uid
        self._mode = earned.config.chown_upload_mode & 0o777

    async def create(self, name: str) -> bunri.File:
        file = await self._folder.open(name.lstrip("/"), "xb")
        try:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1 or info.st_size:
                raise PermissionError("not a new file")
            os.fchmod(file.fileno(), self._mode)
            os.fchown(file.fileno(), self._owner, -1)
        except BaseException:
            file.close()
            raise
        return file


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class OwnersHere(Owners):
    """Names of the numbers that LIST shows. Hosts cannot be asked for: a look-up would carry data out.

    One for all sessions, with one broker that starts when it is first asked; where that has ended, numbers are shown
    until the next is there.
    """

    def __init__(self) -> None:
        self._names = broker.Names.here()

    async def user(self, uid: int) -> str:
        return await self._found(uid, self._names.user(uid))

    async def group(self, gid: int) -> str:
        return await self._found(gid, self._names.group(gid))

    async def _found(self, number: int, answer: Awaitable[_Named | None]) -> str:
        try:
            found = await answer
        except OSError:
            return str(number)
        except bunri.BunriError as fault:
            log.warning("no names of owners: %s", fault)
            self._names = broker.Names.here()
            return str(number)
        return found.name if found else str(number)
