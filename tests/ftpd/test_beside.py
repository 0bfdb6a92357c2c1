"""A real vsftpd beside us, on the same file of settings and the same files: the same scripts, the same ends.

Compared: each script's exit status and what it printed, and the files that are there afterwards. Wording may differ.
"""

from __future__ import annotations

import contextlib
import ftplib
import io
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ftp_served import ROOT, pam_service, serving, system_user, written

VSFTPD = shutil.which("vsftpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VSFTPD is None or not ROOT, reason="vsftpd is not installed, or there is no root to start it"),
]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two equal trees, and both servers' settings beside them."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bunri-ftpd-") as above:
        Path(above).chmod(0o755)
        both = Path(above) / "vsftpd", Path(above) / "bunri"
        for root in both:
            (root / "in").mkdir(parents=True)
            (root / "in").chmod(0o1777)
            root.chmod(0o755)
            (root / "hello").write_bytes(b"hello\n")
            (root / "large").write_bytes(bytes(range(256)) * 8000)
            (root / "secret").write_bytes(b"x")
            (root / "secret").chmod(0o600)
            (root / "a b").write_bytes(b"space")
            (root / "deep" / "deeper").mkdir(parents=True)
            (root / "deep" / "deeper" / "bottom").write_bytes(b"bottom")
            for path in (*root.rglob("*"), root):
                os.utime(path, (1_600_000_000, 1_600_000_000))
        yield both


@pytest.fixture(scope="module")
def servers(grounds: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    folder = tmp_path_factory.mktemp("beside")
    (folder / "empty").mkdir()
    options = {"anonymous_enable": "YES", "write_enable": "YES", "anon_upload_enable": "YES",
               "anon_mkdir_write_enable": "YES", "anon_other_write_enable": "YES", "anon_umask": "022",
               "secure_chroot_dir": folder / "empty", "ascii_download_enable": "YES", "ascii_upload_enable": "YES",
               "ls_recurse_enable": "YES"}  # fmt: skip
    theirs, ours = grounds
    with _vsftpd(folder, anon_root=theirs, **options) as port:
        with serving(folder, str(written(folder / "ours", anon_root=ours, **options))) as server:
            yield port, server.port


@contextlib.contextmanager
def _vsftpd(folder: Path, **options: str | int) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    file = written(folder / "theirs", **{**options, "listen_port": port})
    assert VSFTPD is not None
    process = subprocess.Popen([VSFTPD, str(file)])
    try:
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


CLIENTS = {
    "curl gets": "curl -sS {url}/large | sha256sum",
    "curl gets a range": "curl -sS -r 100-299 {url}/large | sha256sum",
    "curl gets what is not there": "curl -sS {url}/nothing 2>/dev/null",
    "curl gets what is not for all": "curl -sS {url}/secret 2>/dev/null",
    "curl gets above the root": "curl -sS --path-as-is {url}/../../../etc/passwd 2>/dev/null",
    "curl lists names": "curl -sS -l {url}/ | sort",
    "curl asks for size and date": "curl -sS -I {url}/large | tr -d '\\r'",
    "curl puts": "curl -sS -T hosts {url}/in/put",
    "curl puts where it may not": "curl -sS -T hosts {url}/put 2>/dev/null",
    "curl makes folders": "curl -sS --ftp-create-dirs -T hosts {url}/in/x/y/put",
    "curl goes on": "head -c 50 hosts > half; curl -sS -T half {url}/in/half && curl -sS -C 50 -T hosts {url}/in/half",
    "curl appends": "curl -sS -a -T hosts {url}/in/put",
    "curl deletes and renames": "curl -sS -l -Q '-RNFR in/put' -Q '-RNTO in/moved' {url}/deep/",
    "curl, active": "curl -sS -P - --disable-eprt {url}/hello",
    "curl, as text": "curl -sS -B {url}/hello | od -c",
    "curl, a space": "curl -sS '{url}/a%20b'",
    "wget mirrors": "wget -q -r -nH {url}/deep/ && find deep -type f -name bottom | xargs cat",
    "lftp mirrors": "lftp -c 'set net:max-retries 1; open {url}; mirror deep m' && find m -type f | sort | xargs sha256sum",
    "lftp mirrors back": "mkdir r; cp hosts r/1; cp hosts r/2; lftp -c 'set net:max-retries 1; open {url}; mirror -R r in/r'",
    "lftp removes a tree": "lftp -c 'set net:max-retries 1; open {url}; rm -r in/r; cls -1 in'",
    "lftp, two at once": "lftp -c 'set net:max-retries 1; open {url}; pget -n 2 large -o p' && sha256sum p",
    "lftp, as text": "lftp -c 'set net:max-retries 1; open {url}; cat -a hello' | od -c",
    "lftp puts text": "printf 'a\\r\\nb\\n\\r' > t; lftp -c 'set net:max-retries 1; open {url}; cd in; put -a t'",
    "ncftp gets": "ncftpget -V -c {url}/hello",
    "ncftp puts": "ncftpput -V -P {port} 127.0.0.1 in hosts",
    "ncftp lists": "ncftpls {url}/deep/",
}  # fmt: skip


def test_clients_end_alike(servers: tuple[int, int], grounds: tuple[Path, Path], tmp_path: Path) -> None:
    found: list[dict[str, tuple[int, str]]] = []
    for number, port in enumerate(servers):
        ends: dict[str, tuple[int, str]] = {}
        for name, script in CLIENTS.items():
            if not shutil.which(script.split()[0]) and script.split()[0] in ("curl", "wget", "lftp", "ncftpget"):
                continue
            folder = tmp_path / f"{number}" / name.replace(" ", "-")
            folder.mkdir(parents=True)
            (folder / "hosts").write_text("127.0.0.1 localhost\n" * 9)
            command = script.format(url=f"ftp://127.0.0.1:{port}", port=port)
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60
            )
            ends[name] = (done.returncode, done.stdout)
        found.append(ends)
    assert found[0] == found[1]
    assert len(found[0]) >= 20 and found[1]["lftp mirrors"][0] == 0
    trees = [{str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()} for root in grounds]
    assert trees[0] == trees[1]
    modes = [{str(p.relative_to(root)): p.stat().st_mode for p in root.rglob("*")} for root in grounds]
    assert modes[0] == modes[1]


def logged_in(port: int) -> ftplib.FTP:
    ftp = ftplib.FTP(timeout=20)
    ftp.connect("127.0.0.1", port)
    ftp.login()
    return ftp


COMMANDS = (
    "PWD", "CWD deep", "CDUP", "CWD nothing", "CWD /deep/deeper", "CWD /", "SIZE hello", "SIZE nothing", "SIZE deep", "MDTM hello",
    "MDTM nothing", "TYPE I", "TYPE A", "TYPE X", "MODE S", "MODE B", "STRU F", "STRU R", "NOOP", "SYST", "HELP", "FEAT",
    "OPTS UTF8 ON", "ALLO 10", "REST 5", "REST x", "RETR hello", "PORT 1,2,3,4,5,6", "PORT 127,0,0,1,0,22", "PORT nonsense", "EPRT |9|x|1|",
    "LIST", "MKD in/folder", "MKD in/folder", "RMD in/folder", "RMD in/folder", "DELE nothing", "DELE hello", "RNTO in/x",
    "RNFR nothing", "NONSENSE", "USER other", "SITE NONSENSE", "SITE CHMOD 777 hello", "PASV", "EPSV", "STAT nothing", "ABOR", "REIN", "ACCT x", "QUIT",
)  # fmt: skip

# Where the two answer otherwise: theirs, ours, and why.
OTHERWISE = {
    "TYPE X": ("500", "504", "RFC 959: 504 for a parameter that is not implemented"),
    "REST 5": ("350", "501", "a position in translated text means nothing (the type is A here)"),
    "REST x": ("350", "501", "no number; vsftpd takes it for 0"),
    "PORT nonsense": ("500", "501", "RFC 959: 501 for a fault in the parameter"),
    "EPRT |9|x|1|": ("500", "501", "likewise"),
    "SITE NONSENSE": ("550", "500", "RFC 959: 500 for a command that is not known"),
    "STAT nothing": ("213", "550", "vsftpd shows an empty listing"),
    "REIN": ("502", "500", "both: not implemented"),
    "ACCT x": ("502", "500", "both: not implemented"),
}


def test_answers_have_the_same_codes(servers: tuple[int, int]) -> None:
    found: list[list[str]] = []
    for port in servers:
        codes: list[str] = []
        with contextlib.closing(logged_in(port)) as ftp:
            for command in COMMANDS:
                ftp.putcmd(command)
                try:
                    codes.append(f"{command}: {ftp.getmultiline()[:3]}")
                except EOFError:
                    codes.append(f"{command}: closed")
        found.append(codes)
    different = {a.partition(":")[0]: (a[-3:], b[-3:]) for a, b in zip(*found, strict=True) if a != b}
    assert different == {command: codes[:2] for command, codes in OTHERWISE.items()}


GIVING, TAKING = ("STOR", "APPE"), ("RETR",)
DONE = (
    "RETR hello", "RETR nothing", "RETR secret", "RETR folder", "RETR empty", "RETR denied", "STOR new", "STOR none/new", "STOR folder",
    "STOR secret", "STOR denied2", "APPE new", "TYPE A", "RETR hello", "TYPE I", "MKD a b", "MKD a b", "MKD none/x", "MKD denied3",
    "DELE new", "DELE new", "DELE folder", "DELE denied", "RMD a b", "RMD a b", "RMD hello", "RNTO x", "RNFR hello",
    "RNTO moved", "RNFR nothing", "RNFR denied", "RNFR moved", "RNTO none/x", "RNFR moved", "RNTO denied4", "RNFR moved",
    "RNTO hello", "SITE CHMOD 600 hello", "SITE CHMOD 600 nothing", "SITE CHMOD 600 secret", "CWD folder", "DELE inner",
    "STOR /there", "RETR nothing", "DELE /there",
)  # fmt: skip


def done(ftp: ftplib.FTP, command: str) -> str:
    """The code of the answer."""
    verb = command.split()[0]
    try:
        if verb in GIVING:
            return ftp.storbinary(command, io.BytesIO(b"abc"))[:3]
        if verb in TAKING:
            with ftp.transfercmd(command) as data:
                while data.recv(4096):
                    continue
            return ftp.voidresp()[:3]
        return ftp.sendcmd(command)[:3]
    except ftplib.Error as fault:
        return str(fault)[:3]


def logged(port: int, user: str, password: str, folder: Path) -> tuple[list[str], list[str], list[str]]:
    """The codes of all answers; and what both logs say of them, without times, rates and processes."""
    with contextlib.closing(ftplib.FTP(timeout=20)) as ftp:
        ftp.connect("127.0.0.1", port)
        with pytest.raises(ftplib.error_perm):
            ftp.login(user, "wrong")
        ftp.login(user, password)
        ftp.voidcmd("TYPE I")
        codes = [f"{command}: {done(ftp, command)}" for command in DONE]
        with ftp.transfercmd("RETR /large") as data:
            data.recv(1)
        codes.append(f"left: {ftp.getmultiline()[:3]}")
    until = time.monotonic() + 10
    while "/large" not in (folder / "xferlog").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    own, xferlog = ((folder / name).read_text().replace(user, "USER").splitlines() for name in ("log", "xferlog"))
    own = [re.sub(r"^.{24} \[pid \d+\] |, (\d{3,} bytes, )?[\d.]+Kbyte/sec$", "", line) for line in own]
    xferlog = [re.sub(r"^.{24} \d+ |\b\d+ (?=/large)", "", line) for line in xferlog]  # how far it came is chance
    return codes, [line for line in own if "CONNECT" not in line], xferlog


def test_the_logs_say_the_same(tmp_path: Path) -> None:
    """What succeeded and what failed, each with its path; and the answers' codes on the way."""
    found = []
    for ours in (False, True):
        with system_user() as (user, password, home), pam_service() as service, tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, size in (("hello", 6), ("empty", 0), ("large", 1 << 25), ("denied", 1)):
                (home / file).write_bytes(bytes(size))
            (home / "folder").mkdir()
            (home / "folder" / "inner").write_bytes(b"x")
            for path in home.rglob("*"):
                shutil.chown(path, user, user)
            (home / "secret").write_bytes(b"x")
            (home / "secret").chmod(0o600)
            (folder / "empty").mkdir()
            options: dict[str, str | Path] = {
                "local_enable": "YES", "anonymous_enable": "NO", "write_enable": "YES", "pam_service_name": service,
                "chroot_local_user": "YES", "allow_writeable_chroot": "YES", "secure_chroot_dir": folder / "empty",
                "xferlog_enable": "YES", "dual_log_enable": "YES", "xferlog_file": folder / "xferlog",
                "vsftpd_log_file": folder / "log", "deny_file": "{denied*}", "ascii_download_enable": "YES",
            }  # fmt: skip
            if ours:
                with serving(folder, str(written(folder / "ours", **options))) as server:
                    found.append(logged(server.port, user, password, folder))
            else:
                with _vsftpd(folder, **options) as port:
                    found.append(logged(port, user, password, folder))
    for theirs, mine in zip(*found, strict=True):
        assert theirs == mine
