# pyright: basic, reportMissingTypeStubs=false, reportMissingModuleSource=false
"""Runs in: the session worker, after confinement. pyftpdlib as the engine of the protocol, with three things changed.

Data connections come from the monitor (data.py). Nothing is looked up by name: neither users and groups (the C library
would load modules from within the root) nor hosts. And what the configuration leaves out is not there.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from bunri.apps.ftpd.data import DataConnections
from bunri.apps.ftpd.files import Files, has_control, shown
from bunri.apps.ftpd.journal import Journal
from bunri.apps.ftpd.messages import (
    Action,
    Data,
    Handover,
    Kind,
    Log,
    Owners,
    Rights,
    Said,
    Speech,
    Transfer,
    Uploads,
)
from bunri.apps.ftpd.patterns import matches
from bunri.apps.ftpd.rehearsal import rehearse
from bunri.apps.ftpd.upstream import BufferedIteratorProducer, FilesystemError, FTPHandler, IOLoop

MESSAGE = 4000  # bytes of a folder's message
PERMISSIONS = {"CWD": "e", "LIST": "l", "RETR": "r", "APPE": "a", "DELE": "d", "RNFR": "f", "MKD": "m", "STOR": "w",
               "SITE CHMOD": "M", "MFMT": "T"}  # fmt: skip
NAMING = ("STOR", "STOU", "APPE", "MKD", "XMKD", "RNTO")  # what makes a name
LOGGED = {"DELE": Action.DELETE, "RNTO": Action.RENAME, "MKD": Action.MKDIR, "XMKD": Action.MKDIR, "RMD": Action.RMDIR,
          "XRMD": Action.RMDIR, "SITE CHMOD": Action.CHMOD, "MFMT": Action.MFMT}  # fmt: skip
# Of these, the failures to begin: how it ended is logged when it ends.
BEGUN = {"RETR": Action.DOWNLOAD, "STOR": Action.UPLOAD, "APPE": Action.UPLOAD, "STOU": Action.UPLOAD,
         "RNFR": Action.RENAME}  # fmt: skip
UNLOGGED = (501, 503)  # it was no such command
NOWHERE = ("127.0.0.1", 0)
TOGETHER = 0.05  # seconds in which lines of the log wait for others
ERRORS = "surrogateescape"  # names that are no UTF-8 go through as they are


@dataclass(frozen=True)
class Services:
    """What the session was handed."""

    data: Data
    log: Log
    uploads: Uploads | None
    owners: Owners | None


class Authorizer:
    """What pyftpdlib asks about permissions. `Engine` has refused what is not allowed; the kernel decides besides."""

    def __init__(self, rights: Rights) -> None:
        self._perms = "".join(sign for name, sign in PERMISSIONS.items() if name in rights.commands)

    def has_perm(self, username: str, perm: str, path: str | None = None) -> bool:
        return True

    def get_perms(self, username: str) -> str:
        return self._perms

    def get_msg_quit(self, username: str) -> str:
        return "Goodbye."

    def impersonate_user(self, username: str, password: str) -> None:
        """The worker is nobody else."""

    def terminate_impersonation(self, username: str) -> None:
        """The worker stays who it is."""


class Server:
    """What the handler asks of its server: nothing that counts here."""

    def __init__(self) -> None:
        self.ip_map: list[str] = []


class Control(socket.socket):
    """The control connection. With TLS it is a pair of sockets inside this machine, which has no addresses."""

    def __init__(self, given: socket.socket, rights: Rights) -> None:
        super().__init__(fileno=given.detach())
        self.setblocking(False)
        self._names = rights.here, rights.peer

    @property
    def family(self) -> socket.AddressFamily:
        """The peer's, also where the listener is for both and shows him as ::ffff:a.b.c.d."""
        return socket.AF_INET6 if ":" in self._names[1][0].removeprefix("::ffff:") else socket.AF_INET

    def getsockname(self) -> tuple[str, int]:
        return self._names[0]

    def getpeername(self) -> tuple[str, int]:
        return self._names[1]


class Engine(DataConnections):
    """The handler of one control connection, logged in from the start."""

    proto_cmds: ClassVar[dict[str, Any]] = {
        **{name: how for name, how in FTPHandler.proto_cmds.items() if name != "REIN"},
        "PBSZ": {"perm": None, "auth": True, "arg": True, "help": "Syntax: PBSZ <SP> 0."},
        "PROT": {"perm": None, "auth": True, "arg": True, "help": "Syntax: PROT <SP> [C|P]."},
    }
    tcp_no_delay = False  # set by the monitor: a worker sets no options
    unicode_errors = ERRORS
    _available_facts: list[str]

    @classmethod
    def prepare(cls) -> None:
        """What would else be imported or set up in the confined worker."""
        logger = logging.getLogger("pyftpdlib")
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        logger.addHandler(logging.StreamHandler())  # of the worker: its lines reach the monitor's log
        "".encode("idna")
        time.localtime()  # reads the time zone's file
        time.strptime("2000", "%Y")  # imports (MFMT)

    def __init__(self, control: socket.socket, services: Services, rights: Rights, next_: Handover, loop: Any) -> None:
        self._journal = Journal(services.log)
        self._sent_ahead = next_.sent_ahead
        self.use_gmt_times = not rights.local_time
        self._shown: set[str] = set()
        self._ascii = True  # until TYPE I (RFC 959, section 3.1.1)
        self._flags = ""
        self._source: str | None = None  # what it renames
        self._mode: str | None = None  # what it sets
        self._is_due = False  # `_send_lines` is
        self.timeout = rights.idle
        self.authorizer = Authorizer(rights)
        super().__init__(control, Server(), loop, services.data, rights, next_.protected, self._journal.send)
        self.authenticated = True
        self.username = rights.user
        self.fs = Files(rights, self, services.uploads, services.owners)
        if rights.hide_ids:
            self._available_facts = [fact for fact in self._available_facts if fact not in ("unix.uid", "unix.gid")]
        if rights.tls:
            self._extra_feats = ["AUTH TLS", "PBSZ", "PROT"]

    def begin(self) -> None:
        """The answer to the password, and then the commands that came with it."""
        self._say_message("230", self.fs.cwd)
        self.respond("230 Login successful.")
        if self._sent_ahead:
            self.handle_read()

    def recv(self, buffer_size: int) -> bytes:
        if self._sent_ahead:
            data, self._sent_ahead = self._sent_ahead, b""
            return data
        more: bytes = super().recv(buffer_size)
        return more

    def push(self, data: str) -> None:
        self.answer(data.encode("utf-8", ERRORS))

    # What is allowed.

    def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
        if cmd in ("LIST", "NLST"):
            words = arg.split(" ")
            while words and words[0].startswith("-"):
                words.pop(0)
            self._flags = arg[: len(arg) - len(" ".join(words))]
            line, arg = f"{cmd} {' '.join(words)}", " ".join(words)
        super().pre_process_command(line, cmd, arg)

    def process_command(self, cmd: str, *args: str, **kwargs: Any) -> None:
        self._is_logged, self._source, self._mode = False, self._rnfr, kwargs.get("mode")
        if cmd not in self._rights.commands:
            self.respond("550 Permission denied.")
            return
        if self._is_denied(cmd, args):
            self._refuse(cmd, args[0], "550 Permission denied.")
            return
        if cmd in NAMING and has_control(args[0]):
            self._refuse(cmd, args[0], "553 A name has no control characters.")
            return
        self._current_type = "a" if self._ascii and self._honours_ascii(cmd) else "i"
        super().process_command(cmd, *args, **kwargs)

    def _refuse(self, cmd: str, arg: str, answer: str) -> None:
        self.respond(answer)
        self.log_cmd(cmd, arg, int(answer[:3]), answer[4:])

    def _is_denied(self, cmd: str, args: tuple[str, ...]) -> bool:
        r, path = self._rights, args[0] if args else ""
        if self.proto_cmds[cmd]["perm"] is None or not path:
            return False
        wrong_up = cmd in ("STOR", "STOU", "APPE") and r.upload and not matches(r.upload, os.path.basename(path))
        wrong_down = cmd == "RETR" and r.download and not matches(r.download, os.path.basename(path))
        return matches(r.deny, path) or bool(wrong_up or wrong_down)

    def _honours_ascii(self, cmd: str) -> bool:
        if cmd in ("STOR", "STOU", "APPE"):
            return self._rights.ascii_up
        return self._rights.ascii_down and cmd != "SIZE"  # that of the file, as in vsftpd

    def ftp_TYPE(self, line: str) -> None:
        super().ftp_TYPE(line)
        if self._last_response.startswith("200"):
            self._ascii = line[:1] in "aA"

    # Who is logged in stays so.

    def ftp_USER(self, line: str) -> None:
        guest = self._rights.kind is Kind.ANONYMOUS
        self.respond("530 Can't change from guest user." if guest else "530 Can't change to another user.")

    def ftp_PASS(self, line: str) -> None:
        self.respond("230 Already logged in.")

    def ftp_QUIT(self, line: str) -> None:
        self.settle()  # what he did is logged when he has gone
        super().ftp_QUIT(line)

    def ftp_NOOP(self, line: str) -> None:
        self.respond("200 NOOP ok.")

    # Directories.

    def ftp_CWD(self, path: str) -> None:
        try:
            self.fs.chdir(path)
        except OSError as fault:
            self.respond(f"550 {fault.strerror}.")
            return
        self._say_message("250", self.fs.cwd)
        self.respond("250 Directory successfully changed.")

    def _say_message(self, code: str, folder: str) -> None:
        """The folder's own words, once a session (dirmessage_enable)."""
        name = self._rights.message_file
        if not name or folder in self._shown:
            return
        self._shown.add(folder)
        try:
            file = self.fs.open(os.path.join(folder, name), "rb")
        except (OSError, FilesystemError):
            return
        try:
            text = file.read(MESSAGE).decode("utf-8", ERRORS)
        finally:
            file.close()
        for line in text.splitlines():
            self.push(f"{code}-{line}\r\n")

    # Listings.

    def ftp_LIST(self, path: str) -> None:
        self._list(path, "LIST", lambda folder, names: self.fs.format_list(folder, names))

    def ftp_NLST(self, path: str) -> None:
        marked = "F" in self._flags

        def lines(folder: str, names: list[str]) -> Any:
            base = self.fs.cwd if folder != path else path
            prefix = os.path.relpath(folder, base) + "/" if folder != base else ""
            marks = (_mark(os.path.join(folder, name)) if marked else "" for name in names)
            pairs = zip(names, marks, strict=True)
            return (shown(f"{prefix}{name}{mark}\r\n".encode("utf-8", ERRORS)) for name, mark in pairs)

        self._list(path, "NLST", lines)

    def _list(self, path: str, cmd: str, lines: Callable[[str, list[str]], Any]) -> None:
        flags, self._flags = self._flags, ""
        try:
            if os.path.isdir(path):
                found = self.fs.below(path, flags)
            else:
                folder, last = os.path.split(path)
                found = [(folder, self._named(folder, last, flags))]
            iterator = (line for folder, names in list(found) for line in lines(folder, names))
        except OSError as fault:
            self.respond(f"550 {fault.strerror}.")
            return
        self.push_dtp_data(BufferedIteratorProducer(iterator), isproducer=True, cmd=cmd)

    def ftp_MLST(self, path: str) -> None:
        if self.fs.hides(os.path.basename(path)):
            self.respond("550 No such file or directory.")
        else:
            super().ftp_MLST(path)

    def _named(self, folder: str, last: str, flags: str) -> list[str]:
        if os.path.lexists(os.path.join(folder, last)):
            return [] if self.fs.hides(last) else [last]
        if not any(sign in last for sign in "*?["):
            return []
        return sorted(name for name in self.fs.listed(folder, flags) if fnmatchcase(name, last))

    # The log.

    def log_transfer(self, cmd: str, filename: str, receive: bool, completed: bool, elapsed: float, bytes: int) -> None:
        self._is_logged = True
        action = Action.UPLOAD if receive else Action.DOWNLOAD
        self._logged(Transfer(action, _text(filename), completed, bytes, elapsed, self._ascii))

    def log_cmd(self, cmd: str, arg: str, respcode: int, respstr: str) -> None:
        """What vsftpd logs. A browser that asks for a folder with RETR is not logged: it does so all the time."""
        action = LOGGED.get(cmd) or (BEGUN.get(cmd) if respcode >= 400 else None)
        if action is None or self._is_logged or respcode in UNLOGGED or (cmd == "RETR" and os.path.isdir(arg)):
            return
        if cmd == "RNTO":
            arg = f"{self._source} {arg}"
        elif cmd == "SITE CHMOD":
            arg = f"{arg} {self._mode}"
        self._logged(Transfer(action, _text(arg), respcode < 400, ascii=self._ascii))

    def _logged(self, what: Transfer | Said) -> None:
        self._journal.add(what)
        if not self._is_due:
            self._is_due = True
            self.ioloop.call_later(TOGETHER, self._send_lines, _errback=self.handle_error)

    def _send_lines(self) -> None:
        self._is_due = False
        self._journal.send()

    def settle(self) -> None:
        """Until the log has everything."""
        self._journal.close()

    def logline(self, msg: str, logfun: Any = None) -> None:
        """A command, behind `<- `."""
        if self._rights.log_lines:
            text = msg.removeprefix("<- ")
            shown = "PASS <password>" if text[:5].upper() == "PASS " else text
            self._logged(Said(Speech.COMMAND, _text(shown)))

    def log(self, msg: str, logfun: Any = None) -> None:
        """What pyftpdlib remarks is in no log of vsftpd's."""

    def __repr__(self) -> str:
        return (
            f"<session of {self.username!r}>"  # pyftpdlib asks for it when it closes, for a log that it does not write
        )

    def respond(self, resp: str, logfun: Any = None) -> None:
        self._respond(resp)

    def _respond(self, *answers: str) -> None:
        self._last_response = answers[-1]
        self.push("\r\n".join(answers) + "\r\n")
        if self._rights.log_lines:
            for each in answers:
                self._logged(Said(Speech.RESPONSE, _text(each)))


def _mark(path: str) -> str:
    """What `-F` writes behind a name."""
    return "@" if os.path.islink(path) else "/" if os.path.isdir(path) else ""


def _text(path: str) -> str:
    """A name as a message can carry it."""
    return path.encode("utf-8", ERRORS).decode("utf-8", "backslashreplace")


def _turn(loop: Any) -> None:
    """As IOLoop.loop, but for the first wait, which knows of a timeout too: a peer may say nothing at all."""
    while loop.socket_map:
        loop.poll(loop.sched.poll())


def drive(control: socket.socket, services: Services, rights: Rights, next_: Handover) -> None:
    """Serve the peer until he leaves."""
    os.umask(rights.umask)
    loop = IOLoop()
    try:
        engine = Engine(Control(control, rights), services, rights, next_, loop)
        engine.begin()
        _turn(loop)
        engine.settle()
    finally:
        loop.close()


def rehearse_session() -> None:
    """In the zygote."""
    nobody: Any = None
    rights = Rights(Kind.ANONYMOUS, "", "/", frozenset(("SYST", "PWD", "TYPE", "QUIT")), here=NOWHERE, peer=NOWHERE)
    before = os.umask(rights.umask)
    try:
        rehearse(
            b"SYST\r\nPWD\r\nTYPE I\r\nQUIT\r\n",
            lambda control: drive(control, Services(nobody, nobody, None, None), rights, Handover(b"")),
        )
    finally:
        os.umask(before)
