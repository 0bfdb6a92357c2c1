"""Runs in: the user's shell. `bunri ftpd --check`: what a configuration means, and what each process may do under it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import bunri
from bunri.apps.ftpd.accounts import CHANGING, MAKING, UPLOADING, account
from bunri.apps.ftpd.auth import Pam, Passwords
from bunri.apps.ftpd.config import DEFAULTS, Config
from bunri.apps.ftpd.messages import Kind
from bunri.apps.ftpd.prelogin import PreLogin
from bunri.apps.ftpd.session import Session

# Options of vsftpd whose purpose is served without them.
NEEDLESS = {
    "nopriv_user": "every process before login has a user id of its own, or that of whoever starts the server",
    "secure_chroot_dir": "the root of a process without files is an empty one in memory",
}


def explained(config: Config) -> Iterator[str]:
    """The lines to print. UsageError for an account that could not be served."""
    yield from _listening(config)
    yield "logins:"
    yield from _logins(config)
    yield "processes:"
    yield "  monitor, one: whoever starts it; the listener, the data sockets, starting workers, the logs"
    yield f"  pre-login, one a connection: {_granted(PreLogin.policy)}; the control socket and a Login"
    if config.local_enable:
        yield from _auth(config)
    yield from _sessions(config)
    changed = [name for name in NEEDLESS if getattr(config, name) != getattr(DEFAULTS, name)]
    for name in changed:
        yield f"{name} is not needed: {NEEDLESS[name]}"


def _listening(config: Config) -> Iterator[str]:
    address = config.listen_address6 or "::" if config.listen_ipv6 else config.listen_address or "0.0.0.0"
    most = f"{config.max_clients or 'any number of'} clients, {config.max_per_ip or 'any number'} from one address"
    yield f"listens on {address} port {config.listen_port}: {most}"
    passive = f"{config.pasv_min_port or 'any'} to {config.pasv_max_port or 'any'}" if config.pasv_enable else "off"
    source = config.ftp_data_port if config.connect_from_port_20 else "any"
    active = f"from port {source}" if config.port_enable else "off"
    yield f"data: passive ports {passive}; active {active}; only ever with the peer of the control connection"


def _logins(config: Config) -> Iterator[str]:
    if config.anonymous_enable:
        yield "  anonymous, ftp: without a password"
    if config.guest_enable:
        whence = config.virtual_passwd_file or f"PAM service {config.pam_service_name}"
        yield f"  virtual users of {whence}, as user {config.guest_username}"
    elif config.local_enable:
        yield f"  users of this system, by PAM service {config.pam_service_name}; never root"
    if config.userlist_enable:
        yield f"  {'but not' if config.userlist_deny else 'and of these only'} those listed in {config.userlist_file}"
    yield f"  {config.max_login_fails} failures end a connection; each costs {config.delay_failed_login} s"


def _auth(config: Config) -> Iterator[str]:
    if config.virtual_passwd_file:
        yield f"  auth, one a password: {_granted(Passwords.policy)}; the open file {config.virtual_passwd_file}"
    else:
        yield f"  auth, one a password: unconfined, {Pam.policy.user!r}: PAM's modules are root's code"


def _sessions(config: Config) -> Iterator[str]:
    samples: list[tuple[str, Kind]] = []
    if config.anonymous_enable:
        samples.append(("anonymous", Kind.ANONYMOUS))
    if config.guest_enable:
        samples.append(("USER", Kind.GUEST))
    for name, kind in samples:
        try:
            it = account(config, name, kind, tls=False)
        except bunri.UsageError as fault:
            yield f"  session of {name}: none could start: {fault}"
            continue
        changes = sorted(it.rights.commands & (UPLOADING | MAKING | CHANGING | {"SITE CHMOD"}))
        yield f"  session of {name}: {_granted(it.policy(Session.policy))}; the control socket, a Data, a Log"
        yield f"    {'changes files by ' + ', '.join(changes) if changes else 'changes nothing'}"
        if it.gives_away:
            mode = f"0{config.chown_upload_mode:o}"
            yield f"    Uploads: a broker opens new files as {config.ftp_username}; they become {config.chown_username}'s, {mode}"
    if config.local_enable and not config.guest_enable:
        jailed = "is its whole root" if config.chroot_local_user else "stands where it stands, and nothing else does"
        words = "read and write" if config.write_enable else "read"
        yield f"  session of a user: his ids, {words}; his folder {config.local_root or '(home)'} {jailed}"


def _granted(policy: bunri.Policy) -> str:
    files = ", ".join(map(repr, policy.files)) if isinstance(policy.files, tuple) else ""
    user = repr(policy.user) if os.geteuid() == 0 else "User.same()"
    return f"{user}, {files or 'no files'}, no network"
