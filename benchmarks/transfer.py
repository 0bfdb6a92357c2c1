"""Runs in: the benchmark. `bunri ftpd` beside vsftpd: the same file of settings, the same client, in turn. Takes root."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ftplib import FTP
from io import BytesIO
from pathlib import Path

from benchmarks.measure import Row, Skipped, Subject, descendants, interleaved, size, verdict, whole

SIZE = 256 << 20  # bytes of the large file
SMALL, SMALL_SIZE = 300, 4096
AT_ONCE, EACH = 8, 5  # clients, and how often each logs in
NAMES = itertools.count()  # of small uploads: both store into one folder
CONNECTS = 100
PATIENCE = 10.0  # seconds until a connect that nobody answers counts as refused
IDLE = 10  # sessions, of which the memory is taken
REST = 0.5  # seconds in which each gets ready for ten more
SPARES_GONE = 12.0  # seconds until workers that stood ready are ended: they are nobody's session
SETTINGS = """\
listen=YES
listen_address=127.0.0.1
anonymous_enable=YES
anon_root={root}
secure_chroot_dir={empty}
write_enable=YES
anon_upload_enable=YES
"""


@dataclass
class Server:
    """One of the two."""

    process: subprocess.Popen[bytes]
    port: int
    root: Path

    def login(self) -> FTP:
        ftp = FTP(timeout=60)
        ftp.connect("127.0.0.1", self.port)
        ftp.login("ftp", "bench@")
        ftp.voidcmd("TYPE I")
        return ftp

    def login_and_quit(self) -> None:
        with FTP(timeout=60) as ftp:
            ftp.connect("127.0.0.1", self.port)
            ftp.login("ftp", "bench@")

    def at_once(self) -> None:
        def some() -> None:
            for _ in range(EACH):
                self.login_and_quit()

        _together([some] * AT_ONCE)

    def memory(self) -> int:
        """KiB of PSS, of all its processes."""
        found = 0
        for pid in (self.process.pid, *descendants(self.process.pid)):
            with contextlib.suppress(OSError, TypeError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found += int(re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)[1])  # type: ignore[index]
        return found


def transfer() -> Iterator[Row]:
    """All of it, once."""
    if os.getuid() != 0:
        raise Skipped("vsftpd is started by root")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bunri-bench-") as above:
        Path(above).chmod(0o755)
        root = _ground(Path(above))
        with _vsftpd(Path(above), root) as theirs, _bunri(Path(above), root) as ours:
            both = {"bunri": ours, "vsftpd": theirs}
            yield from _large(both)
            yield from _small(both)
            yield from _logins(both)
            yield _connects(both)
            yield from _idle(both)


def _large(both: Mapping[str, Server]) -> Iterator[Row]:
    mib = SIZE >> 20
    for what, make in (("RETR", _retr), ("STOR", _stor)):
        with contextlib.ExitStack() as stack:
            subjects = {name: make(stack.enter_context(server.login()), server) for name, server in both.items()}
            interleaved(1, 1, subjects)
            found = interleaved(7, 1, subjects)
        yield _row(f"ftpd: {what}, {mib} MiB, MiB a second", mib, found, 1)


def _small(both: Mapping[str, Server]) -> Iterator[Row]:
    def fetch(ftp: FTP) -> Callable[[], object]:
        return lambda: [ftp.retrbinary(f"RETR small/{number}", lambda _: None) for number in range(SMALL)]

    def store(ftp: FTP) -> Callable[[], object]:
        content = bytes(SMALL_SIZE)
        return lambda: [ftp.storbinary(f"STOR in/{next(NAMES)}", BytesIO(content)) for _ in range(SMALL)]

    with contextlib.ExitStack() as stack:
        logged_in = {name: stack.enter_context(server.login()) for name, server in both.items()}
        found = interleaved(7, 1, {name: whole(fetch(ftp)) for name, ftp in logged_in.items()})
        yield _row(f"ftpd: {SMALL} files of 4 KiB, a second", SMALL, found, 1)
        found = interleaved(7, 1, {name: whole(store(ftp)) for name, ftp in logged_in.items()})
        yield _row(f"ftpd: {SMALL} uploads of 4 KiB, a second", SMALL, found, 1)


def _logins(both: Mapping[str, Server]) -> Iterator[Row]:
    one = {name: whole(server.login_and_quit) for name, server in both.items()}
    interleaved(1, 10, one)
    yield _row("ftpd: logins a second, ten in turn", 1, interleaved(10, 10, one, REST), 0.5)
    yield _row("ftpd: logins a second, a hundred in turn", 1, interleaved(2, 100, one), 0.5)
    eight = {name: whole(server.at_once) for name, server in both.items()}
    yield _row(f"ftpd: logins a second, {AT_ONCE} at once", AT_ONCE * EACH, interleaved(7, 1, eight), 0.5)


def _connects(both: Mapping[str, Server]) -> Row:
    """How many of so many who come at one time are not greeted."""
    refused = {name: _refused(server.port) for name, server in both.items()}
    what = f"ftpd: {CONNECTS} connects at once, refused"
    return Row(what, str(refused["bunri"]), f"vsftpd {refused['vsftpd']}", "", "0", verdict(refused["bunri"] == 0))


def _refused(port: int) -> int:
    greeted: list[socket.socket] = []

    def come() -> None:
        with contextlib.suppress(OSError):
            peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            greeted.append(peer)
            if not peer.recv(100).startswith(b"220"):
                greeted.remove(peer)
                peer.close()

    _together([come] * CONNECTS)
    for peer in greeted:
        peer.close()
    return CONNECTS - len(greeted)


def _idle(both: Mapping[str, Server]) -> Iterator[Row]:
    for server in both.values():
        server.login_and_quit()
    time.sleep(SPARES_GONE)
    before = {name: server.memory() for name, server in both.items()}
    with contextlib.ExitStack() as stack:
        for server in both.values():
            for _ in range(IDLE):
                stack.enter_context(server.login()).nlst()
        time.sleep(SPARES_GONE)
        each = {name: (server.memory() - before[name]) // IDLE for name, server in both.items()}
    yield size(f"ftpd: PSS of an idle session, of {IDLE}", [each["bunri"]], 8 << 10)
    yield Row("ftpd: the same of vsftpd", f"{each['vsftpd'] / 1024:.2f} MiB")
    yield Row("ftpd: PSS without sessions", *(f"{name} {kib / 1024:.1f} MiB" for name, kib in before.items()))


def _retr(ftp: FTP, _: Server) -> Subject:
    room = memoryview(bytearray(1 << 20))

    def once() -> None:
        with ftp.transfercmd("RETR large") as data:
            got = 0
            while count := data.recv_into(room):
                got += count
        ftp.voidresp()
        if got != SIZE:
            raise AssertionError(f"{got} bytes came of {SIZE}")

    return whole(once)


def _stor(ftp: FTP, server: Server) -> Subject:
    number = itertools.count()

    def once() -> float:
        name = f"in/{server.port}.{next(number)}"
        with (server.root / "large").open("rb") as file:
            begun = time.perf_counter()
            with ftp.transfercmd(f"STOR {name}") as data:
                data.sendfile(file)
            ftp.voidresp()
            taken = time.perf_counter() - begun
        stored = server.root / name
        if stored.stat().st_size != SIZE:
            raise AssertionError(f"{stored} has {stored.stat().st_size} bytes of {SIZE}")
        stored.unlink()
        return taken

    return once


def _row(what: str, count: float, found: Mapping[str, Sequence[float]], at_least: float) -> Row:
    """Things a second; the ratio is ours to theirs."""
    ours, theirs = found["bunri"], found["vsftpd"]
    median, best = (read(theirs) / read(ours) for read in (statistics.median, min))
    figures = [f"{count / statistics.median(times):,.0f} / {count / min(times):,.0f}" for times in (ours, theirs)]
    judged = verdict(median >= at_least)
    return Row(what, figures[0], f"vsftpd {figures[1]}", f"{median:.2f} / {best:.2f}", f">= {at_least:g}", judged)


def _together(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _ground(above: Path) -> Path:
    root = above / "root"
    for folder in (root, root / "small", root / "in", above / "empty"):
        folder.mkdir(mode=0o755)
    (root / "in").chmod(0o1777)
    with (root / "large").open("wb") as file:
        block = os.urandom(1 << 20)
        for _ in range(SIZE >> 20):
            file.write(block)
    for number in range(SMALL):
        (root / "small" / str(number)).write_bytes(os.urandom(SMALL_SIZE))
    return root


@contextlib.contextmanager
def _vsftpd(above: Path, root: Path) -> Generator[Server, None, None]:
    program = shutil.which("vsftpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Skipped("vsftpd is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    file = above / "vsftpd.conf"
    file.write_text(SETTINGS.format(root=root, empty=above / "empty") + f"listen_port={port}\n")
    with _running([program, str(file)], above / "vsftpd.log", port, root) as server:
        yield server


@contextlib.contextmanager
def _bunri(above: Path, root: Path) -> Generator[Server, None, None]:
    file = above / "bunri.conf"
    file.write_text(SETTINGS.format(root=root, empty=above / "empty"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "bunri", "ftpd", str(file), f"-olisten_port={port}", "--drain", "0"]
    with _running(command, above / "bunri.log", port, root) as server:
        yield server


@contextlib.contextmanager
def _running(command: list[str], log: Path, port: int, root: Path) -> Generator[Server, None, None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    server = Server(process, port, root)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                server.login_and_quit()
                break
            except (OSError, EOFError):
                if time.monotonic() > until or process.poll() is not None:
                    raise Skipped(f"{command[0]} does not serve: {log.read_text()[-300:]}") from None
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(20)
