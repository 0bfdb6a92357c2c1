"""TLS: by AUTH and from the first byte, for control and data, with the key in a process that parses no FTP."""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from ftplib import FTP, FTP_TLS, error_perm
from pathlib import Path

import pytest
from ftp_served import ROOT, Served, certificate, refused, serving, written

pytestmark = pytest.mark.slow

BASE = {
    "anonymous_enable": "YES",
    "ssl_enable": "YES",
    "allow_anon_ssl": "YES",
    "ftp_username": "",
    "write_enable": "YES",
    "anon_upload_enable": "YES",
    "allow_writeable_chroot": "YES",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def pem(folder: Path) -> Path:
    """A certificate and its key, in one file that only its owner can read."""
    path = folder / "both.pem"
    certificate(path)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def strict(folder: Path, pem: Path, pub: Path) -> Iterator[Served]:
    """What vsftpd does by default: data connections must resume the control connection's session."""
    file = written(folder / "strict", **BASE, anon_root=pub, rsa_cert_file=pem, force_anon_data_ssl="YES",
                   force_anon_logins_ssl="YES", xferlog_enable="YES", vsftpd_log_file=folder / "log")  # fmt: skip
    with serving(folder, str(file)) as server:
        yield server


@pytest.fixture(scope="module")
def lax(folder: Path, pem: Path) -> Iterator[tuple[Served, Path]]:
    """For clients that resume nothing; and with uploads."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bunri-ftpd-") as drop:
        Path(drop).chmod(0o1777)
        file = written(folder / "lax", **BASE, anon_root=drop, rsa_cert_file=pem, require_ssl_reuse="NO",
                       anon_umask="022", anon_world_readable_only="NO")  # fmt: skip
        with serving(folder, str(file)) as server:
            yield server, Path(drop)


def secure(server: Served, *, context: ssl.SSLContext | None = None) -> FTP_TLS:
    ftp = FTP_TLS(timeout=20, encoding="utf-8", context=context or ssl._create_unverified_context())
    try:
        ftp.connect("127.0.0.1", server.port)
        ftp.login("ftp", "x@")
    except BaseException:
        ftp.close()
        raise
    return ftp


@pytest.mark.parametrize(
    ("client", "command"),
    [
        ("curl", ["curl", "-sSk", "--ssl-reqd", "{url}/large"]),
        ("curl", ["curl", "-sSk", "--ssl-reqd", "--tls-max", "1.2", "{url}/large"]),
        ("lftp", ["lftp", "-c", "set net:max-retries 1; set ssl:verify-certificate no; set ftp:ssl-allow-anonymous yes; "
                  "set ftp:ssl-protect-data yes; open {url}; cat large"]),
    ],
    ids=["curl", "curl-1.2", "lftp"],
)  # fmt: skip
def test_real_clients_fetch_a_file_in_secret(strict: Served, pub: Path, client: str, command: list[str]) -> None:
    if not shutil.which(client):
        pytest.skip(f"{client} is not installed")
    done = subprocess.run([part.format(url=strict.url) for part in command], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr + strict.log.read_bytes()
    assert done.stdout == (pub / "large").read_bytes()


def test_a_login_in_clear_text_is_refused(strict: Served) -> None:
    with FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", strict.port)
        with pytest.raises(error_perm, match="530 This login must use encryption"):
            ftp.sendcmd("USER ftp")
        with pytest.raises(error_perm, match="503"):
            ftp.sendcmd("PROT P")


def test_data_in_clear_text_is_refused(strict: Served) -> None:
    with secure(strict) as ftp, pytest.raises(error_perm, match="522 Data connections must be encrypted"):
        ftp.retrlines("LIST", lambda line: None)


def test_a_data_connection_that_resumes_nothing_is_refused(strict: Served) -> None:
    """The client never offers the session that it has: somebody else could have made that connection."""
    with secure(strict) as ftp:
        ftp.prot_p()
        with pytest.raises((error_perm, ssl.SSLError, OSError, EOFError)):
            ftp.retrbinary("RETR hello", lambda data: None)
        ftp.close()
    assert "OK DOWNLOAD" not in strict.log.read_text().rpartition("CONNECT")[2]


def test_commands_in_clear_text_before_the_handshake_are_forgotten(strict: Served) -> None:
    """Somebody in between writes commands behind AUTH, to have them run inside the secret session (CVE-2011-0411)."""
    with FTP_TLS(timeout=10, context=ssl._create_unverified_context()) as ftp:
        ftp.connect("127.0.0.1", strict.port)
        ftp.sock.sendall(b"AUTH TLS\r\nUSER ftp\r\n")
        assert ftp.getresp().startswith("234")
        ftp.sock = ftp.context.wrap_socket(ftp.sock)
        ftp.file = ftp.sock.makefile(mode="r", encoding="utf-8")
        with pytest.raises(error_perm, match="503 Login with USER"):
            ftp.sendcmd("PASS x")


def test_what_was_said_to_be_sent_is_sent_before_the_end(lax: tuple[Served, Path]) -> None:
    """The key's process still has the end of the file when the session that sent it is over."""
    server, drop = lax
    content = os.urandom(2_840_000)
    (drop / "tail").write_bytes(content)
    with secure(server) as ftp:
        ftp.prot_p()
        ftp.voidcmd("TYPE I")
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what is not read stays there
            plain.settimeout(20)
            plain.connect(ftp.makepasv())
            ftp.putcmd("RETR tail")
            with ftp.context.wrap_socket(plain) as data:
                assert ftp.getresp().startswith("150")
                got = bytearray()
                while not select.select([ftp.sock], [], [], 0.3)[0]:
                    got += data.recv(65536)
                assert ftp.voidresp().startswith("226")
                assert len(got) < len(content)
                ftp.quit()
                time.sleep(0.5)
                while part := data.recv(65536):
                    got += part
    assert got == content


def test_a_farewell_is_heard(strict: Served) -> None:
    for _ in range(10):
        with FTP_TLS(timeout=10, context=ssl._create_unverified_context()) as ftp:
            ftp.connect("127.0.0.1", strict.port)
            ftp.auth()
            assert ftp.sendcmd("QUIT").startswith("221")


def test_files_go_both_ways(lax: tuple[Served, Path]) -> None:
    server, drop = lax
    content = bytes(range(256)) * 8000
    with secure(server) as ftp:
        ftp.prot_p()
        ftp.storbinary("STOR up", io.BytesIO(content))
        parts: list[bytes] = []
        ftp.retrbinary("RETR up", parts.append)
        assert b"".join(parts) == content == (drop / "up").read_bytes()
        ftp.set_pasv(False)
        assert "up" in ftp.nlst()


def test_ciphers_are_those_configured(folder: Path, pem: Path, pub: Path) -> None:
    name = "ECDHE-ECDSA-AES256-GCM-SHA384"
    file = written(folder / "ciphers", **BASE, anon_root=pub, rsa_cert_file=pem, ssl_ciphers=name)
    with serving(folder, str(file)) as server:
        context = ssl._create_unverified_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with secure(server, context=context) as ftp:
            assert isinstance(ftp.sock, ssl.SSLSocket) and (ftp.sock.cipher() or ("",))[0] == name


def test_tls_from_the_first_byte(folder: Path, pem: Path, pub: Path) -> None:
    file = written(folder / "implicit", **BASE, anon_root=pub, rsa_cert_file=pem, implicit_ssl="YES")
    with serving(folder, str(file)) as server:
        url = f"ftps://127.0.0.1:{server.port}/hello"
        done = subprocess.run(["curl", "-sSk", url], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
        with pytest.raises((EOFError, OSError)), FTP(timeout=1) as ftp:
            ftp.connect("127.0.0.1", server.port, timeout=1)


@pytest.mark.parametrize("implicit", ["NO", "YES"])
def test_an_idle_stranger_is_told_so_in_secret(folder: Path, pem: Path, pub: Path, implicit: str) -> None:
    file = written(folder / f"idle-{implicit}", **BASE, anon_root=pub, rsa_cert_file=pem, implicit_ssl=implicit,
                   idle_session_timeout=1)  # fmt: skip
    context = ssl._create_unverified_context()
    with serving(folder, str(file)) as server, socket.create_connection(("127.0.0.1", server.port), 20) as plain:
        if implicit == "NO":
            assert plain.recv(100).startswith(b"220 ")
            plain.sendall(b"AUTH TLS\r\n")
            assert plain.recv(100).startswith(b"234 ")
        with context.wrap_socket(plain) as wrapped, wrapped.makefile("rb") as lines:
            assert [line[:3] for line in lines] == ([b"421"] if implicit == "NO" else [b"220", b"421"])


def test_without_a_certificate_it_does_not_start(folder: Path, pub: Path) -> None:
    """Found at the start, not at the first AUTH."""
    file = written(folder / "none", **BASE, anon_root=pub, rsa_cert_file="/nowhere.pem")
    assert "/nowhere.pem" in refused(str(file))


def test_a_killed_tls_process_ends_its_own_connection_only(strict: Served) -> None:
    """It alone holds the ciphertext."""
    with secure(strict) as other, secure(strict) as victim:
        for each in (other, victim):
            each.voidcmd("NOOP")
        if not ROOT:
            pytest.skip("only root sees which process holds a connection")
        holders = strict.holders(victim)
        assert len(holders) == 1
        os.kill(holders.pop(), signal.SIGKILL)
        with pytest.raises((EOFError, OSError)):
            victim.getresp()
        assert other.voidcmd("NOOP").startswith("200")


def test_data_that_must_be_encrypted_is_refused_after_a_login_in_clear_text(place: Path, pem: Path, pub: Path) -> None:
    """As vsftpd: force_anon_data_ssl holds for who did not ask for TLS as well."""
    file = written(place / "conf", **BASE, anon_root=pub, rsa_cert_file=pem, force_anon_data_ssl="YES")
    with serving(place, str(file)) as server, server.login() as ftp:
        for refused_ in (ftp.nlst, lambda: ftp.retrbinary("RETR hello", print)):
            with pytest.raises(error_perm, match="522 Data connections must be encrypted"):
                refused_()
