"""What a peer meets who has not logged in."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from ftplib import FTP, error_perm
from pathlib import Path

import pytest
from ftp_served import Served, pam_service, serving, system_user, written

from bunri.apps.ftpd import prelogin
from bunri.apps.ftpd.auth import hashed

pytestmark = pytest.mark.slow


@pytest.fixture
def virtual(place: Path) -> Iterator[Served]:
    home = place / "home"
    home.mkdir()
    (place / "users").write_text(f"lena:{hashed('x')}\n")
    file = written(place / "conf", local_enable="YES", guest_enable="YES", guest_username="nobody", local_root=home,
                   virtual_passwd_file=place / "users", delay_failed_login=0, idle_session_timeout=2)  # fmt: skip
    with serving(place, str(file)) as server:
        yield server


def connected(server: Served) -> FTP:
    ftp = FTP(timeout=20)
    ftp.connect("127.0.0.1", server.port)
    return ftp


@pytest.mark.parametrize("sent", [b"", b"USER lena\r\nPASS"])
def test_an_idle_stranger_is_told_that_he_is_sent_away(virtual: Served, sent: bytes) -> None:
    with connected(virtual) as ftp:
        ftp.sock.sendall(sent)
        begun = time.monotonic()
        if sent:
            assert ftp.getresp()[:3] == "331"
        assert ftp.getline() == "421 Timeout."
        assert 1.5 < time.monotonic() - begun < 6
        with pytest.raises(EOFError):
            ftp.getline()


def test_a_stranger_who_says_something_stays(virtual: Served) -> None:
    with connected(virtual) as ftp:
        for _ in range(3):
            time.sleep(1.2)
            assert ftp.sendcmd("NOOP")[:3] == "200"
        assert ftp.login("lena", "x")[:3] == "230"


def test_the_last_word_comes_before_the_policys_end() -> None:
    assert prelogin.PreLogin.policy.wall == 60.0 and prelogin.PATIENCE + 1 < 60


def test_a_password_is_its_bytes(place: Path) -> None:
    """Not text: this one is Latin-1."""
    password = b"caf\xe9 \xff"
    with pam_service() as service, system_user() as (name, _, home):
        subprocess.run(["chpasswd"], input=name.encode() + b":" + password + b"\n", check=True)
        (home / "mine").write_text("")
        file = written(place / "conf", local_enable="YES", pam_service_name=service, delay_failed_login=0)
        with serving(place, str(file)) as server, connected(server) as ftp:
            ftp.encoding = "latin-1"
            for wrong in ("caf? ?", "caf\ufffd \ufffd".encode().decode("latin-1")):
                with pytest.raises(error_perm, match="530"):
                    ftp.login(name, wrong)
            ftp.sock.sendall(b"USER " + name.encode() + b"\r\nPASS " + password + b"\r\n")
            assert [ftp.getresp()[:3] for _ in range(2)] == ["331", "230"]


def test_a_name_that_is_no_text_is_nobodys(virtual: Served) -> None:
    with connected(virtual) as ftp:
        ftp.sock.sendall(b"USER l\xe9na\r\nPASS x\r\n")
        assert ftp.getresp()[:3] == "331"
        with pytest.raises(error_perm, match="530 Login incorrect"):
            ftp.getresp()
