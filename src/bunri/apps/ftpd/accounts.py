"""Runs in: the monitor. What a right login earns: a user, a root, and what its session does.

Nothing here comes from the peer but the name. It is worked out before the password is looked at, and changes nothing.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import bunri
from bunri.apps.ftpd import config as _config
from bunri.apps.ftpd import verbs
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.messages import Kind, Rights
from bunri.apps.ftpd.names import fault_in

READING = frozenset({
    "ABOR", "ALLO", "CDUP", "CWD", "EPRT", "EPSV", "FEAT", "HELP", "LIST", "MDTM", "MLSD", "MLST", "MODE", "NLST",
    "NOOP", "OPTS", "PASS", "PASV", "PORT", "PWD", "QUIT", "REST", "RETR", "SITE", "SITE HELP", "SIZE", "STAT", "STRU",
    "SYST", "TYPE", "USER", "XCUP", "XCWD", "XPWD",
})  # fmt: skip
LISTING = frozenset(("LIST", "MLSD", "NLST", "STAT"))
UPLOADING, MAKING = frozenset(("STOR", "STOU")), frozenset(("MKD", "XMKD"))
CHANGING = frozenset(("APPE", "DELE", "MFMT", "RMD", "RNFR", "RNTO", "XRMD"))
FREE = 1 << 40  # bytes a file may grow to: the disk and its quotas decide


@dataclass(frozen=True)
class Account:
    """A login's user, its root and its session."""

    user: bunri.User
    files: bunri.fs.FileGrant
    file_size: int | None  # bytes its files may grow to
    rights: Rights
    config: Config  # with the user's own file
    root: str  # the folder outside
    gives_away: bool = False  # what is uploaded becomes chown_username's

    def policy(self, of: bunri.Policy) -> bunri.Policy:
        """The session's policy."""
        return _filled(of, self.user, self.files, self.file_size)


@lru_cache(maxsize=64)
def _filled(of: bunri.Policy, user: bunri.User, files: bunri.fs.FileGrant, file_size: int | None) -> bunri.Policy:
    """The same object at each login of an account: what was worked out for it is not worked out again."""
    return of.with_(user=user, files=[files], file_size=file_size)


def account(main: Config, name: str, kind: Kind, tls: bool) -> Account:
    """What `name` earned. UsageError: nothing, and why (for the log)."""
    c = _own(main, name) if kind is not Kind.ANONYMOUS else main
    service = c.ftp_username if kind is Kind.ANONYMOUS else c.guest_username
    entry = _entry(name) if kind is Kind.LOCAL else _service_entry(service)
    if entry is not None and entry.pw_uid == 0:
        raise bunri.UsageError("root's files are not served: a session as root would own them all")
    commands = _commands(c, kind, tls)
    home, start, at_root = _home(c, name, kind, entry)
    writes = bool(commands & (UPLOADING | MAKING | CHANGING))
    if at_root and writes and not c.allow_writeable_chroot:
        _refuse_writable(home, entry)
    place = "/" if at_root else home
    files, file_size = _grant(home, place, writes), FREE if writes else None
    gives_away = c.chown_uploads and not _is_as_local(c, kind) and bool(commands & UPLOADING)
    if gives_away:
        _entry(c.chown_username)
    rights = _rights(c, name, kind, commands, start, tls)
    ids_of = _ids_of if kind is Kind.LOCAL else _service_ids_of
    return Account(_user(entry, ids_of), files, file_size, rights, c, home, gives_away)


@lru_cache(maxsize=64)
def _grant(home: str, place: str, writes: bool) -> bunri.fs.FileGrant:
    """What is off costs no permission."""
    return (bunri.fs.write if writes else bunri.fs.read)(home, at=place)


def _own(main: Config, name: str) -> Config:
    if not main.user_config_dir:
        return main
    _refuse_no_name(name)
    return _config.for_user(main, Path(main.user_config_dir) / name)


def _refuse_no_name(name: str) -> None:
    if fault := fault_in(name):
        raise bunri.UsageError(f"the name is no part of a path: {fault}")


def _entry(name: str) -> pwd.struct_passwd | None:
    """None: a user id of its own."""
    if not name:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise bunri.UsageError(f"there is no user {name!r} on this system") from None


# Whom the configuration names is looked up once for it: each look-up asks all sources of nsswitch.conf(5).
_service_entry = lru_cache(maxsize=16)(_entry)


def _ids_of(entry: pwd.struct_passwd) -> bunri.User:
    return bunri.User.ids(entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid))


_service_ids_of = lru_cache(maxsize=16)(_ids_of)


def forget_service_users() -> None:
    """The configuration was read (again): look them up anew."""
    _service_entry.cache_clear()
    _service_ids_of.cache_clear()


def _user(entry: pwd.struct_passwd | None, ids_of: Callable[[pwd.struct_passwd], bunri.User]) -> bunri.User:
    if os.geteuid() != 0:
        return bunri.User.same()
    if entry is None:
        return bunri.User.dynamic()
    return ids_of(entry)


def _home(c: Config, name: str, kind: Kind, entry: pwd.struct_passwd | None) -> tuple[str, str, bool]:
    """The folder outside, the directory to begin in, and whether the folder is the session's whole root."""
    given = c.anon_root if kind is Kind.ANONYMOUS else c.local_root
    home = given or (entry.pw_dir if entry is not None else "")
    if kind is not Kind.ANONYMOUS and c.user_sub_token and c.user_sub_token in home:
        _refuse_no_name(name)
        home = home.replace(c.user_sub_token, name)
    jail, dot, inner = home.partition("/./")
    at_root = kind is not Kind.LOCAL or (c.chroot_local_user != (c.chroot_list_enable and name in _listed(c)))
    if dot and c.passwd_chroot_enable and at_root:
        return _folder(jail), "/" + inner.strip("/"), True
    folder = _folder(home)
    return folder, "/" if at_root else folder, at_root


def _folder(path: str) -> str:
    found = os.path.realpath(path) if path else ""
    if not os.path.isdir(found):
        raise bunri.UsageError(f"its folder {path!r} is none")
    return found


def _listed(c: Config) -> frozenset[str]:
    return names_in(c.chroot_list_file)


def names_in(file: str) -> frozenset[str]:
    """The names of a list file, one a line. UsageError if it cannot be read."""
    try:
        info = os.stat(file)
        return _names_in(file, (info.st_ino, info.st_size, info.st_mtime_ns))
    except (OSError, UnicodeDecodeError) as fault:
        raise bunri.UsageError(f"{file} cannot be read: {why_unread(fault)}") from None


@lru_cache(maxsize=8)
def _names_in(file: str, _state: tuple[int, ...]) -> frozenset[str]:
    """Read again only when it has changed: strangers say names as fast as they like."""
    lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def why_unread(fault: OSError | UnicodeDecodeError) -> str:
    return "it is not UTF-8" if isinstance(fault, UnicodeDecodeError) else str(fault.strerror)


def _refuse_writable(home: str, entry: pwd.struct_passwd | None) -> None:
    info = os.stat(home)
    owns = entry is not None and info.st_uid == entry.pw_uid and info.st_mode & 0o200
    shares = entry is not None and info.st_mode & 0o020 and info.st_gid in os.getgrouplist(entry.pw_name, entry.pw_gid)
    if owns or shares or info.st_mode & 0o002:
        raise bunri.UsageError(
            f"{home} is its root, and it may write there. Set allow_writeable_chroot=YES to allow it"
        )


def _is_as_local(c: Config, kind: Kind) -> bool:
    """Guests have anonymous's rights, unless they are to have local ones."""
    return kind is Kind.LOCAL or (kind is Kind.GUEST and c.virtual_use_local_privs)


def _commands(c: Config, kind: Kind, tls: bool) -> frozenset[str]:
    commands = READING
    if tls:
        commands |= {"PBSZ", "PROT"}
    if not c.dirlist_enable:
        commands -= LISTING
    if not c.download_enable:
        commands -= {"RETR"}
    if c.write_enable:
        as_local = _is_as_local(c, kind)
        commands |= UPLOADING if as_local or c.anon_upload_enable else frozenset()
        commands |= MAKING if as_local or c.anon_mkdir_write_enable else frozenset()
        commands |= CHANGING if as_local or c.anon_other_write_enable else frozenset()
        commands |= {"SITE CHMOD"} if as_local and c.chmod_enable else frozenset()
    if not c.mdtm_write:
        commands -= {"MFMT"}
    if not c.pasv_enable:
        commands -= {"PASV", "EPSV"}
    if not c.port_enable:
        commands -= {"PORT", "EPRT"}
    if c.cmds_allowed:
        commands = verbs.among(commands, f"{c.cmds_allowed},USER,PASS,QUIT")
    return commands - verbs.among(commands, c.cmds_denied)


def _rights(c: Config, name: str, kind: Kind, commands: frozenset[str], start: str, tls: bool) -> Rights:
    as_local = _is_as_local(c, kind)
    return Rights(
        kind=kind,
        user="ftp" if kind is Kind.ANONYMOUS else name,
        start=start,
        commands=commands,
        writes=bool(commands & (UPLOADING | MAKING | CHANGING)),
        overwrites=as_local or c.anon_other_write_enable,
        world_readable_only=not as_local and c.anon_world_readable_only,
        umask=c.local_umask if as_local else c.anon_umask,
        file_mode=c.file_open_mode,
        hide_ids=c.hide_ids,
        local_time=c.use_localtime,
        message_file=c.message_file if c.dirmessage_enable else "",
        recursive=c.ls_recurse_enable,
        ascii_down=c.ascii_download_enable,
        ascii_up=c.ascii_upload_enable,
        deny=c.deny_file,
        hide=c.hide_file,
        download=c.download_file,
        upload=c.upload_file,
        rate=c.local_max_rate if as_local else c.anon_max_rate,
        idle=c.idle_session_timeout,
        stall=c.data_connection_timeout,
        patience=c.accept_timeout,
        pasv_address=c.pasv_address,
        log_lines=c.log_ftp_protocol,
        tls=tls,
        only_tls=c.ssl_enable and (c.force_anon_data_ssl if kind is Kind.ANONYMOUS else c.force_local_data_ssl),
    )
