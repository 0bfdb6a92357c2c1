"""Runs in: the user's shell. `bunri ftpd`: arguments in, the server's monitor runs until a signal."""

from __future__ import annotations

import gc
import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bunri import early
from bunri.text import printable

if TYPE_CHECKING:
    from bunri.apps.ftpd.config import Config

HELP = "FILE | passwd FILE NAME"
_OBJECTS = 10_000  # new ones until the collector looks at them: after some hundred sessions, and not after each fourth


@click.command(name="ftpd")
@click.argument("words", nargs=-1, metavar=HELP)
@click.option("-o", "given", multiple=True, metavar="NAME=VALUE", help="An option of the configuration, over the file.")
@click.option("--check", is_flag=True, help="Say what the configuration means, and what each process may do; and end.")
@click.option(
    "--share",
    type=click.Path(exists=True, file_okay=False, readable=True, resolve_path=True, path_type=Path),
    help="Without a file: serve this folder, read-only, to anonymous, on the loopback.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="With --share: the port.  [default: a free one]")
@click.option("--drain", type=click.FloatRange(0), default=10.0, show_default=True,
              help="Seconds that sessions have to end after SIGTERM.")  # fmt: skip
@click.option("--delete", is_flag=True, help="With passwd: remove the user.")
def command(
    words: tuple[str, ...],
    given: tuple[str, ...],
    check: bool,
    share: Path | None,
    port: int,
    drain: float,
    delete: bool,
) -> int:
    """Serve files by FTP, each peer by confined processes of its own. FILE is a vsftpd.conf.

    --check ends with 1 where a peer would meet a problem.

    Prints the address once it is ready. SIGHUP reads the file again, SIGTERM ends it once its sessions have ended.

    \b
    Examples:
      bunri ftpd /etc/vsftpd.conf -olisten_port=2121
      bunri ftpd --check /etc/vsftpd.conf
      bunri ftpd --share /srv/pub
      bunri ftpd passwd /etc/bunri/ftp-users alice
    """
    if importlib.util.find_spec("pyftpdlib") is None:
        raise click.ClickException("the server's engine is pyftpdlib. Install it with: pip install 'bunri[ftpd]'")
    if words[:1] == ("passwd",) and len(words) == 3:
        return _passwd(Path(words[1]), words[2], delete)
    if len(words) != (0 if share else 1):
        raise click.UsageError("name one configuration file, or a folder with --share")
    read = _reader(Path(words[0]) if words else None, given, share, port)
    config = read()
    if check:
        from bunri.apps.ftpd.check import explained, problems

        for line in explained(config):
            click.echo(printable(line))
        found = list(problems(config))
        for line in found:
            click.echo(f"problem: {printable(line)}")
        return 1 if found else 0
    early.begin()
    with early.imports():
        from bunri.apps.ftpd.monitor import serve

    _log_plainly()
    gc.set_threshold(_OBJECTS)
    what = share or words[0]
    serve(config, lambda urls: click.echo(f"serving {what} at {' '.join(urls)}"), read, drain)
    return 0


def _log_plainly() -> None:
    """When, who, what: so no record need find out from which thread and line it comes (logging HOWTO, "Optimization")."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging._srcfile = None  # pyright: ignore[reportPrivateUsage]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _reader(file: Path | None, given: tuple[str, ...], share: Path | None, port: int) -> Callable[[], Config]:
    """What reads the configuration, now and after each SIGHUP."""
    from bunri.apps.ftpd import config as _config

    def read() -> Config:
        if file is not None:
            return _config.read(file, given)
        return _config.shared(str(share), port, given)

    return read


def _passwd(path: Path, name: str, delete: bool) -> int:
    from bunri.apps.ftpd.auth import set_password

    set_password(path, name, None if delete else _asked())
    return 0


def _asked() -> str:
    """The password: asked for, or the first line of standard input."""
    from bunri.apps.ftpd.names import LONGEST

    try:
        if sys.stdin.isatty():
            password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        else:
            password = sys.stdin.buffer.readline().rstrip(b"\r\n").decode()
        size = len(password.encode())
    except UnicodeError:
        raise click.UsageError("the password is not UTF-8. A client could not send it") from None
    if not password:
        raise click.UsageError("an empty password lets everybody in. Write one")
    if size > LONGEST:
        raise click.UsageError(f"the password has {size} bytes. At most {LONGEST} are looked at: write a shorter one")
    return password
