"""Runs in: the monitor. The transfer log (xferlog(5)) and vsftpd's own log, or syslog.

Who and from where is what the monitor knows. What was done is what the session says: it is escaped, and a session can
only lie about itself.
"""

from __future__ import annotations

import logging
import os
import syslog
import time

import bunri
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.messages import Kind, Log, Rights, Transfer

log = logging.getLogger("bunri.ftpd")


class Logs:
    """The open log files."""

    def __init__(self, config: Config) -> None:
        self._xferlog = self._own = -1
        self._syslog = False
        self.open(config)

    def open(self, config: Config) -> None:
        """Those of this configuration, in place of those before. UsageError leaves the old ones open."""
        old = self._xferlog, self._own
        xferlog = own = -1
        if config.xferlog_enable and (config.xferlog_std_format or config.dual_log_enable):
            xferlog = _opened(config.xferlog_file)
        wanted = config.xferlog_enable and (not config.xferlog_std_format or config.dual_log_enable)
        if wanted and not config.syslog_enable:
            own = _opened(config.vsftpd_log_file)
        if config.syslog_enable:
            syslog.openlog("bunri-ftpd", syslog.LOG_PID, syslog.LOG_DAEMON)
        self._xferlog, self._own, self._syslog = xferlog, own, config.syslog_enable
        _close(*old)

    def close(self) -> None:
        _close(self._xferlog, self._own)
        self._xferlog = self._own = -1

    def event(self, peer: str, what: str, user: str | None = None, more: str = "") -> None:
        """A line of vsftpd's own style."""
        who = f"[{_name(user)}] " if user is not None else ""
        text = f'{who}{what}: Client "{peer}"{more}'
        log.info("%s", text)
        if self._syslog:
            syslog.syslog(syslog.LOG_INFO, text)
        if self._own >= 0:
            _written(self._own, f"{time.ctime()} [pid {os.getpid()}] {text}\n")

    def transferred(self, peer: str, rights: Rights, what: Transfer) -> None:
        path = bunri.printable(what.path, limit=4096)
        rate = f", {what.size / 1024 / max(what.seconds, 0.000001):.2f}Kbyte/sec" if what.size else ""
        size = f", {what.size} bytes" if what.action in ("DOWNLOAD", "UPLOAD") else ""
        word = "OK" if what.complete else "FAIL"
        action = bunri.printable(what.action, limit=20)
        self.event(peer, f"{word} {action}", rights.user, f', "{_quotable(path)}"{size}{rate}')
        if self._xferlog < 0 or what.action not in ("DOWNLOAD", "UPLOAD"):
            return
        fields = (
            time.ctime(), max(round(what.seconds), 1), peer, what.size, path.replace(" ", "_"),
            "a" if what.ascii else "b", "_", "o" if what.action == "DOWNLOAD" else "i",
            {Kind.ANONYMOUS: "a", Kind.GUEST: "g", Kind.LOCAL: "r"}[rights.kind],
            bunri.printable(rights.user, limit=128), "ftp", 0, "*", "c" if what.complete else "i",
        )  # fmt: skip
        _written(self._xferlog, " ".join(map(str, fields)) + "\n")


class LogHere(Log):
    """The lines of one session."""

    def __init__(self, logs: Logs, peer: str, rights: Rights) -> None:
        self._logs = logs
        self._peer = peer
        self._rights = rights

    def transfer(self, what: Transfer) -> None:
        self._logs.transferred(self._peer, self._rights, what)

    def line(self, text: str) -> None:
        if self._rights.log_lines:
            said = _quotable(bunri.printable(text, limit=1000))
            self._logs.event(self._peer, "FTP", self._rights.user, f', "{said}"')


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
    return _quotable(bunri.printable(user, limit=128)).replace("]", "\\x5d")


def _quotable(text: str) -> str:
    """Without the quotes that an address stands in: no peer writes a second one into a line."""
    return text.replace('"', "\\x22")


def _written(number: int, line: str) -> None:
    """A full disk costs lines of the log, never a session."""
    try:
        os.write(number, line.encode("utf-8", "backslashreplace"))
    except OSError as fault:
        log.warning("the log could not be written: %s", fault.strerror)
