"""Anonymous and system users, by real clients, against a server that was started as users start it."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from ftplib import FTP, error_perm, error_temp, parse229
from pathlib import Path

import pytest
from ftp_served import Served, pam_service, serving, system_user, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(pub: Path) -> Iterator[Served]:
    with serving(pub.parent, "--share", str(pub)) as server:
        yield server


def fetched(ftp: FTP, name: str) -> bytes:
    parts: list[bytes] = []
    ftp.retrbinary(f"RETR {name}", parts.append)
    return b"".join(parts)


def test_a_shared_folder_is_read_in_every_mode(shared: Served, pub: Path) -> None:
    with shared.login() as ftp:
        assert sorted(ftp.nlst()) == ["hello", "inner", "large"]
        assert fetched(ftp, "large") == (pub / "large").read_bytes()
        ftp.set_pasv(False)
        assert fetched(ftp, "inner/deep") == b"deep\n"
        assert {name for name, _ in ftp.mlsd()} == {"hello", "inner", "large"}
        ftp.voidcmd("TYPE I")
        assert ftp.size("large") == 1 << 20
        ftp.cwd("inner")
        assert ftp.pwd() == "/inner"
        assert fetched(ftp, "../hello") == b"hello\n"


def test_a_transfer_resumes(shared: Served, pub: Path) -> None:
    parts: list[bytes] = []
    with shared.login() as ftp:
        ftp.retrbinary("RETR large", parts.append, rest=1000000)
    assert b"".join(parts) == (pub / "large").read_bytes()[1000000:]


def test_a_session_outlives_the_deadline_of_an_ordinary_call(tmp_path: Path, pub: Path) -> None:
    soon = "from bunri.process import serving; serving.DEFAULT_DEADLINE = 3.0"
    with serving(tmp_path, "--share", str(pub), first=soon) as server, server.login() as ftp:
        time.sleep(4)
        assert fetched(ftp, "hello") == b"hello\n"


def test_a_download_whose_peer_resets_it_is_never_said_to_be_complete(shared: Served) -> None:
    """Also where that happens before the first byte, or between the first ones and the loop."""
    with shared.login() as ftp:
        ftp.voidcmd("TYPE I")
        for _ in range(20):
            port = parse229(ftp.sendcmd("EPSV"), ("127.0.0.1", ftp.port))[1]
            with socket.create_connection(("127.0.0.1", port)) as data:
                data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close resets
            assert ftp.sendcmd("RETR large").startswith("150")
            with pytest.raises(error_temp, match="426"):
                ftp.voidresp()
        assert fetched(ftp, "hello") == b"hello\n"


def test_what_is_shared_cannot_be_changed(shared: Served) -> None:
    with shared.login() as ftp:
        for command in ("DELE hello", "MKD x", "RNFR hello", "SITE CHMOD 777 hello", "STOR x", "APPE hello"):
            with pytest.raises(error_perm, match="550"):
                ftp.voidcmd(command)


def test_commands_sent_ahead_reach_the_session(shared: Served) -> None:
    """A client may write everything at once: the session gets what the pre-login worker had read already."""
    with FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", shared.port)
        ftp.sock.sendall(b"USER ftp\r\nPASS x\r\nCWD inner\r\nPWD\r\n")
        assert [ftp.getresp()[:3] for _ in range(2)] == ["331", "230"]
        assert [ftp.getresp()[:3] for _ in range(2)] == ["250", "257"]


@pytest.mark.parametrize(
    ("client", "command"),
    [
        ("curl", ["curl", "-sS", "{url}/large"]),
        ("curl", ["curl", "-sS", "--ftp-port", "-", "--disable-eprt", "{url}/large"]),
        ("wget", ["wget", "-q", "-O", "-", "{url}/large"]),
        ("lftp", ["lftp", "-c", "set net:max-retries 1; open {url}; cat large"]),
        ("ncftpget", ["ncftpget", "-c", "{url}/large"]),
    ],
    ids=["curl", "curl-active", "wget", "lftp", "ncftp"],
)
def test_real_clients_fetch_a_file(shared: Served, pub: Path, client: str, command: list[str]) -> None:
    if not shutil.which(client):
        pytest.skip(f"{client} is not installed")
    done = subprocess.run([part.format(url=shared.url) for part in command], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256((pub / "large").read_bytes()).digest()


def test_a_port_of_somebody_else_is_refused(shared: Served) -> None:
    with shared.login() as ftp:
        for command in ("PORT 127,0,0,2,200,1", "EPRT |1|192.0.2.1|5000|", "PORT 127,0,0,1,0,22"):
            with pytest.raises(error_perm, match="500 Illegal PORT"):
                ftp.voidcmd(command)
        with pytest.raises(error_temp, match="425"):
            ftp.voidcmd("LIST")


def test_a_user_of_the_system_stores_and_fetches(place: Path) -> None:
    with pam_service() as service, system_user() as (name, password, home):
        file = written(place / "conf", local_enable="YES", write_enable="YES", pam_service_name=service,
                       delay_failed_login=0, local_umask="022")  # fmt: skip
        with serving(place, str(file)) as server:
            for wrong in ("wrong", f"{password}\0", f"{password}\0x", f"\0{password}"):
                with pytest.raises(error_perm, match="530"):
                    server.login(name, wrong)
            with server.login(name, password) as ftp:
                assert ftp.pwd() == str(home)
                ftp.storbinary("STOR new", io.BytesIO(b"x" * 300000))
                ftp.mkd("folder")
                ftp.rename("new", "folder/newer")
                assert fetched(ftp, "folder/newer") == b"x" * 300000
                with pytest.raises(error_perm):
                    fetched(ftp, "/etc/passwd")
        stored = home / "folder" / "newer"
        assert (stored.owner(), stored.stat().st_mode & 0o777) == (name, 0o644)


def test_chroot_makes_the_home_the_root(place: Path) -> None:
    with pam_service() as service, system_user() as (name, password, home):
        (home / "mine").write_text("mine")
        file = written(place / "conf", local_enable="YES", pam_service_name=service, chroot_local_user="YES")
        with serving(place, str(file)) as server, server.login(name, password) as ftp:
            assert (ftp.pwd(), ftp.nlst()) == ("/", ["mine"])
            ftp.cwd("../../..")
            assert ftp.nlst() == ["mine"]
