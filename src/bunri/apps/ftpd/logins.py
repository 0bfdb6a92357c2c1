"""Runs in: the monitor. The logins of one connection: who may try, how often, and what one earned.

Names and passwords come from the peer; a password is looked at by a process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket

import bunri
from bunri.apps.ftpd.accounts import Account, account, names_in
from bunri.apps.ftpd.auth import Pam, Passwords
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.logs import Logs, quoted
from bunri.apps.ftpd.messages import Ask, Kind, Login
from bunri.apps.ftpd.names import LONGEST, fault_in
from bunri.apps.ftpd.prelogin import GLANCE
from bunri.apps.ftpd.secure import Secure

log = logging.getLogger("bunri.ftpd")
ANONYMOUS = ("anonymous", "ftp")


class LoginHere(Login):
    """The logins of one connection: `account` is what it earned."""

    def __init__(self, control: socket.socket, config: Config, peer: str, logs: Logs) -> None:
        self.control = control  # what the session will get: its plain end, once there is TLS
        self.secure: Secure | None = None
        self._config = config
        self._peer = peer
        self._logs = logs
        self._tried = self._denied = 0
        self.account: Account | None = None
        self.given = ""  # what anonymous gave as his password: for the log

    async def user(self, name: str) -> Ask:
        """One that is not to log in costs as much as a wrong password: a list of names is not tried through here."""
        ask = self._ask(name)
        if ask is Ask.DENIED:
            self._denied += 1
            if self._denied > self._config.max_login_fails:
                raise bunri.Misbehaved("it asked for one name more than there are logins")
            self._logs.event(self._peer, "FAIL LOGIN", name)
            await asyncio.sleep(self._config.delay_failed_login)
        return ask

    @property
    def takes_any_name(self) -> bool:
        """Whether `user` has one answer for all: it need not be asked."""
        return not (self._config.userlist_enable or self._config.ssl_enable)

    def _ask(self, name: str) -> Ask:
        c = self._config
        try:
            if c.userlist_enable and (name in names_in(c.userlist_file)) == c.userlist_deny:
                return Ask.DENIED
        except bunri.UsageError as fault:
            log.error("nobody can log in: %s", fault)
            return Ask.DENIED
        if c.ssl_enable:
            guest = self._kind(name) is Kind.ANONYMOUS
            if self.secure is None and (c.force_anon_logins_ssl if guest else c.force_local_logins_ssl):
                return Ask.NEEDS_TLS
            if self.secure is not None and guest and not c.allow_anon_ssl:
                return Ask.NO_TLS
        return Ask.PASSWORD

    async def tls(self) -> socket.socket:
        if not self._config.ssl_enable or self.secure is not None:
            raise bunri.Misbehaved("it asked for TLS twice, or where there is none")
        self.secure = Secure.start(self._config)
        self.control = await self.secure.control(self.control)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, GLANCE)
        return self.control.dup()

    async def finish(self) -> None:
        """Nobody has anything more to say: until the peer has been sent what was said."""
        if self.secure is not None:
            self.control.close()
            await self.secure.finish()

    def close(self) -> None:
        if self.secure is not None:
            self.secure.close()
            self.control.close()

    async def password(self, user: str, password: bunri.Secret) -> bool:
        self._tried += 1
        if self.account is not None or self._tried > self._config.max_login_fails:
            raise bunri.Misbehaved("it asked for one login more than there are")
        if self._ask(user) is Ask.PASSWORD:
            self.account = await self._earned(user, password)
        if self.account is None:
            self._logs.event(self._peer, "FAIL LOGIN", user)
            await asyncio.sleep(self._config.delay_failed_login)
            return False
        more = ""
        if self.account.rights.kind is Kind.ANONYMOUS:
            self.given = bytes(password.reveal()).decode("utf-8", "replace").replace(" ", "_") or "?"
            more = f", anon password {quoted(bunri.printable(self.given, limit=LONGEST))}"
        self._logs.event(self._peer, "OK LOGIN", self.account.rights.user, more)
        return True

    async def _earned(self, user: str, password: bunri.Secret) -> Account | None:
        """What a right password earns. Where that is nothing, a password that cannot be right is asked about: the time that
        it takes must not tell whether this one was."""
        kind = self._kind(user)
        found = self._account(kind, user)
        asked = password if found is not None else bunri.Secret(secrets.token_hex(32))
        return found if await self._right(kind, user, asked) else None

    def _account(self, kind: Kind, user: str) -> Account | None:
        if kind is not Kind.ANONYMOUS and fault_in(user):
            return None
        try:
            return account(self._config, user, kind, tls=self.secure is not None)
        except (bunri.UsageError, OSError) as fault:
            log.warning("%s: %s could not log in with any password: %s", self._peer, bunri.printable(user), fault)
            return None

    def _kind(self, user: str) -> Kind:
        if self._config.anonymous_enable and user.lower() in ANONYMOUS:
            return Kind.ANONYMOUS
        return Kind.GUEST if self._config.guest_enable else Kind.LOCAL

    async def _right(self, kind: Kind, user: str, password: bunri.Secret) -> bool:
        c = self._config
        if kind is Kind.ANONYMOUS:
            return True
        if not c.local_enable or fault_in(user) or len(password.reveal()) > LONGEST:
            return False
        try:
            if c.virtual_passwd_file:
                with bunri.File.open(c.virtual_passwd_file, "rb") as file:
                    async with Passwords.start() as passwords:
                        return await bunri.call(passwords.check, file, user, password)
            async with Pam.start() as pam:
                return await bunri.call(pam.check, c.pam_service_name, user, password, self._peer)
        except (bunri.PeerError, OSError) as fault:  # a process that was killed has said no
            log.warning("%s: no answer about a password: %s", self._peer, first_line(fault))
            return False


def first_line(fault: BaseException) -> str:
    """Of a fault, for the log."""
    return bunri.printable(str(fault).partition("\n")[0], limit=300)
