"""What a peer may write on the control connection, byte by byte, and how often he is answered."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import time
from collections.abc import Iterator
from ftplib import FTP, error_perm
from pathlib import Path

import pytest
from ftp_served import ROOT, Served, serving, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A root that nobody may write to, with a folder for uploads."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bunri-ftpd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "pub" / "in").mkdir(parents=True)
        (folder / "pub" / "in").chmod(0o777)
        yield folder


@pytest.fixture(scope="module")
def server(ground: Path) -> Iterator[Served]:
    file = written(
        ground / "conf", anonymous_enable="YES", anon_root=ground / "pub", ftp_username="", write_enable="YES",
        anon_upload_enable="YES", anon_mkdir_write_enable="YES", anon_other_write_enable="YES", hide_file="{*.mp3}",
        hide_ids="YES", anon_umask="022",
    )  # fmt: skip
    with serving(ground, str(file)) as server:
        yield server


def said(ftp: FTP, sent: bytes, count: int) -> list[str]:
    """The codes of what is answered, and that nothing more is: a NOOP comes behind it."""
    ftp.sock.sendall(sent + b"NOOP\r\n")
    answers = [ftp.getmultiline() for _ in range(count + 1)]
    assert answers.pop() == "200 NOOP ok."
    return [answer[:3] for answer in answers]


def lines_of(ftp: FTP, command: str) -> list[str]:
    found: list[str] = []
    ftp.retrlines(command, found.append)
    return found


def test_a_command_ends_at_a_line_feed(server: Served) -> None:
    with FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", server.port)
        ftp.sock.sendall(b"USER ftp\nPASS x\nPWD\n")
        assert [ftp.getmultiline()[:3] for _ in range(3)] == ["331", "230", "257"]
        assert said(ftp, b"PWD\nPWD\r\nPWD\n", 3) == ["257"] * 3


def test_a_command_has_one_answer_whatever_its_length(server: Served) -> None:
    with server.login() as ftp:
        for length in (2049, 4096, 10000, 70000):
            assert said(ftp, b"CWD " + b"x" * length + b"\r\n", 1) == ["500"]
        assert said(ftp, b"CWD " + b"x" * 2000 + b"\r\n", 1) == ["550"]


def test_a_zero_byte_does_not_end_the_session(server: Served) -> None:
    with server.login() as ftp:
        for command in (b"CWD", b"STOR", b"SIZE", b"MLST", b"LIST", b"MKD", b"STOU", b"RNFR", b"NOOP"):
            assert said(ftp, command + b" a\0b\r\n", 1) == ["501"]


@pytest.mark.parametrize("sign", ["\x1b[2J", "\t", "\x7f", "\x9b", "\r"])
def test_no_name_is_made_with_a_control_character(server: Served, ground: Path, sign: str) -> None:
    with server.login() as ftp:
        ftp.storbinary("STOR in/plain", io.BytesIO(b"x"))
        for command in ("MKD in/a{}b", "STOR in/a{}b", "STOU in/a{}b", "APPE in/a{}b", "XMKD in/a{}b"):
            ftp.sendcmd("EPSV")
            assert said(ftp, f"{command.format(sign)}\r\n".encode(), 1) == ["553"], command
        assert ftp.sendcmd("RNFR in/plain")[:3] == "350"
        assert said(ftp, f"RNTO in/a{sign}b\r\n".encode(), 1) == ["553"]
        ftp.delete("in/plain")
    assert not list((ground / "pub" / "in").iterdir())


def test_a_name_with_a_line_feed_forges_no_listing(server: Served, ground: Path) -> None:
    """Somebody else may have made it: on the machine itself."""
    forged = ground / "pub" / "a\n-rw-r--r--    1 0        0               9 Jan 01 00:00 fake\x1b\x9b"
    forged.write_text("")
    link = ground / "pub" / "link"
    link.symlink_to("a\nb")
    try:
        with server.login() as ftp:
            for command in ("LIST", "NLST", "MLSD"):
                found = lines_of(ftp, command)
                assert next(line for line in found if "fake" in line).endswith("fake??"), command
                assert all(line.isprintable() for line in found), found
                assert len(found) == {"LIST": 3, "NLST": 3, "MLSD": 2}[command]
            assert any(line.endswith("link -> a?b") for line in lines_of(ftp, "LIST"))
            status = ftp.sendcmd("STAT /")
            assert all(line.strip().isprintable() for line in status.split("\n")) and "a?-rw" in status
    finally:
        forged.unlink()
        link.unlink()


def test_who_does_not_read_his_answers_is_not_obeyed_further(server: Served) -> None:
    if not ROOT:
        pytest.skip("only root sees which process holds a connection")
    with server.login() as ftp:
        [worker] = server.holders(ftp)
        status, count = Path(f"/proc/{worker}/status"), 30_000
        before = int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0])
        ftp.sock.sendall(b"HELP\r\n" * count)
        time.sleep(2)
        assert int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0]) < before + 4000  # kB; all would be 18 MB
        assert said(ftp, b"", count) == ["214"] * count


def test_epsv_all_is_answered_as_its_rfc_says(server: Served) -> None:
    with server.login() as ftp:
        assert ftp.sendcmd("EPSV ALL")[:3] == "200"
        assert said(ftp, b"PASV\r\n", 1) == ["501"]
        assert ftp.sendcmd("EPSV")[:3] == "229"


def test_hidden_owners_are_not_in_facts_either(server: Served) -> None:
    with server.login() as ftp:
        assert "unix.uid" not in ftp.sendcmd("FEAT") and "unix.mode" in ftp.sendcmd("FEAT")
        assert ftp.sendcmd("OPTS MLST type;unix.uid;unix.gid;") == "200 MLST OPTS type;"
        assert "unix.uid" not in ftp.sendcmd("MLST in")


SMALL, LARGE = b"small\n", bytes(range(256)) * (1 << 15)


@pytest.fixture
def files(ground: Path) -> Iterator[None]:
    (ground / "pub" / "small").write_bytes(SMALL)
    (ground / "pub" / "large").write_bytes(LARGE)
    yield
    (ground / "pub" / "small").unlink()
    (ground / "pub" / "large").unlink()


def received(data: socket.socket) -> bytes:
    with data, data.makefile("rb") as reader:
        return reader.read()


@pytest.mark.parametrize(
    ("behind", "answers"),
    [
        ("RETR small", ["226", "425"]),
        ("STOR in/x", ["226", "425"]),
        ("LIST", ["226", "425"]),
        ("PASV", ["226", "227"]),
        ("PWD", ["226", "257"]),
        ("TYPE A", ["226", "200"]),
        ("QUIT", ["221", "226"]),
        ("NOOP", ["200", "226"]),
        ("STAT", ["211", "226"]),
    ],
)
def test_what_comes_behind_a_transfer_waits_for_its_end(
    server: Served, files: None, behind: str, answers: list[str]
) -> None:
    """As in vsftpd: no command cuts a transfer off, or goes on with another file in its connection."""
    with server.login() as ftp:
        ftp.voidcmd("TYPE I")
        address = ftp.makepasv()
        ftp.sock.sendall(b"RETR large\r\n" + behind.encode() + b"\r\n")
        with socket.create_connection(address) as data:
            time.sleep(0.2)
            assert received(data) == LARGE
        assert [ftp.getmultiline()[:3] for _ in range(3)] == ["150", *answers]
        if behind == "PASV":
            assert ftp.voidcmd("NOOP")


def test_commands_that_wait_are_all_obeyed_and_none_is_read_that_has_no_room(server: Served, files: None) -> None:
    line = b"CWD " + b"/" * 1500 + b"\r\n"
    with server.login() as ftp:
        ftp.voidcmd("TYPE I")
        with ftp.transfercmd("RETR large") as data:
            ftp.sock.settimeout(1)
            count = 0
            with contextlib.suppress(TimeoutError):
                while count < 1 << 25:
                    count += ftp.sock.send(line)
            assert count < 1 << 25  # the buffers are full, and the server's
            ftp.sock.settimeout(20)
            data.settimeout(20)
            assert received(data) == LARGE
        assert ftp.getmultiline()[:3] == "226"
        ftp.sock.sendall(line[count % len(line) :])
        for _ in range(count // len(line) + 1):
            assert ftp.getmultiline()[:3] == "250"


def test_a_hidden_file_is_hidden_from_who_names_it(server: Served, ground: Path) -> None:
    (ground / "pub" / "song.mp3").write_text("la")
    try:
        with server.login() as ftp:
            assert [lines_of(ftp, f"{command} song.mp3") for command in ("NLST", "LIST")] == [[], []]
            assert ftp.sendcmd("STAT song.mp3").splitlines()[1:] == ["213 End of status."]
            with pytest.raises(error_perm, match="550 No such file"):
                ftp.sendcmd("MLST song.mp3")
            assert ftp.size("song.mp3") == 2
    finally:
        (ground / "pub" / "song.mp3").unlink()


def test_the_family_of_a_peer_is_his_own(tmp_path: Path, ground: Path) -> None:
    """Also where one listener is for both, and the kernel shows him as ::ffff:127.0.0.1."""
    file = written(tmp_path / "conf", anonymous_enable="YES", anon_root=ground / "pub", ftp_username="", listen="NO",
                   listen_ipv6="YES", listen_address6="::")  # fmt: skip
    with serving(tmp_path, str(file)) as both, both.login() as ftp, FTP(timeout=10) as six:
        assert ftp.sendcmd("EPRT |1|127.0.0.1|50000|")[:3] == "200"
        assert ftp.sendcmd("EPSV 1")[:3] == "229"
        assert said(ftp, b"EPSV 2\r\nEPRT |2|::1|50000|\r\n", 2) == ["522", "522"]
        with socket.create_server(("127.0.0.1", 0)) as waiting:
            ftp.sendcmd(f"EPRT |1|127.0.0.1|{waiting.getsockname()[1]}|")
            assert ftp.sendcmd("NLST")[:3] == "150"
            with waiting.accept()[0] as data:
                assert data.recv(100) == b"in\r\n"
            assert ftp.voidresp()[:3] == "226"
        six.connect("::1", both.port)
        six.login()
        assert six.sendcmd("EPRT |2|::1|50000|")[:3] == "200"
        assert said(six, b"EPSV 1\r\nEPRT |1|127.0.0.1|50000|\r\n", 2) == ["522", "522"]
