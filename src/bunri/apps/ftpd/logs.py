"""Runs in: the monitor. The transfer log (xferlog(5)) and vsftpd's own log, or syslog.

Who and from where is what the monitor knows. What was done is what the session says: it is escaped, and a session can
only lie about itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import syslog
import time

import bunri
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.messages import MOST_LINES, Action, Kind, Log, Rights, Said, Transfer
from bunri.apps.ftpd.pace import Pace

log = logging.getLogger("bunri.ftpd")
# Of the lines of one session: those of 1,000 small files a second, and what it may have written at once.
RATE, AHEAD = 1 << 17, 1 << 20  # bytes a second, bytes
MOVES = (Action.DOWNLOAD, Action.UPLOAD)


def files(config: Config) -> frozenset[str]:
    """The options that name the files which are written to."""
    c = config
    xferlog = c.xferlog_enable and (c.xferlog_std_format or c.dual_log_enable)
    own = c.xferlog_enable and (not c.xferlog_std_format or c.dual_log_enable) and not c.syslog_enable
    return frozenset((["xferlog_file"] if xferlog else []) + (["vsftpd_log_file"] if own else []))


class Logs:
    """The open log files."""

    def __init__(self, config: Config) -> None:
        self._xferlog = self._own = -1
        self._syslog = False
        self.open(config)

    def open(self, config: Config) -> None:
        """Those of this configuration, in place of those before. UsageError leaves the old ones open."""
        old, names = (self._xferlog, self._own), files(config)
        xferlog = _opened(config.xferlog_file) if "xferlog_file" in names else -1
        own = _opened(config.vsftpd_log_file) if "vsftpd_log_file" in names else -1
        if config.syslog_enable:
            syslog.openlog("bunri-ftpd", syslog.LOG_PID, syslog.LOG_DAEMON)
        self._xferlog, self._own, self._syslog = xferlog, own, config.syslog_enable
        _close(*old)

    def close(self) -> None:
        _close(self._xferlog, self._own)
        self._xferlog = self._own = -1

    def event(self, peer: str, what: str, user: str | None = None, more: str = "") -> int:
        """A line of vsftpd's own style. How long it is."""
        who = f"[{_name(user)}] " if user is not None else ""
        text = f'{who}{what}: Client "{peer}"{more}'
        log.info("%s", text)
        if self._syslog:
            syslog.syslog(syslog.LOG_INFO, text)
        if self._own >= 0:
            _written(self._own, f"{time.ctime()} [pid {os.getpid()}] {text}\n")
        return len(text)

    def transferred(self, peer: str, rights: Rights, given: str, what: Transfer) -> int:
        """The lines of one action; `given`: what stands for anonymous in xferlog(5). How long they are."""
        path = bunri.printable(what.path, limit=4096)
        size = f", {what.size} bytes" if what.action in MOVES and what.size else ""
        rate = f", {what.size / 1024 / max(what.seconds, 0.001):.2f}Kbyte/sec" if what.action in MOVES else ""
        word = "OK" if what.complete else "FAIL"
        length = self.event(peer, f"{word} {what.action.value}", rights.user, f", {quoted(path)}{size}{rate}")
        if self._xferlog >= 0 and what.action in MOVES:
            fields = (
                time.ctime(), max(round(what.seconds), 1), peer, what.size, path.replace(" ", "_"),
                "a" if what.ascii else "b", "_", "o" if what.action is Action.DOWNLOAD else "i",
                {Kind.ANONYMOUS: "a", Kind.GUEST: "g", Kind.LOCAL: "r"}[rights.kind],
                bunri.printable(given or rights.user, limit=128), "ftp", 0, "*", "c" if what.complete else "i",
            )  # fmt: skip
            line = " ".join(map(str, fields)) + "\n"
            _written(self._xferlog, line)
            length += len(line)
        return length

    def said(self, peer: str, rights: Rights, what: Said) -> int:
        """A line of the protocol. How long it is."""
        text = bunri.printable(what.text, limit=1000)
        return self.event(peer, f"FTP {what.speech.value}", rights.user, f", {quoted(text)}")


class LogHere(Log):
    """The lines of one session. None is lost; who writes more of them than a session can have to say has to wait."""

    def __init__(self, logs: Logs, peer: str, rights: Rights, given: str = "") -> None:
        self._logs = logs
        self._peer = peer
        self._rights = rights
        self._given = given
        self._pace = Pace(AHEAD / RATE)
        self._told = False

    async def lines(self, what: list[Transfer | Said]) -> None:
        if len(what) > MOST_LINES:
            raise bunri.Misbehaved("more lines of the log than go into one message")
        seconds = self._pace.left(sum(map(self._written, what)) / RATE)
        if seconds > 0:
            await self._wait(seconds)

    def _written(self, what: Transfer | Said) -> int:
        """How long what was written is."""
        if isinstance(what, Transfer):
            return self._logs.transferred(self._peer, self._rights, self._given, what)
        return self._logs.said(self._peer, self._rights, what) if self._rights.log_lines else 0

    async def _wait(self, seconds: float) -> None:
        if not self._told:
            log.warning("%s: a session writes more than %d bytes of lines a second: it waits", self._peer, RATE)
            self._told = True
        await asyncio.sleep(seconds)


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as fault:
        raise bunri.UsageError(f"the log {path} cannot be opened: {fault.strerror}") from None


def _close(*numbers: int) -> None:
    for number in numbers:
        if number >= 0:
            os.close(number)


def _name(user: str) -> str:
    return quoted(bunri.printable(user, limit=128))[1:-1].replace("]", "\\x5d")


def quoted(text: str) -> str:
    """Between quotes, and with none in it: an address stands in them, and no peer writes a second one into a line."""
    return '"' + text.replace('"', "\\x22") + '"'


def _written(number: int, line: str) -> None:
    """A full disk costs lines of the log, never a session."""
    try:
        os.write(number, line.encode("utf-8", "backslashreplace"))
    except OSError as fault:
        log.warning("the log could not be written: %s", fault.strerror)
