"""A server as a process of its own, as a user starts it, and the accounts that tests log in to."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ftplib import FTP
from pathlib import Path

import pytest

ROOT = os.getuid() == 0


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"ftp://127.0.0.1:{self.port}"

    def login(self, user: str = "anonymous", password: str = "x@") -> FTP:
        ftp = FTP(timeout=20, encoding="utf-8")
        try:
            ftp.connect("127.0.0.1", self.port)
            ftp.login(user, password)
        except BaseException:
            ftp.close()
            raise
        return ftp

    def says(self, text: str, seconds: float = 10) -> bool:
        """Whether the text comes to stand in the server's log."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if text in self.log.read_text():
                return True
            time.sleep(0.05)
        return False

    def holders(self, ftp: FTP) -> set[int]:
        """The server's workers that hold the connection of this client."""
        local, port = ftp.sock.getsockname()[1], self.port
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ends = [(row[1].split(":")[1], row[2].split(":")[1], row[9]) for row in rows]
        inodes = {
            f"socket:[{inode}]" for here, there, inode in ends if (int(here, 16), int(there, 16)) == (port, local)
        }
        found: set[int] = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                with contextlib.suppress(OSError):
                    if any(os.readlink(number) in inodes for number in (entry / "fd").iterdir()):
                        found.add(int(entry.name))
        return found


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, first: str = "pass") -> Iterator[Served]:
    """`bunri ftpd` with these arguments, until the block ends. `first`: what its process does before all else."""
    log = folder / f"server-{secrets.token_hex(4)}.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{first}\nfrom bunri.cli import main\nmain()", "ftpd", "--drain", "0", *arguments],
            stdout=subprocess.PIPE, stderr=stream, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+)/$", process.stdout.readline().strip())
        assert found, log.read_text()
        yield Served(process, int(found[1]), log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    assert process.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


def written(path: Path, **options: str | int) -> Path:
    """A configuration file: on the loopback, and what is given."""
    lines = {"listen": "YES", "listen_address": "127.0.0.1", "listen_port": 0, **options}
    path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    return path


@contextlib.contextmanager
def system_user() -> Iterator[tuple[str, str, Path]]:
    """A user of this system for as long as the block runs: name, password, home."""
    if not ROOT or not shutil.which("useradd"):
        pytest.skip("only root can make a user")
    name, password = f"bunri-t{secrets.token_hex(3)}", secrets.token_hex(8)
    home = Path(f"/tmp/{name}")
    subprocess.run(["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/false", name], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{password}\n", text=True, check=True)
        home.mkdir(mode=0o755)
        shutil.chown(home, name, name)
        yield name, password, home
    finally:
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def pam_service() -> Iterator[str]:
    """A PAM service that looks at passwords only."""
    if not ROOT:
        pytest.skip("only root can write a PAM service")
    name = f"bunri-test-{secrets.token_hex(4)}"
    path = Path("/etc/pam.d") / name
    path.write_text("auth required pam_unix.so\naccount required pam_unix.so\n")
    try:
        yield name
    finally:
        path.unlink()


def certificate(path: Path, *more: str) -> None:
    """A certificate and its key, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"]
    files = ["-subj", "/CN=localhost", "-keyout", str(path), "-out", f"{path}.cert"]
    subprocess.run([*command, *(more or ["-nodes"]), *files], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.cert").read_bytes())


def refused(*arguments: str) -> str:
    """What `bunri ftpd` says when it does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "bunri", "ftpd", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


def only_this_one_notices(server: Served, victim: FTP, other: FTP, again: Callable[[], FTP]) -> None:
    """Kill the workers that hold a connection: it ends, another goes on, and new ones come in."""
    if not ROOT:
        pytest.skip("only root sees which process holds a connection")
    holders = server.holders(victim)
    assert len(holders) == 1
    os.kill(holders.pop(), signal.SIGKILL)
    with pytest.raises((EOFError, OSError)):
        victim.getresp()
    victim.close()
    assert other.nlst()
    with again() as ftp:
        assert ftp.nlst()
