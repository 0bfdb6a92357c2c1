"""Runs in: the monitor, before it serves. The listening socket, and the word to systemd."""

from __future__ import annotations

import os
import socket

import bunri
from bunri.apps.ftpd.config import Config


def listener_for(config: Config) -> socket.socket:
    """The socket that systemd handed over (sd_listen_fds(3)), or one on the configured address."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=3)
    if not (config.listen or config.listen_ipv6):
        raise bunri.UsageError("listen=NO means inetd, which is not built. Set listen=YES, or use a systemd socket")
    if config.listen_ipv6:
        made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        address = config.listen_address6 or "::"
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        address = config.listen_address or "0.0.0.0"  # vsftpd's meaning of listen=YES
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, config.listen_port))
        made.listen(256)
    except OSError as fault:
        made.close()
        raise bunri.UsageError(f"cannot listen on {address} port {config.listen_port}: {fault.strerror}") from None
    return made


def notify(text: str) -> None:
    """Tell systemd (sd_notify(3)), where it asked to be told."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it:
            it.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)
