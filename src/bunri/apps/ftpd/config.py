"""Runs in: the process that starts the server, and the monitor after a login; pure but for reading the files it is given.

vsftpd.conf(5): the options that this server has, with vsftpd's meanings and defaults. A line is `name=value` without
spaces, or a comment. What is unknown, senseless or not built is refused, with file, line and the nearest name: a
server that quietly does less than its configuration says is worse than one that does not start.
"""

from __future__ import annotations

import codecs
import difflib
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import bunri
from bunri.apps.ftpd import patterns, verbs

# vsftpd has these as well; a configuration that sets one to something else than its default is refused.
NOT_BUILT: dict[str, str] = {
    "delete_failed_uploads": "NO", "deny_email_enable": "NO", "force_dot_files": "NO",
    "no_anon_password": "NO",
    "one_process_model": "NO", "pasv_addr_resolve": "NO", "require_cert": "NO", "run_as_launching_user": "NO",
    "secure_email_list_enable": "NO", "session_support": "NO",
    "ssl_sslv2": "NO", "ssl_sslv3": "NO", "strict_ssl_read_eof": "NO",
    "strict_ssl_write_shutdown": "NO", "tcp_wrappers": "NO", "tilde_user_enable": "NO",
    "validate_cert": "NO", "delay_successful_login": "0", "trans_chunk_size": "0", "banned_email_file": "",
    "ca_certs_file": "",
    "dsa_cert_file": "", "dsa_private_key_file": "", "email_password_file": "",
    "isolate": "YES", "isolate_network": "YES",
    "seccomp_sandbox": "YES", "allow_writeable_chroot": "", "pasv_promiscuous": "NO", "port_promiscuous": "NO",
}  # fmt: skip
# And these, whose value changes nothing here that a user would meet: YES and NO are both accepted, and why.
EITHER: dict[str, str] = {
    "background": "it stays in the foreground, where systemd wants it",
    "check_shell": "PAM's service decides about shells, as with a vsftpd that was built with PAM",
    "debug_ssl": "why the handshake of a control connection failed is logged always",
    "lock_upload_files": "no file is locked",
    "no_log_lock": "a line of a log is one write, and no lock is taken",
    "setproctitle_enable": "the titles of the processes stay as they are",
    "ssl_request_cert": "no certificate is asked for",
    "ssl_tlsv1": "TLS 1.2 and newer",
    "use_sendfile": "how the bytes go out is nobody's matter",
}
# Why, where the reason is not that nobody has written it yet.
REASONS: dict[str, str] = {
    "pasv_promiscuous": "data connections are with the peer of the control connection, always",
    "port_promiscuous": "data connections are with the peer of the control connection, always",
    "one_process_model": "the processes are the point",
    "isolate": "the processes are always isolated",
    "isolate_network": "the processes are always isolated",
    "seccomp_sandbox": "the filter is always on",
    "run_as_launching_user": "it does so by itself when root did not start it",
    "tcp_wrappers": "use the firewall",
}
MODES = ("anon_umask", "chown_upload_mode", "file_open_mode", "local_umask")
MOST = (1 << 32) - 1
# The least and the most of numbers; of every other any that vsftpd has room for.
RANGES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(MODES, (0, 0o777)),
    **dict.fromkeys(("ftp_data_port", "listen_port", "pasv_min_port"), (1, 65535)),
    "pasv_max_port": (1024, 65535),  # none below is listened on
    **dict.fromkeys(("accept_timeout", "connect_timeout", "idle_session_timeout", "max_login_fails"), (1, MOST)),
}
ZERO_IS_ANY = ("listen_port", "pasv_max_port", "pasv_min_port")
YES, NO = ("yes", "true", "1"), ("no", "false", "0")
# Which option would do nothing in a user's own file: it has been used by then, or is about anonymous or all sessions.
ONLY_MAIN = frozenset({
    "allow_anon_ssl", "anon_root", "dual_log_enable", "force_anon_data_ssl", "userlist_log", "xferlog_enable",
    "xferlog_std_format",
    "anonymous_enable", "banner_file", "delay_failed_login", "force_anon_logins_ssl",
    "force_local_logins_ssl", "ftp_username", "ftpd_banner", "guest_enable", "implicit_ssl", "listen", "listen_address",
    "listen_address6", "listen_ipv6", "listen_port", "local_enable", "max_clients", "max_login_fails", "max_per_ip",
    "nopriv_user", "pam_service_name", "require_ssl_reuse", "rsa_cert_file", "rsa_private_key_file",
    "secure_chroot_dir", "ssl_ciphers", "ssl_enable", "syslog_enable", "user_config_dir", "userlist_deny", "userlist_enable",
    "userlist_file", "virtual_passwd_file", "vsftpd_log_file", "xferlog_file",
})  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What the options say. Times in seconds, rates in bytes per second, 0 is no limit."""

    # Listening.
    listen: bool = False
    listen_ipv6: bool = False
    listen_address: str = ""
    listen_address6: str = ""
    listen_port: int = 21
    max_clients: int = 0
    max_per_ip: int = 0
    ftpd_banner: str = ""
    banner_file: str = ""
    # Who may log in.
    anonymous_enable: bool = False
    ftp_username: str = "ftp"
    local_enable: bool = False
    guest_enable: bool = False
    guest_username: str = "ftp"
    virtual_use_local_privs: bool = False
    virtual_passwd_file: str = ""  # ours: what `bunri ftpd passwd` writes; in place of PAM for guests
    pam_service_name: str = "vsftpd"
    userlist_enable: bool = False
    userlist_deny: bool = True
    userlist_file: str = "/etc/vsftpd.user_list"
    userlist_log: bool = False
    user_config_dir: str = ""
    max_login_fails: int = 3
    delay_failed_login: int = 1
    # Where a session stands.
    anon_root: str = ""
    local_root: str = ""
    user_sub_token: str = ""
    chroot_local_user: bool = False
    chroot_list_enable: bool = False
    chroot_list_file: str = "/etc/vsftpd.chroot_list"
    passwd_chroot_enable: bool = False
    allow_writeable_chroot: bool = False
    nopriv_user: str = "nobody"
    secure_chroot_dir: str = "/var/run/vsftpd/empty"
    # What a session may do.
    write_enable: bool = False
    download_enable: bool = True
    dirlist_enable: bool = True
    chmod_enable: bool = True
    mdtm_write: bool = True  # here: MFMT. MDTM reads only
    anon_upload_enable: bool = False
    anon_mkdir_write_enable: bool = False
    anon_other_write_enable: bool = False
    anon_world_readable_only: bool = True
    cmds_allowed: str = ""
    cmds_denied: str = ""
    deny_file: str = ""
    hide_file: str = ""
    download_file: str = ""
    upload_file: str = ""
    hide_ids: bool = False
    use_localtime: bool = False
    dirmessage_enable: bool = False
    message_file: str = ".message"
    text_userdb_names: bool = False
    chown_uploads: bool = False
    chown_username: str = "root"
    chown_upload_mode: int = 0o600
    ls_recurse_enable: bool = False
    ascii_download_enable: bool = False
    ascii_upload_enable: bool = False
    local_umask: int = 0o077
    anon_umask: int = 0o077
    file_open_mode: int = 0o666
    anon_max_rate: int = 0
    local_max_rate: int = 0
    # Data connections.
    async_abor_enable: bool = False  # the urgent bytes of ABOR are always understood
    pasv_enable: bool = True
    pasv_min_port: int = 0
    pasv_max_port: int = 0
    pasv_address: str = ""
    port_enable: bool = True
    connect_from_port_20: bool = False
    ftp_data_port: int = 20
    accept_timeout: int = 60
    connect_timeout: int = 60
    data_connection_timeout: int = 300
    idle_session_timeout: int = 300
    # Logs.
    xferlog_enable: bool = False
    xferlog_std_format: bool = False
    xferlog_file: str = "/var/log/xferlog"
    dual_log_enable: bool = False
    vsftpd_log_file: str = "/var/log/vsftpd.log"
    log_ftp_protocol: bool = False
    syslog_enable: bool = False
    # TLS.
    ssl_enable: bool = False
    implicit_ssl: bool = False
    allow_anon_ssl: bool = False
    force_local_logins_ssl: bool = True
    force_local_data_ssl: bool = True
    force_anon_logins_ssl: bool = False
    force_anon_data_ssl: bool = False
    require_ssl_reuse: bool = True
    ssl_ciphers: str = ""  # vsftpd: DES-CBC3-SHA, which nobody has any more. Here: those of the library
    rsa_cert_file: str = "/usr/share/ssl/certs/vsftpd.pem"
    rsa_private_key_file: str = ""
    # Where each option was set; under "" the file. What is found wrong later is told with its place.
    places: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)

    def at(self, name: str) -> str:
        """The place of an option, to stand before what is wrong with it."""
        return self.places.get(name) or self.places.get("") or "the configuration"


DEFAULTS = Config()
KINDS: dict[str, type] = {it.name: type(getattr(DEFAULTS, it.name)) for it in fields(Config) if it.name != "places"}
del NOT_BUILT["allow_writeable_chroot"]


def read(path: Path, given: Iterable[str] = ()) -> Config:
    """The configuration of a file, with the `name=value` of the command line over it. UsageError for any fault."""
    try:
        lines = list(_lines(path))
    except FileNotFoundError:
        raise bunri.UsageError(f"there is no file {str(path)!r}") from None
    return _checked(Config(), str(path), [*lines, *_given(given)])


def shared(folder: str, port: int, given: Iterable[str] = ()) -> Config:
    """A folder for anonymous, read-only, on the loopback, by processes with user ids of their own."""
    plain = Config(
        listen=True, listen_address="127.0.0.1", listen_port=port, anonymous_enable=True, anon_root=folder,
        ftp_username="", ftpd_banner="bunri ftpd: ready.",
    )  # fmt: skip
    return _checked(plain, "--share", _given(given))


def for_user(config: Config, path: Path) -> Config:
    """The same with a user's own file over it; unchanged where he has none. UsageError for any fault."""
    try:
        values, places = _settings(_lines(path))
    except FileNotFoundError:
        return config
    for name in sorted(set(values) & ONLY_MAIN):
        raise bunri.UsageError(f"{places[name]}: {name} does nothing in a user's own file. Set it in the main file")
    own = replace(config, **values, places={**config.places, **places})
    refuse_senseless(own)
    return own


def _checked(plain: Config, where: str, lines: Iterable[tuple[str, str]]) -> Config:
    values, places = _settings(lines)
    config = replace(plain, **values, places={"": where, **places})
    refuse_senseless(config)
    return config


def _given(options: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((f"-o{text}", text) for text in options)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines that say something, each with its place."""
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            yield f"{path}:{number}", line.rstrip("\r")


def _text(path: Path) -> str:
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)  # some editors begin a file with it
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise bunri.UsageError(f"{path}: {fault.strerror}") from None
    try:
        return data.decode()
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise bunri.UsageError(f"{path}:{line}: this line is not UTF-8. Write the file in UTF-8") from None


def _settings(lines: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values, and where each was set. The last one holds."""
    values, places = dict[str, Any](), dict[str, str]()
    for where, line in lines:
        name, value = _pair(line, where)
        values[name], places[name] = value, where
    values.pop("", None)
    places.pop("", None)
    return values, places


def _pair(line: str, where: str) -> tuple[str, Any]:
    name, equals, text = line.partition("=")
    if "\0" in line:
        raise bunri.UsageError(f"{where}: there is a zero byte in this line. Take it out")
    if not equals:
        raise bunri.UsageError(f"{where}: {line!r} is no setting. Write name=value")
    if name != name.strip():
        raise bunri.UsageError(f"{where}: no space may stand around the name. Write {name.strip()}={text.strip()}")
    if name in EITHER:
        _yes(name, text, where)
        return "", None
    if name in NOT_BUILT:
        _same_as_default(name, text, where)
        return "", None
    if name not in KINDS:
        close = difflib.get_close_matches(name, [*KINDS, *NOT_BUILT, *EITHER], n=1)
        hint = f"Did you mean {close[0]}?" if close else "vsftpd.conf(5) has the names"
        raise bunri.UsageError(f"{where}: there is no option {name!r}. {hint}")
    return name, _value(name, text, where)


def _same_as_default(name: str, text: str, where: str) -> None:
    default = NOT_BUILT[name]
    alike = {"YES": YES, "NO": NO}.get(default, (default,))
    if text.strip().lower() in (*alike, ""):
        return
    why = REASONS.get(name, "it is not built")
    raise bunri.UsageError(f"{where}: bunri ftpd does not have vsftpd's option {name}: {why}. Take the line out")


def _value(name: str, text: str, where: str) -> bool | int | str:
    kind = KINDS[name]
    if kind is str:
        if fault := CHECKS[name](text) if name in CHECKS and text else None:
            raise bunri.UsageError(f"{where}: {name}={text}: {fault}")
        return text
    if text != text.strip():
        raise bunri.UsageError(f"{where}: no space may stand around the value. Write {name}={text.strip()}")
    if kind is bool:
        return _yes(name, text, where)
    return _number(name, text, where)


def _yes(name: str, text: str, where: str) -> bool:
    if text.lower() not in (*YES, *NO):
        raise bunri.UsageError(f"{where}: {name}={text!r} is neither YES nor NO")
    return text.lower() in YES


def _number(name: str, text: str, where: str) -> int:
    octal = text.startswith("0")
    if not re.fullmatch(r"0[0-7]*|[1-9][0-9]{0,20}", text, re.ASCII):
        raise bunri.UsageError(f"{where}: {name}={text!r} is no number (with a first 0: octal)")
    number = int(text, 8 if octal else 10)
    low, high = RANGES.get(name, (0, MOST))
    if number > high and name in MODES:
        hint = "" if octal else f". Write it with a first 0: {name}=0{text}"
        raise bunri.UsageError(f"{where}: {name}={text} is above 0777{hint}")
    if not low <= number <= high and not (number == 0 and name in ZERO_IS_ANY):
        ends = f"at least {low}" if low and high == MOST else f"a number from {low} to {high}"
        raise bunri.UsageError(f"{where}: {name}={text} is out of range: it is {ends}")
    return number


def _no_ciphers(text: str) -> str | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(text)
    except ssl.SSLError:
        return "there is no cipher in it. See openssl-ciphers(1)"
    return None


def _no_ipv4(text: str) -> str | None:
    return None if _is_address(socket.AF_INET, text) else "it is no IPv4 address, as 192.0.2.1"


def _no_ipv6(text: str) -> str | None:
    return None if _is_address(socket.AF_INET6, text.partition("%")[0]) else "it is no IPv6 address, as 2001:db8::1"


def _is_address(family: socket.AddressFamily, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


# What is wrong with the text of an option; None if nothing.
CHECKS: dict[str, Callable[[str], str | None]] = {
    **dict.fromkeys(("deny_file", "hide_file", "download_file", "upload_file"), patterns.check),
    **dict.fromkeys(("cmds_allowed", "cmds_denied"), verbs.check),
    **dict.fromkeys(("listen_address", "pasv_address"), _no_ipv4),
    "listen_address6": _no_ipv6,
    "ssl_ciphers": _no_ciphers,
}


def refuse_senseless(config: Config) -> None:
    """Settings that contradict each other, or would let nobody in."""
    c = config
    nobody = not (c.anonymous_enable or c.local_enable)
    in_clear = c.ssl_enable and c.anonymous_enable and not c.allow_anon_ssl
    owned = c.write_enable and c.anon_upload_enable and c.ftp_username
    faults = (
        ("listen_ipv6", c.listen and c.listen_ipv6, "listen and listen_ipv6 exclude each other. Keep one"),
        ("local_enable", nobody, "nobody could log in. Set anonymous_enable=YES or local_enable=YES"),
        ("guest_enable", c.guest_enable and not c.local_enable, "guest_enable=YES needs local_enable=YES"),
        ("virtual_passwd_file", c.virtual_passwd_file and not c.guest_enable, "virtual_passwd_file needs guest_enable=YES"),
        ("implicit_ssl", c.implicit_ssl and not c.ssl_enable, "implicit_ssl=YES needs ssl_enable=YES"),
        ("force_anon_logins_ssl", in_clear and c.force_anon_logins_ssl,
         "force_anon_logins_ssl=YES and allow_anon_ssl=NO let no anonymous in. Set allow_anon_ssl=YES"),
        ("force_anon_data_ssl", in_clear and c.force_anon_data_ssl,
         "force_anon_data_ssl=YES and allow_anon_ssl=NO leave anonymous no way for data. Set allow_anon_ssl=YES"),
        ("pasv_min_port", 0 < c.pasv_max_port < c.pasv_min_port, "pasv_min_port is above pasv_max_port"),
        ("port_enable", not (c.pasv_enable or c.port_enable), "pasv_enable=NO and port_enable=NO leave no way for data"),
        ("chown_uploads", c.chown_uploads and not owned, "chown_uploads=YES needs anonymous uploads, by a user of this "
         "system: set anon_upload_enable=YES and ftp_username"),
    )  # fmt: skip
    for name, holds, sentence in faults:
        if holds:
            raise bunri.UsageError(f"{config.at(name)}: {sentence}")
