"""The roles of the server, taken over: each with its own policy and its own parameters, running an attacker's code."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time

import bunri
from bunri.apps.ftpd.auth import Passwords
from bunri.apps.ftpd.messages import Action, Data, Greeting, Handover, Log, Login, NoData, Rights, Transfer
from bunri.apps.ftpd.prelogin import PreLogin
from bunri.apps.ftpd.session import Session
from bunri.apps.ftpd.tls import Tls
from bunri.channel.target import target_of
from bunri.wire import contract_of

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def attack(code: str, **more: object) -> str:
    """Run the code: what it puts into `result`, or the name of the errno that it met."""
    space: dict[str, object] = {"ctypes": ctypes, "libc": libc, "os": os, "socket": socket, "call": _call, **more}
    try:
        exec(code, space)
    except OSError as fault:
        return errno.errorcode.get(fault.errno or 0, "?")
    return str(space.get("result"))


def _call(number: int, *args: object) -> str:
    ctypes.set_errno(0)
    value = libc.syscall(number, *args)
    return "ok" if value >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")


class TakenPreLogin(bunri.Compartment):
    policy = PreLogin.policy

    def __init__(self, control: socket.socket, login: Login, greeting: Greeting) -> None:
        self._control, self._login = control, login

    def run(self, code: str) -> str:
        return attack(code, control=self._control)

    def guess(self, user: str, times: int) -> list[bool]:
        ask = self._login.password
        return [bunri.call(ask, user, bunri.Secret(f"guess {number}")).result() for number in range(times)]

    def guess_at_once(self, user: str, times: int) -> list[bool]:
        calls = [bunri.call(self._login.password, user, bunri.Secret("guess")) for _ in range(times)]
        return [call.result() for call in calls]


class TakenSession(bunri.Compartment):
    policy = Session.policy

    def __init__(self, control: socket.socket, data: Data, log: Log, rights: Rights, next_: Handover) -> None:
        self._control, self._data, self._log = control, data, log

    def run(self, code: str) -> str:
        return attack(code, control=self._control)

    def try_passive(self, code: str) -> str:
        """With a socket for the peer."""
        return attack(code, passive=bunri.call(self._data.passive, 1).result()[0])

    def listen(self, count: int) -> list[int]:
        """On so many sockets at one time; their ports."""
        self._passive = bunri.call(self._data.passive, count).result()
        for each in self._passive:
            each.listen(8)
        return [each.getsockname()[1] for each in self._passive]

    def accepted(self) -> list[str]:
        """Who has come, to any of them."""
        found: list[str] = []
        for each in self._passive:
            each.setblocking(False)
            while True:
                try:
                    connection, address = each.accept()
                except BlockingIOError:
                    break
                connection.close()
                found.append(address[0])
        return found

    def connect(self, port: int, protected: bool) -> str:
        try:
            bunri.call(self._data.connect, port, protected).result().close()
        except NoData as fault:
            return str(fault)
        return "connected"

    def log(self, count: int) -> None:
        """So many lines of the log in one message."""
        bunri.call(self._log.lines, [Transfer(Action.DELETE, "/x", False)] * count).result()

    def forge(self, path: str) -> None:
        bunri.call(self._log.lines, [Transfer(Action.DOWNLOAD, path, True, 1, 1.0)]).result()

    def flood(self, count: int) -> float:
        """Lines of the log, as long as they may be, one after the other: how long that took."""
        begun = time.monotonic()
        for _ in range(count):
            bunri.call(self._log.lines, [Transfer(Action.DELETE, "/" + "x" * 4000, False)]).result()
        return time.monotonic() - begun

    def flood_at_once(self, count: int) -> None:
        """Past what makes an honest worker wait with them."""
        target = target_of(self._log)
        method = next(each for each in contract_of(Log).methods if each.name == "lines")
        for _ in range(count):
            target.side.begin(target.number, method, ([Transfer(Action.DELETE, "/" + "x" * 4000, False)],))
            target.side.flush()


class TakenTls(bunri.Compartment):
    policy = Tls.policy

    def __init__(self, certificate: bunri.File, key: bunri.File | None, reuse: bool) -> None:
        certificate.close()

    def run(self, code: str) -> str:
        return attack(code)


class TakenPasswords(bunri.Compartment):
    policy = Passwords.policy

    def run(self, code: str) -> str:
        return attack(code)

    def check(self, file: bunri.File, user: str, password: bunri.Secret) -> bool:
        """The real one's signature, from which the filter follows."""
        file.close()
        return True
