"""Runs in: the monitor, before it serves. The listening sockets, and the word to systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import bunri
from bunri.apps.ftpd.config import Config

FIRST = 3  # descriptor that systemd hands over (sd_listen_fds(3))
IMPLICIT = "ftps"  # FileDescriptorName= of a socket whose connections begin with TLS


@dataclass(frozen=True)
class Listener:
    """A socket that peers come to."""

    socket: socket.socket
    implicit: bool = False  # TLS from the first byte, whatever implicit_ssl says

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"{'ftps' if self.implicit else 'ftp'}://{f'[{host}]' if ':' in host else host}:{port}/"


def listeners_for(config: Config) -> list[Listener]:
    """The sockets that systemd handed over, or one on the configured address."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return [Listener(_made(config))]
    handed = list(_handed())
    refuse_unencrypted(handed, config)
    return handed


def refuse_unencrypted(listeners: list[Listener], config: Config) -> None:
    """UsageError: connections are to begin with TLS, and there is none."""
    if any(each.implicit for each in listeners) and not config.ssl_enable:
        raise bunri.UsageError(f"{config.at('ssl_enable')}: the socket {IMPLICIT} of systemd needs ssl_enable=YES")


def _handed() -> Iterator[Listener]:
    """Each is looked at: whatever else came would be taken for a peer's."""
    count, names = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_FDNAMES", "").split(":")
    del os.environ["LISTEN_PID"]
    if not count.isdecimal() or not int(count):
        raise bunri.UsageError(f"systemd says LISTEN_FDS={count!r}. Give the service a socket, or none")
    for number in range(int(count)):
        descriptor, name = FIRST + number, names[number] if number < len(names) else ""
        try:
            made = socket.socket(fileno=descriptor)
            listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as fault:
            raise bunri.UsageError(f"descriptor {descriptor} of systemd is no socket: {fault.strerror}") from None
        if made.family not in (socket.AF_INET, socket.AF_INET6) or made.type != socket.SOCK_STREAM or not listens:
            raise bunri.UsageError(
                f"descriptor {descriptor} of systemd is no listening TCP socket. Use ListenStream=PORT"
            )
        made.set_inheritable(False)
        yield Listener(made, name == IMPLICIT)


def _made(config: Config) -> socket.socket:
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
