"""Runs in: processes of their own, one for each password. Whether a password is right, and nothing else.

| process | rights |
|---|---|
| `Passwords` | its own uid, an empty root; the open file of virtual users |
| `Pam` | root's, unconfined: modules of PAM run whatever code they like, so they run away from the monitor |
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import hmac
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import bunri
from bunri.apps.ftpd.names import fault_in

COST = {"n": 1 << 14, "r": 8, "p": 1}  # 16 MiB and about 50 ms


class Passwords(bunri.Compartment):
    """Looks a password up in the file that `bunri ftpd passwd` writes."""

    policy = bunri.Policy(memory="128M", cpu="5s")

    def check(self, file: bunri.File, user: str, password: bunri.Secret) -> bool:
        """Unknown users cost as much time as known ones."""
        with file.as_file() as stream:
            lines = stream.read().decode("utf-8", "replace").splitlines()
        known = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
        salt, _, wanted = known.get(user, f"{'00' * 16}:").partition(":")
        found = hashlib.scrypt(bytes(password.reveal()), salt=bytes.fromhex(salt), **COST).hex()
        return hmac.compare_digest(found, wanted)


def hashed(password: str) -> str:
    """What stands behind a name in the file."""
    salt = os.urandom(16)
    return f"{salt.hex()}:{hashlib.scrypt(password.encode(), salt=salt, **COST).hex()}"


def set_password(path: Path, name: str, password: str | None) -> None:
    """Write a user's line, or remove it. The file is replaced as a whole; a new one is its owner's alone, an old one keeps
    owner, group and mode. Behind a link it is the file that is replaced, and the link stays."""
    if path.is_symlink() and not path.exists():
        raise bunri.UsageError(f"{path} is a link that leads nowhere")
    path = path.resolve()
    if password is not None and (fault := fault_in(name)):
        raise bunri.UsageError(f"{name!r} cannot be a user's name: {fault}")
    if password is None and not path.exists():
        raise bunri.UsageError(f"{path}: there is no user {name!r}")
    with _locked(path) as stream:
        lines = _lines(stream, path)
        kept = [line for line in lines if line.partition(":")[0] != name]
        if password is None and len(kept) == len(lines):
            raise bunri.UsageError(f"{path}: there is no user {name!r}")
        if password is not None:
            kept.append(f"{name}:{hashed(password)}")
        _replace(path, kept, os.fstat(stream.fileno()))


@contextmanager
def _locked(path: Path) -> Generator[BinaryIO, None, None]:
    """The file, as long as nobody else changes it. Who waited may hold one that has been replaced: he looks again."""
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
                    yield stream
                    return


def _lines(stream: BinaryIO, path: Path) -> list[str]:
    try:
        return stream.read().decode().splitlines()
    except UnicodeDecodeError as fault:
        raise bunri.UsageError(f"{path} is not UTF-8: {fault.reason} at byte {fault.start}") from None


def _replace(path: Path, lines: list[str], old: os.stat_result) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write("".join(f"{line}\n" for line in lines))
            _alike(number, path, old)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _alike(number: int, path: Path, old: os.stat_result) -> None:
    """The new file is whose the old one was: its readers may not be who changes it."""
    try:
        os.fchown(number, old.st_uid, old.st_gid)
        os.fchmod(number, old.st_mode & 0o777)
    except PermissionError:
        raise bunri.UsageError(
            f"{path} belongs to user {old.st_uid}, group {old.st_gid}. Change it as that user, or as root"
        ) from None


class Pam(bunri.Compartment):
    """Asks PAM, as a process that starts for this one question and ends with its answer."""

    policy = bunri.Policy.dangerous_unconfined()

    def check(self, service: str, user: str, password: bunri.Secret, peer: str) -> bool:
        """Authentication and the account's validity; no session is opened."""
        given = bytes(password.reveal())
        if b"\0" in given:  # PAM would take what stands before it for the whole
            return False
        with _Conversation(given) as talk:
            return talk.ask(service.encode(), user.encode(), peer.encode())


# pam(3) by ctypes. The structures are those of security/pam_appl.h.

PAM_SUCCESS, PAM_CONV_ERR, PAM_BUF_ERR, PAM_RHOST = 0, 19, 5, 4
PAM_PROMPT_ECHO_OFF, PAM_ERROR_MSG, PAM_TEXT_INFO = 1, 3, 4


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_Talk = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)


class _Talker(ctypes.Structure):
    _fields_ = (("talk", _Talk), ("data", ctypes.c_void_p))


class _Conversation:
    """One question to PAM, answered with the password wherever it asks for something unseen."""

    def __init__(self, password: bytes) -> None:
        self._password = password
        self._pam = ctypes.CDLL("libpam.so.0")
        self._libc = ctypes.CDLL(None)
        self._libc.calloc.restype = self._libc.strdup.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p()
        self._talker = _Talker(_Talk(self._answer), None)
        self._status = PAM_SUCCESS

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            self._pam.pam_end(self._handle, self._status)

    def ask(self, service: bytes, user: bytes, peer: bytes) -> bool:
        self._status = self._pam.pam_start(service, user, ctypes.byref(self._talker), ctypes.byref(self._handle))
        steps: tuple[tuple[Any, int, object], ...] = (
            (self._pam.pam_set_item, PAM_RHOST, ctypes.c_char_p(peer)),
            (self._pam.pam_authenticate, 0, None),
            (self._pam.pam_acct_mgmt, 0, None),
        )
        for step, number, value in steps:
            if self._status == PAM_SUCCESS:
                self._status = step(self._handle, number, *([value] if value is not None else []))
        return self._status == PAM_SUCCESS

    def _answer(self, count: int, messages: Any, answers: Any, _: object) -> int:
        space = self._libc.calloc(count, ctypes.sizeof(_Response))  # PAM frees it
        if not space:
            return PAM_BUF_ERR
        responses = ctypes.cast(space, ctypes.POINTER(_Response))
        for number in range(count):
            style = messages[number].contents.style
            if style == PAM_PROMPT_ECHO_OFF:
                responses[number].text = self._libc.strdup(self._password)
            elif style not in (PAM_ERROR_MSG, PAM_TEXT_INFO):
                return PAM_CONV_ERR  # it asks for what nobody has said
        answers[0] = responses
        return PAM_SUCCESS
