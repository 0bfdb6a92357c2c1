"""Runs in: a broker's process, as the subject, confined to its charge. Answers the monitor's explicit requests.

One request after the other. Whatever is wrong with one is told by its errno; the broker goes on. It ends with the
monitor's socket.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from bunri.broker import reaching
from bunri.broker.confining import Held
from bunri.broker.messages import (
    Answer,
    Ask,
    AskAddresses,
    AskConnect,
    AskGroup,
    AskListen,
    AskNames,
    AskOpen,
    AskUser,
    Charge,
    Refusal,
    decode_asked,
    encode,
)

MOST_NAMES = 10_000  # of one directory
CONNECT_WITHIN = 15.0  # seconds
_LARGEST = 100_000  # bytes of one message

_Given = tuple[Answer, int]  # and the descriptor beside it, or -1


class Helper:
    """What one broker holds, and its answers."""

    def __init__(self, control: socket.socket, charge: Charge, held: Held) -> None:
        self._control = control
        self._charge = charge
        self._held = held

    def run(self) -> NoReturn:
        """Serve until the monitor's end is gone."""
        while True:
            try:
                packet = self._control.recv(_LARGEST)
            except ConnectionResetError:
                os._exit(0)
            if not packet:
                os._exit(0)
            self._serve(packet)

    def _serve(self, packet: bytes) -> None:
        asked = decode_asked(packet)
        fd = -1
        try:
            answer, fd = _ANSWERS[type(asked)](self, asked)
            data = encode(answer)
            if len(data) > _LARGEST:
                raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))
            self._say(data, fd)
        except socket.gaierror as fault:
            self._say(encode(Refusal(asked.number, errno.ENOENT, str(fault.strerror or fault))), -1)
        except OSError as fault:
            code = fault.errno or (errno.ETIMEDOUT if isinstance(fault, TimeoutError) else errno.EIO)
            self._say(encode(Refusal(asked.number, code, os.strerror(code))), -1)
        except (ValueError, UnicodeError) as fault:
            self._say(encode(Refusal(asked.number, errno.EINVAL, str(fault)[:200])), -1)
        finally:
            if fd >= 0:
                os.close(fd)

    def _say(self, data: bytes, fd: int) -> None:
        socket.send_fds(self._control, [data], [fd] if fd >= 0 else [], socket.MSG_NOSIGNAL)

    def open(self, asked: AskOpen) -> _Given:
        tree = self._held.trees[0]
        assert tree is not None
        return Answer(asked.number), tree.open(asked.name, asked.flags, asked.mode)

    def names(self, asked: AskNames) -> _Given:
        tree = self._held.trees[0]
        assert tree is not None
        return Answer(asked.number, tuple(tree.names(MOST_NAMES))), -1

    def connect(self, asked: AskConnect) -> _Given:
        if self._held.sockets:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.settimeout(CONNECT_WITHIN)
                reaching.connect_unix(made, *self._held.sockets[0])
                made.settimeout(None)
            except BaseException:
                made.close()
                raise
        else:
            made = reaching.connect(self._charge.connects[0], CONNECT_WITHIN)
        return Answer(asked.number), made.detach()

    def listen(self, asked: AskListen) -> _Given:
        made = reaching.listen(reaching.canonical(asked.host), self._charge.listens[0], asked.backlog)
        return Answer(asked.number), made.detach()

    def addresses(self, asked: AskAddresses) -> _Given:
        found = socket.getaddrinfo(asked.host, None, type=socket.SOCK_STREAM)
        return Answer(asked.number, tuple(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))), -1

    def user(self, asked: AskUser) -> _Given:
        try:
            entry = pwd.getpwnam(asked.name) if asked.name else pwd.getpwuid(asked.uid)
        except (KeyError, OverflowError):  # no id is so large
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        texts = (entry.pw_name, entry.pw_gecos, entry.pw_dir, entry.pw_shell)
        return Answer(asked.number, texts, (entry.pw_uid, entry.pw_gid, *groups)), -1

    def group(self, asked: AskGroup) -> _Given:
        try:
            entry = grp.getgrnam(asked.name) if asked.name else grp.getgrgid(asked.gid)
        except (KeyError, OverflowError):  # no id is so large
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        return Answer(asked.number, (entry.gr_name, *entry.gr_mem), (entry.gr_gid,)), -1


_ANSWERS: dict[type[Ask], Callable[[Helper, Any], _Given]] = {
    AskOpen: Helper.open,
    AskNames: Helper.names,
    AskConnect: Helper.connect,
    AskListen: Helper.listen,
    AskAddresses: Helper.addresses,
    AskUser: Helper.user,
    AskGroup: Helper.group,
}
