"""Runs in: the pre-login worker; its own uid, an empty root, no network. A stranger's bytes in, yes or no out.

It holds the control socket and a `Login`, and learns nothing from it but yes or no. With a yes it ends: the session is
another process, which gets the bytes that the peer sent ahead.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import Any

import bunri
from bunri import seccomp
from bunri.apps.ftpd.messages import Ask, Greeting, Handover, Login, NoData
from bunri.apps.ftpd.rehearsal import rehearse

# All the calls it makes, and the few that an interpreter makes when memory or time ask for it. Every other is refused.
CALLS = frozenset((
    "read", "write", "close", "fcntl", "ioctl", "fstat", "newfstatat", "dup3", "close_range",  # its descriptors
    "recvfrom", "sendto", "recvmsg", "getsockname", "getsockopt",  # its two sockets
    "mmap", "munmap", "mremap", "mprotect", "madvise", "brk",  # memory
    "futex", "getpid", "getrandom", "clock_gettime", "rt_sigreturn", "exit_group",
))  # fmt: skip
OTHERS = sorted({*seccomp.syscalls_of("x86_64"), *seccomp.syscalls_of("aarch64")} - CALLS - seccomp.ATTACK_SHAPED)
LONGEST = 400  # bytes of a command line
PATIENCE = 55  # seconds in all: a little less than the policy's, so that a last word can be said
GLANCE = struct.pack("ll", 1, 0)  # SO_RCVTIMEO, set by the monitor: how often the worker looks at the clock
FEATURES = ("EPRT", "EPSV", "MDTM", "MLST type*;perm*;size*;modify*;unique*;", "REST STREAM", "SIZE", "TVFS", "UTF8")

TLS_FEATURES = ("AUTH TLS", "PBSZ", "PROT")
REFUSED = {
    Ask.DENIED: "Permission denied.",
    Ask.NEEDS_TLS: "This login must use encryption.",
    Ask.NO_TLS: "Anonymous sessions may not use encryption.",
}


class PreLogin(bunri.Compartment):
    """Talks to a peer until he has logged in."""

    policy = bunri.Policy(
        memory="64M",
        cpu="2s",
        wall="60s",
        open_files=16,
        syscalls=(seccomp.deny(*OTHERS, reason="a stranger's bytes arrive here: what it does not need is not there"),),
    )

    def __init__(self, control: socket.socket, login: Login, greeting: Greeting) -> None:
        self._control = control
        self._login = login
        self._greeting = greeting
        self._secured = greeting.secured
        self._protected = False
        self._buffer = b""
        self._user = ""
        self._failed = 0
        self._ends = 0.0

    @classmethod
    def warm_up(cls) -> None:
        nobody: Any = None
        rehearse(b"FEAT\r\nSYST\r\nQUIT\r\n", lambda control: cls(control, nobody, Greeting("", 1)).talk())

    def talk(self) -> Handover | None:
        """Until login: what the session goes on with, bytes that were sent ahead among it. None: he left."""
        self._control.setblocking(True)
        self._ends = time.monotonic() + PATIENCE
        self._greet()
        while (line := self._line()) is not None:
            word, _, argument = line.partition(" ")
            word = word.upper()
            if word == "QUIT":
                self._say(221, "Goodbye.")
                return None
            if word != "PASS":
                self._answer(word, argument)
            elif self._logged_in(argument):
                return Handover(self._buffer, self._protected)
            if self._failed >= self._greeting.attempts:
                return None
        return None

    def _greet(self) -> None:
        *before, last = self._greeting.banner.split("\n")
        self._send("".join(f"220-{line}\r\n" for line in before) + f"220 {last}\r\n")

    def _answer(self, word: str, argument: str) -> None:
        match word:
            case "USER" if argument:
                self._named(argument)
            case "USER":
                self._say(501, "USER needs a name.")
            case "FEAT":
                names = (*FEATURES, *(TLS_FEATURES if self._greeting.tls else ()))
                self._send("211-Features:\r\n" + "".join(f" {name}\r\n" for name in names) + "211 End\r\n")
            case "AUTH" if self._greeting.tls:
                self._start_tls(argument)
            case "PBSZ" if self._secured:
                self._say(200, "PBSZ set to 0.")
            case "PROT" if self._secured and argument.upper() in ("C", "P"):
                self._protected = argument.upper() == "P"
                self._say(200, "PROT now Private." if self._protected else "PROT now Clear.")
            case "PBSZ" | "PROT" if self._greeting.tls:
                self._say(503 if not self._secured else 536, f"{word} needs a secure connection, and C or P.")
            case "OPTS" if argument.upper() in ("UTF8 ON", "UTF-8 ON"):
                self._say(200, "Always in UTF8 mode.")
            case "OPTS":
                self._say(501, "Option not understood.")
            case "SYST":
                self._say(215, "UNIX Type: L8")
            case "NOOP":
                self._say(200, "NOOP ok.")
            case _:
                self._say(530, "Please login with USER and PASS.")

    def _start_tls(self, kind: str) -> None:
        if self._secured or kind.upper() not in ("TLS", "TLS-C", "SSL"):
            self._say(504, "Only AUTH TLS is known, and only once.")
            return
        self._say(234, "Proceed with negotiation.")
        self._buffer = b""  # what came in clear text is not a command of what follows
        self._user = ""
        cipher = self._control
        try:
            self._control = bunri.call(self._login.tls).result()
        except NoData:
            return  # nobody is there to talk to: the next read finds the closed socket
        finally:
            cipher.close()
        self._control.setblocking(True)
        self._secured = True

    def _named(self, user: str) -> None:
        self._user = ""
        user = user.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # nobody's, and what the log shows
        ask = Ask.PASSWORD
        if not self._greeting.any_name:
            with suppress(bunri.UsageError):  # no name that a message could carry: nobody's
                ask = bunri.call(self._login.user, user).result()
        if ask is not Ask.PASSWORD:
            self._failed += ask is Ask.DENIED
            self._say(530, REFUSED[ask])
        else:
            self._user = user
            self._say(331, "Please specify the password.")

    def _logged_in(self, password: str) -> bool:
        if not self._user:
            self._say(503, "Login with USER first.")
            return False
        user, self._user = self._user, ""
        secret = bunri.Secret(password.encode("utf-8", "surrogateescape"))  # the bytes as they came
        try:
            yes = bunri.call(self._login.password, user, secret).result()
        except bunri.UsageError:
            yes = False  # no name that a message could carry is a user's
        if not yes:
            self._failed += 1
            self._say(530, "Login incorrect.")
        return yes

    def _line(self) -> str | None:
        """The next line; None at the end, or when what comes is no command line."""
        until = min(self._ends, time.monotonic() + self._greeting.idle)
        while b"\n" not in self._buffer and len(self._buffer) <= LONGEST:
            try:
                more = self._control.recv(LONGEST)
                if not more:
                    return None
                self._buffer += more
            except BlockingIOError:
                pass  # nothing yet
            except OSError:
                return None
            if time.monotonic() > until:
                self._say(421, "Timeout.")
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        if len(line) > LONGEST:
            self._say(500, "Input line too long.")
            return None
        return line.rstrip(b"\r").decode("utf-8", "surrogateescape")

    def _say(self, code: int, text: str) -> None:
        self._send(f"{code} {text}\r\n")

    def _send(self, text: str) -> None:
        left = memoryview(text.encode())
        while left:
            try:
                left = left[self._control.send(left) :]
            except OSError:
                return  # he is gone: the next read says so
