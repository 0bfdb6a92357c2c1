"""Runs in: the user's shell. `bunri ftpd --check`: what a configuration means, and what each process may do under it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import bunri
from bunri.apps.ftpd.accounts import CHANGING, MAKING, UPLOADING, account
from bunri.apps.ftpd.auth import Pam, Passwords
from bunri.apps.ftpd.config import DEFAULTS, Config
from bunri.apps.ftpd.messages import Kind
from bunri.apps.ftpd.names import fault_in
from bunri.apps.ftpd.needs import unmet
from bunri.apps.ftpd.prelogin import CALLS, PreLogin
from bunri.apps.ftpd.session import Session
from bunri.apps.ftpd.tls import Tls

# Options of vsftpd whose purpose is served without them.
NEEDLESS = {
    "nopriv_user": "every process before login has a user id of its own, or that of whoever starts the server",
    "secure_chroot_dir": "the root of a process without files is an empty one in memory",
}


def explained(config: Config) -> Iterator[str]:
    """The lines to print."""
    yield from _listening(config)
    yield "logins:"
    yield from _logins(config)
    yield "processes:"
    yield "  monitor, one: whoever starts it; the listener, the data sockets, starting workers, the logs"
    calls = f"{len(CALLS)} system calls"
    yield f"  pre-login, one a connection: {_granted(PreLogin.policy)}, {calls}; the control socket and a Login"
    if config.ssl_enable:
        key = config.rsa_private_key_file or config.rsa_cert_file
        yield f"  tls, one a connection that asks for it: {_granted(Tls.policy)}; the key of {key}, the peer's ciphertext"
    if config.local_enable:
        yield from _auth(config)
    yield from _sessions(config)
    changed = [name for name in NEEDLESS if getattr(config, name) != getattr(DEFAULTS, name)]
    for name in changed:
        yield f"{name} is not needed: {NEEDLESS[name]}"


def _listening(config: Config) -> Iterator[str]:
    address = config.listen_address6 or "::" if config.listen_ipv6 else config.listen_address or "0.0.0.0"
    most = f"{config.max_clients or 'any number of'} clients, {config.max_per_ip or 'any number'} from one address"
    yield f"listens on {address} {f'port {config.listen_port}' if config.listen_port else 'a free port'}: {most}"
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
    if config.ssl_enable:
        yield f"  TLS{' from the first byte' if config.implicit_ssl else ' by AUTH'}: {', '.join(_encrypted(config))}"
    yield f"  {config.max_login_fails} failures end a connection; each costs {config.delay_failed_login} s"


def _encrypted(config: Config) -> Iterator[str]:
    if config.local_enable:
        yield f"users' logins {'must' if config.force_local_logins_ssl else 'may'}"
        yield f"their data {'must' if config.force_local_data_ssl else 'may'}"
    if config.anonymous_enable:
        may = "may" if config.allow_anon_ssl else "must not"
        yield f"anonymous logins {'must' if config.force_anon_logins_ssl else may}"
        yield f"their data {'must' if config.force_anon_data_ssl else may}"


def _auth(config: Config) -> Iterator[str]:
    if config.virtual_passwd_file:
        yield f"  auth, one a password: {_granted(Passwords.policy)}; the open file {config.virtual_passwd_file}"
    else:
        yield f"  auth, one a password: unconfined, {Pam.policy.user!r}: PAM's modules are root's code"


def problems(config: Config) -> Iterator[str]:
    """What a start would refuse, or a peer would meet. Files are looked for as whoever asks this."""
    yield from unmet(config)
    if (path := config.virtual_passwd_file) and not os.access(path, os.R_OK):
        yield f"{config.at('virtual_passwd_file')}: virtual_passwd_file={path} cannot be read"
    yield from _own_files(config)
    asks_pam = config.local_enable and not config.virtual_passwd_file
    if asks_pam and not os.path.exists(f"/etc/pam.d/{config.pam_service_name}"):
        yield f"pam_service_name={config.pam_service_name}: /etc/pam.d has no such file, and PAM's 'other' decides"
    for name, kind in _samples(config):
        if fault := next(_unless(partial(account, config, name, kind, tls=False)), None):
            yield f"session of {name}: none could start: {fault}"


def _own_files(config: Config) -> Iterator[str]:
    """Those that are nobody's. What is wrong with the others is found when their users' sessions are looked at."""
    folder, where = config.user_config_dir, config.at("user_config_dir")
    if folder and not os.path.isdir(folder):
        yield f"{where}: user_config_dir={folder} is no folder: no user has settings of his own"
    elif folder and not os.access(folder, os.R_OK | os.X_OK):
        yield f"{where}: user_config_dir={folder} cannot be read"
    for name in _named(config):
        if fault := fault_in(name):
            yield f"{os.path.join(folder, name)}: no user has this name: {fault}"


def _named(config: Config) -> list[str]:
    """Who has a file of his own. What begins with a dot is no user's, and nobody means it to be one."""
    folder = config.user_config_dir
    is_read = os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)
    return sorted(name for name in (os.listdir(folder) if is_read else []) if not name.startswith("."))


def _unless(work: Callable[[], object]) -> Iterator[str]:
    """What hinders it."""
    try:
        work()
    except (bunri.UsageError, OSError) as fault:
        yield str(fault)


def _samples(config: Config) -> Iterator[tuple[str, Kind]]:
    if config.anonymous_enable:
        yield "anonymous", Kind.ANONYMOUS
    if config.guest_enable and not config.user_sub_token:  # each has a folder of his own
        yield "USER", Kind.GUEST
    if config.local_enable:
        kind = Kind.GUEST if config.guest_enable else Kind.LOCAL
        yield from ((name, kind) for name in _named(config) if not fault_in(name))


def _sessions(config: Config) -> Iterator[str]:
    for name, kind in _samples(config):
        try:
            it = account(config, name, kind, tls=False)
        except bunri.UsageError:
            continue  # a problem
        changes = sorted(it.rights.commands & (UPLOADING | MAKING | CHANGING | {"SITE CHMOD"}))
        yield f"  session of {name}: {_granted(it.policy(Session.policy))}; the control socket, a Data, a Log"
        yield f"    {'changes files by ' + ', '.join(changes) if changes else 'changes nothing'}"
        if it.gives_away:
            c, mode = it.config, f"0{it.config.chown_upload_mode:o}"
            user = c.ftp_username if kind is Kind.ANONYMOUS else c.guest_username
            yield f"    an Uploads: a broker opens new files as {user}; they become {c.chown_username}'s, {mode}"
    if config.guest_enable and config.user_sub_token:
        yield f"  session of a virtual user: {config.guest_username}'s ids; his folder {config.local_root} is its whole root"
    if config.local_enable and not config.guest_enable:
        jailed = "is its whole root" if config.chroot_local_user else "stands where it stands, and nothing else does"
        words = "read and write" if config.write_enable else "read"
        yield f"  session of a user: his ids, {words}; his folder {config.local_root or '(home)'} {jailed}"
    if config.text_userdb_names and not config.hide_ids:
        yield "  each session has an Owners: a broker looks up the names of user and group ids"


def _granted(policy: bunri.Policy) -> str:
    files = ", ".join(map(repr, policy.files)) if isinstance(policy.files, tuple) else ""
    user = repr(policy.user) if os.geteuid() == 0 else "User.same()"
    return f"{user}, {files or 'no files'}, no network"
