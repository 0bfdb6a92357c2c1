"""Runs in: the monitor, with the rights of whoever started it. Accepts, starts workers, decides logins.

It reads no byte that a peer sends. What it decides, it decides from what it saw itself: the peer's address is that of
its own accept, attempts are counted here, and no message carries an address or a path.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf

from msgspec.structs import replace

import bunri
from bunri.apps.ftpd.accounts import Account, forget_service_users
from bunri.apps.ftpd.auth import Passwords
from bunri.apps.ftpd.broker import DataHere
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.favours import OwnersHere, UploadsHere
from bunri.apps.ftpd.listening import Listener, listeners_for, notify, refuse_unencrypted
from bunri.apps.ftpd.logins import LoginHere, first_line
from bunri.apps.ftpd.logs import LogHere, Logs
from bunri.apps.ftpd.messages import Greeting, Handover, NoData
from bunri.apps.ftpd.needs import banner, refuse_unmet
from bunri.apps.ftpd.prelogin import GLANCE, PreLogin
from bunri.apps.ftpd.session import Session
from bunri.apps.ftpd.tls import Tls

log = logging.getLogger("bunri.ftpd")
CRASHES = 3  # of workers of one peer, within WITHIN: from then on he is turned away for as long
WITHIN = 60.0  # seconds


class Crashes:
    """Peers whose workers died by signals. Many such deaths hold up every start, so no peer may cause many."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def note(self, peer: str) -> None:
        """One of his workers died."""
        self._times.setdefault(_network(peer), deque(maxlen=CRASHES)).append(time.monotonic())

    def too_many(self, peer: str) -> bool:
        """Whether he has to wait."""
        if not self._times:
            return False
        oldest = time.monotonic() - WITHIN
        self._times = {each: times for each, times in self._times.items() if times[-1] > oldest}
        times = self._times.get(_network(peer))
        return times is not None and len(times) == CRASHES and times[0] > oldest


def _network(peer: str) -> str:
    """Who has one address of IPv6 has as many as he likes of its first 64 bits."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    return peer if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


@dataclass
class Server:
    """Its listeners and the connections that came through them."""

    config: Config
    listeners: list[Listener]
    reload: Callable[[], Config] | None = None
    drain: float = 10.0  # seconds that sessions have to end by themselves
    _from: Counter[str] = field(default_factory=Counter[str])
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        forget_service_users()
        self._logs = Logs(self.config)
        self._banner = banner(self.config)
        self._crashes = Crashes()
        self._owners = OwnersHere()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until SIGTERM, when sessions have `drain` seconds to end, or SIGINT. SIGHUP: new connections read anew."""
        loop = asyncio.get_running_loop()
        accepting = asyncio.gather(*map(self._accept, self.listeners))
        loop.add_signal_handler(signal.SIGTERM, accepting.cancel)
        loop.add_signal_handler(signal.SIGINT, self._end_at_once, accepting)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        ready()
        try:
            with suppress(asyncio.CancelledError):
                await accepting
            for each in self.listeners:
                each.socket.close()
            log.info("ends; %d connections have %g seconds", len(self._tasks), self.drain)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self.drain)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._logs.close()

    def _end_at_once(self, accepting: asyncio.Future[list[None]]) -> None:
        self.drain = 0.0
        accepting.cancel()
        for task in self._tasks:
            task.cancel()

    def _reload(self) -> None:
        if self.reload is None:
            return
        try:
            config = self.reload()
            refuse_unmet(config)
            refuse_unencrypted(self.listeners, config)
            text = banner(config)
            self._logs.open(config)
        except (bunri.UsageError, OSError) as fault:
            log.error("the old configuration stays: %s", fault)
            return
        forget_service_users()
        self.config, self._banner = config, text
        log.info("the configuration was read again")

    async def _accept(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        listener.socket.setblocking(False)
        while True:
            try:
                control, address = await loop.sock_accept(listener.socket)
            except OSError as fault:  # no descriptor left, or the peer is gone already
                log.warning("accept: %s", fault.strerror)
                await asyncio.sleep(0.1)
                continue
            peer = address[0].removeprefix("::ffff:")
            if full := self._full(peer):
                _turn_away(control, full)
                continue
            self._from[peer] += 1
            task = loop.create_task(self._connection(control, peer, listener))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _full(self, peer: str) -> str | None:
        c = self.config
        if c.max_clients and len(self._tasks) >= c.max_clients:
            return "There are too many connected users, please try later."
        if self._crashes.too_many(peer):
            return "Please try again in a minute."
        if c.max_per_ip and self._from[peer] >= c.max_per_ip:
            return "There are too many connections from your internet address."
        return None

    async def _connection(self, control: socket.socket, peer: str, listener: Listener) -> None:
        try:
            with control:
                await self._talk(control, peer, listener)
        except (bunri.BunriError, NoData) as fault:  # it ends here: the others never notice
            if isinstance(fault, bunri.WorkerDied) and fault.exit.signal not in (None, signal.SIGKILL):
                self._crashes.note(peer)
            log.warning("%s: %s", peer, first_line(fault))
        except OSError as fault:
            log.info("%s: %s", peer, fault.strerror)
        finally:
            self._from[peer] -= 1
            if not self._from[peer]:
                del self._from[peer]

    async def _talk(self, control: socket.socket, peer: str, listener: Listener) -> None:
        config, logs = self.config, self._logs
        control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, GLANCE)  # while it blocks: until login
        control.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # ABOR comes with urgent bytes before it
        logs.event(peer, "CONNECT")
        login = LoginHere(control, config, peer, logs)
        try:
            if listener.implicit or config.implicit_ssl:
                (await login.tls()).close()
            secured, idle = login.secure is not None, config.idle_session_timeout
            attempts, tls, any_name = config.max_login_fails, config.ssl_enable, login.takes_any_name
            greeting = Greeting(self._banner, attempts, tls, secured, idle, any_name)
            pre = PreLogin.start(login.control, login, greeting)
            try:
                next_ = await bunri.call(pre.talk)
            finally:
                pre.close()  # killed: it runs no further. Its remains are cleared away while the session comes up
            if login.account is not None and next_ is not None:
                await self._session(control, login, login.account, peer, next_)
            await login.finish()
        finally:
            login.close()

    async def _session(
        self, control: socket.socket, login: LoginHere, earned: Account, peer: str, next_: Handover
    ) -> None:
        rights = replace(earned.rights, here=control.getsockname()[:2], peer=control.getpeername()[:2])
        data = DataHere(control, earned.config, login.secure, rights.only_tls)
        log_ = LogHere(self._logs, peer, rights, login.given)
        mine = earned.policy(Session.policy)
        uploads = UploadsHere(earned) if earned.gives_away else None
        owners = self._owners if earned.config.text_userdb_names and not rights.hide_ids else None
        session = Session.start_under(mine, login.control, data, log_, rights, next_, uploads, owners)
        try:
            with bunri.deadline(inf):  # he stays as long as he is not idle
                await bunri.call(session.serve)
        finally:
            session.close()
            data.close()


def _turn_away(control: socket.socket, why: str) -> None:
    with control:
        control.setblocking(False)
        try:
            control.send(f"421 {why}\r\n".encode())
        except OSError as fault:
            log.info("turned away, and gone: %s", fault.strerror)


def _further(config: Config) -> Iterator[type[bunri.Compartment]]:
    if config.virtual_passwd_file:
        yield Passwords
    if config.ssl_enable:
        yield Tls


def serve(
    config: Config, ready: Callable[[list[str]], None], reload: Callable[[], Config] | None = None, drain: float = 10.0
) -> None:
    """Serve until a signal ends it. `ready` is told where."""
    refuse_unmet(config)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection takes about six descriptors here
    bunri.prepare(PreLogin, Session, *_further(config))
    listeners = listeners_for(config)
    urls = [each.url for each in listeners]

    def said() -> None:
        notify("READY=1")
        ready(urls)

    asyncio.run(Server(config, listeners, reload, drain).run(said))
