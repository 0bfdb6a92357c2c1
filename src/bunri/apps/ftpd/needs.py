"""Runs in: the process that starts the server, and the monitor at SIGHUP. What a configuration needs of this system.

A start, a SIGHUP and --check ask the same. A certificate and its key are tried by a process of its own, which ends: the
monitor never holds the key, so no worker that is made from it can.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import bunri
from bunri.apps.ftpd.accounts import names_in, why_unread
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.logs import files

# An empty password, so that an encrypted key is refused and nobody is asked for it at a terminal.
TRY = "import ssl, sys\nssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*sys.argv[1:], password=b'')"


def refuse_unmet(config: Config) -> None:
    """UsageError: the first thing that is not there."""
    for fault in unmet(config):
        raise bunri.UsageError(fault)


def unmet(config: Config) -> Iterator[str]:
    """What is not there, each with its place in the configuration."""
    c, root = config, os.geteuid() == 0
    if c.local_enable and not root and not c.virtual_passwd_file:
        yield f"{c.at('local_enable')}: local users need a server that root starts. Set local_enable=NO, or use virtual users"
    if c.chown_uploads and not root:
        yield f"{c.at('chown_uploads')}: chown_uploads=YES needs a server that root starts"
    if c.banner_file:
        yield from _fault(c, "banner_file", partial(banner, c))
    if c.userlist_enable:
        yield from _fault(c, "userlist_file", partial(names_in, c.userlist_file))
    if c.chroot_list_enable:
        yield from _fault(c, "chroot_list_file", partial(names_in, c.chroot_list_file))
    for name in sorted(files(c)):
        path = getattr(c, name)
        if not os.access(path if os.path.exists(path) else os.path.dirname(path) or ".", os.W_OK) or os.path.islink(
            path
        ):
            yield f"{c.at(name)}: {name}={path} cannot be written to. It is a file, and no link, in a folder that is there"
    if c.ssl_enable:
        yield from _certificate(c)


def banner(config: Config) -> str:
    """What a peer is greeted with. UsageError if its file cannot be read."""
    if config.banner_file:
        try:
            return Path(config.banner_file).read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as fault:
            raise bunri.UsageError(f"{config.banner_file} cannot be read: {why_unread(fault)}") from None
    return config.ftpd_banner or "(bunri ftpd)"


def _fault(config: Config, name: str, work: Callable[[], object]) -> Iterator[str]:
    try:
        work()
    except bunri.UsageError as fault:
        yield f"{config.at(name)}: {name}={fault}"


def _certificate(c: Config) -> Iterator[str]:
    names = ["rsa_cert_file", *(["rsa_private_key_file"] if c.rsa_private_key_file else [])]
    files: list[str] = [getattr(c, name) for name in names]
    unread = [(name, file) for name, file in zip(names, files, strict=True) if not _is_read(file)]
    for name, file in unread:
        yield f"{c.at(name)}: {name}={file} cannot be read"
    if unread:
        return
    command = [sys.executable, "-I", "-c", TRY, *files]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        which = " and ".join(f"{name}={file}" for name, file in zip(names, files, strict=True))
        why = (done.stderr.strip().splitlines() or ["its process was killed"])[-1]
        yield f"{c.at(names[-1])}: {which}: no certificate with its key, in PEM and without a password ({why})"


def _is_read(file: str) -> bool:
    return os.path.isfile(file) and os.access(file, os.R_OK)
