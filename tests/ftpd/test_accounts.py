"""Virtual users, lists of users, users' own files, limits, logs: each as somebody who logs in meets it."""

from __future__ import annotations

import hashlib
import io
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ftplib import FTP, error_perm, error_temp
from pathlib import Path

import pytest
from click.testing import CliRunner
from ftp_served import ROOT, Served, refused, serving, written

import bunri
from bunri.apps.ftpd.accounts import account, forget_service_users
from bunri.apps.ftpd.auth import COST
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.messages import Kind
from bunri.cli.ftpd import command

pytestmark = pytest.mark.slow
NO_NAMES = ["a:b", "a/b", "", "a\nb", "x" * 129, ".", "..", ".hidden", "-x", "a b", " a", "a\x1b", "a\udce9", "../x"]


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """Homes of virtual users, for whoever the sessions run as."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bunri-ftpd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for user in ("alice", "bob", "carol"):
            home = folder / "homes" / user
            home.mkdir(parents=True)
            home.chmod(0o777)
            (home / "whose").write_text(user)
            (home / "song.mp3").write_text("la")
            (home / ".dot").write_text("")
        yield folder


def passwd(file: Path, name: str, password: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bunri", "ftpd", "passwd", str(file), name, *more]
    return subprocess.run(command, input=f"{password}\n", text=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def virtual(ground: Path) -> Iterator[Served]:
    users, own, listed = ground / "users", ground / "own", ground / "listed"
    for user in ("alice", "bob", "carol"):
        assert passwd(users, user, f"{user}'s word").returncode == 0
    own.mkdir()
    (own / "bob").write_text("write_enable=NO\nhide_ids=YES\n")
    listed.write_text("carol\n")
    file = written(
        ground / "conf", local_enable="YES", guest_enable="YES", guest_username="nobody", virtual_passwd_file=users,
        local_root=f"{ground}/homes/$USER", user_sub_token="$USER", virtual_use_local_privs="YES", write_enable="YES",
        allow_writeable_chroot="YES", user_config_dir=own, userlist_enable="YES", userlist_file=listed,
        hide_file="{*.mp3}", deny_file="{secret*}", delay_failed_login=0, max_login_fails=2, xferlog_enable="YES",
        dual_log_enable="YES", xferlog_file=ground / "xferlog", vsftpd_log_file=ground / "log", local_umask="022",
        cmds_denied="SITE CHMOD", ftpd_banner="Welcome", log_ftp_protocol="YES",
    )  # fmt: skip
    with serving(ground, str(file)) as server:
        yield server


def test_each_virtual_user_has_his_own_root(virtual: Served) -> None:
    for user in ("alice", "bob"):
        with virtual.login(user, f"{user}'s word") as ftp:
            lines: list[str] = []
            ftp.retrlines("RETR /whose", lines.append)
            assert (lines, ftp.pwd()) == ([user], "/")
            with pytest.raises(error_perm, match="550"):
                ftp.cwd("/../bob/../alice")


def test_a_wrong_password_and_an_unknown_name_are_answered_alike(virtual: Served) -> None:
    answers = []
    for user in ("alice", "mallory", "root", "a b", "x" * 200):
        with pytest.raises(error_perm) as fault:
            virtual.login(user, "wrong")
        answers.append(str(fault.value))
    assert set(answers) == {"530 Login incorrect."}


def test_a_listed_user_is_not_asked_for_a_password(virtual: Served) -> None:
    with FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", virtual.port)
        assert ftp.getwelcome() == "220 Welcome"
        with pytest.raises(error_perm, match="530 Permission denied"):
            ftp.sendcmd("USER carol")


def test_names_are_not_tried_through(virtual: Served) -> None:
    """One that may not log in counts as a wrong password."""
    with FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", virtual.port)
        for _ in range(2):
            with pytest.raises(error_perm, match="530 Permission denied"):
                ftp.sendcmd("USER carol")
        with pytest.raises((EOFError, OSError)):
            ftp.sendcmd("USER alice")


def test_a_name_cannot_say_another_address_in_the_log(virtual: Served) -> None:
    with pytest.raises(error_perm, match="530"):
        virtual.login('x] FAIL LOGIN: Client "192.0.2.77", "', "wrong")
    assert virtual.says('[x\\x5d FAIL LOGIN: Client \\x22192.0.2.77\\x22, \\x22] FAIL LOGIN: Client "127.0.0.1"')


@pytest.mark.skipif(not ROOT, reason="only root can give a folder to somebody")
def test_a_root_that_its_user_may_write_is_refused(tmp_path: Path) -> None:
    """By whatever bit he may."""
    nobody = pwd.getpwnam("nobody")
    config = Config(listen=True, local_enable=True, guest_enable=True, guest_username="nobody", write_enable=True,
                    local_root=str(tmp_path), virtual_use_local_privs=True)  # fmt: skip
    for uid, gid, mode in ((nobody.pw_uid, 0, 0o755), (0, nobody.pw_gid, 0o775), (0, 0, 0o757)):
        os.chown(tmp_path, uid, gid)
        tmp_path.chmod(mode)
        with pytest.raises(bunri.UsageError, match="may write there"):
            account(config, "alice", Kind.GUEST, tls=False)
    tmp_path.chmod(0o775)
    os.chown(tmp_path, 0, 0)
    assert account(config, "alice", Kind.GUEST, tls=False).root == str(tmp_path)


def test_a_users_own_file_takes_rights_from_him(virtual: Served, ground: Path) -> None:
    with virtual.login("bob", "bob's word") as ftp:
        with pytest.raises(error_perm, match="550"):
            ftp.storbinary("STOR new", io.BytesIO(b"x"))
        lines: list[str] = []
        ftp.retrlines("LIST", lines.append)
        assert lines and all(" ftp      ftp " in line for line in lines)
    with virtual.login("alice", "alice's word") as ftp:
        ftp.storbinary("STOR new", io.BytesIO(b"x"))
    assert (ground / "homes/alice/new").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"pasv_enable=NO\nport_enable=NO\n", "2: pasv_enable=NO and port_enable=NO leave no way for data"),
        (b"max_per_ip=1\n", "1: max_per_ip does nothing in a user's own file"),
        (b"\xff", "1: this line is not UTF-8"),
    ],
)
def test_a_users_own_file_with_a_fault_lets_him_not_in(virtual: Served, ground: Path, text: bytes, why: str) -> None:
    own = ground / "own" / "alice"
    own.write_bytes(text)
    try:
        with pytest.raises(error_perm, match="530 Login incorrect"):
            virtual.login("alice", "alice's word")
        assert virtual.says(f"127.0.0.1: alice could not log in with any password: {own}:{why}")
    finally:
        own.unlink()
    with virtual.login("alice", "alice's word") as ftp:
        assert ftp.nlst()


def test_names_are_hidden_and_denied_as_configured(virtual: Served) -> None:
    with virtual.login("alice", "alice's word") as ftp:
        assert "song.mp3" not in ftp.nlst() and ".dot" not in ftp.nlst() and ".dot" in ftp.nlst("-a")
        assert ftp.size("song.mp3") == 2
        for command in ("STOR secret.txt", "MKD secrets", "SITE CHMOD 777 whose"):
            with pytest.raises(error_perm, match="550 Permission denied"):
                ftp.sendcmd(command)


def test_logs_say_what_was_done_and_cannot_be_forged(virtual: Served, ground: Path) -> None:
    with virtual.login("alice", "alice's word") as ftp:
        ftp.storbinary("STOR in the log", io.BytesIO(b"12345"))
        ftp.mkd("x\u202e")
    assert virtual.says('OK MKDIR: Client "127.0.0.1", "/x\\u202e"')
    line = (ground / "xferlog").read_text().splitlines()[-1]
    assert re.search(r" 127\.0\.0\.1 5 /in_the_log b _ i g alice ftp 0 \* c$", line), line
    own = (ground / "log").read_text()
    assert '[alice] OK UPLOAD: Client "127.0.0.1", "/in the log", 5 bytes' in own
    assert '[alice] FTP command: Client "127.0.0.1", "STOR in the log"' in own
    assert '[alice] FTP response: Client "127.0.0.1", "226 Transfer complete."' in own and "alice's word" not in own


def test_anonymous_is_logged_by_what_he_gave_for_a_password(place: Path, pub: Path) -> None:
    """As in vsftpd; whatever it is, it ends no line and no field."""
    file = written(place / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="", xferlog_enable="YES",
                   dual_log_enable="YES", xferlog_file=place / "xferlog", vsftpd_log_file=place / "log")  # fmt: skip
    with serving(place, str(file)) as server:
        for given in ("me@example.org", 'a "b\x1b', ""):
            with server.login("anonymous", given or " ") as ftp:
                ftp.retrbinary("RETR hello", lambda data: None)
    own = [line for line in (place / "log").read_text().splitlines() if "OK LOGIN" in line]
    assert [line.partition("[ftp] OK LOGIN: ")[2] for line in own] == [
        'Client "127.0.0.1", anon password "me@example.org"',
        'Client "127.0.0.1", anon password "a_\\x22b\\x1b"',
        'Client "127.0.0.1", anon password "_"',
    ]
    fields = [line.split() for line in (place / "xferlog").read_text().splitlines()]
    assert [each[12:] for each in fields] == [
        ["a", name, "ftp", "0", "*", "c"] for name in ("me@example.org", 'a_"b\\x1b', "_")
    ]


def test_attempts_are_counted(virtual: Served) -> None:
    with FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", virtual.port)
        for _ in range(2):
            with pytest.raises(error_perm, match="530"):
                ftp.login("alice", "wrong")
        with pytest.raises((EOFError, OSError)):
            ftp.sendcmd("USER alice")


@pytest.mark.parametrize(
    ("option", "answer"), [("max_per_ip", "from your"), ("max_clients", "too many connected users")]
)
def test_places_are_counted(place: Path, pub: Path, option: str, answer: str) -> None:
    with serving(place, "--share", str(pub), f"-o{option}=2") as server:
        with server.login(), server.login(), FTP(timeout=10) as ftp:
            with pytest.raises(error_temp, match=f"421 .*{answer}"):
                ftp.connect("127.0.0.1", server.port)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                server.login().close()
                break
            except (error_temp, EOFError):
                time.sleep(0.1)
        else:
            pytest.fail("a place that was left is not free again")


def test_a_password_is_changed_and_a_user_removed(tmp_path: Path) -> None:
    file = tmp_path / "users"
    assert passwd(file, "dora", "one").returncode == 0
    before = file.read_text()
    assert passwd(file, "dora", "two").returncode == 0
    assert file.read_text() != before and len(file.read_text().splitlines()) == 1 and "two" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert passwd(file, "dora", "", "--delete").returncode == 0
    assert file.read_text() == ""
    assert passwd(file, "emma", "").returncode == 2


def test_passwords_that_are_set_at_once_are_all_kept(tmp_path: Path) -> None:
    file, names = tmp_path / "users", [f"user{number}" for number in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(lambda name: passwd(file, name, "x"), names))
    assert [it.returncode for it in done] == [0] * len(names), done
    assert sorted(line.partition(":")[0] for line in file.read_text().splitlines()) == names


def test_a_file_keeps_its_owner_and_its_mode(tmp_path: Path) -> None:
    file, link = tmp_path / "users", tmp_path / "link"
    file.write_text("")
    file.chmod(0o640)
    uid, gid = (12345, 54321) if ROOT else (os.geteuid(), os.getegid())
    os.chown(file, uid, gid)
    link.symlink_to(file)
    for path, more in ((file, []), (link, []), (link, ["--delete"])):
        assert passwd(path, "dora", "one", *more).returncode == 0
        info = file.stat()
        assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (uid, gid, 0o640)
        assert link.is_symlink() and not file.is_symlink()
    assert file.read_text() == ""
    file.unlink()
    assert "leads nowhere" in passwd(link, "dora", "one").stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("given", "kept", "said"),
    [
        (b"right\r\nmore\n", "right", ""),
        (b"right", "right", ""),
        (b"\r\n", None, "an empty password"),
        (b"caf\xe9\n", None, "not UTF-8"),
        (b"x" * 129, None, "has 129 bytes. At most 128"),
        ("ä".encode() * 64, "ä" * 64, ""),
    ],
)
def test_a_password_from_standard_input_is_one_that_can_log_in(
    tmp_path: Path, given: bytes, kept: str | None, said: str
) -> None:
    file = tmp_path / "users"
    done = CliRunner().invoke(command, ["passwd", str(file), "alice"], input=given)
    assert said in done.output and (done.exit_code == 0) == (kept is not None)
    if kept is not None:
        _, salt, hash_ = file.read_text().strip().split(":")
        assert hashlib.scrypt(kept.encode(), salt=bytes.fromhex(salt), **COST).hex() == hash_
    else:
        assert not file.exists()


def test_what_was_written_by_hand_can_be_removed(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("..:00:00\nalice:00:00\n")
    assert passwd(file, "..", "", "--delete").returncode == 0 and file.read_text() == "alice:00:00\n"
    assert "there is no user 'bob'" in passwd(file, "bob", "", "--delete").stderr
    assert "there is no user" in passwd(tmp_path / "none", "bob", "", "--delete").stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_none_stands_for_no_folder(tmp_path: Path, name: str) -> None:
    config = Config(local_enable=True, guest_enable=True, guest_username="nobody", user_sub_token="$USER",
                    local_root=f"{tmp_path}/$USER")  # fmt: skip
    with pytest.raises(bunri.UsageError, match="no part of a path"):
        account(config, name, Kind.GUEST, tls=False)
    with pytest.raises(bunri.UsageError, match="no part of a path"):
        account(replace(config, local_root=str(tmp_path), user_config_dir=str(tmp_path)), name, Kind.GUEST, tls=False)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    from bunri.apps.ftpd.auth import set_password

    with pytest.raises(bunri.UsageError, match="cannot be a user's name"):
        set_password(tmp_path / "users", name, "x")


def test_a_hangup_reads_the_configuration_again(place: Path, pub: Path) -> None:
    file = written(place / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="", ftpd_banner="before")
    with serving(place, str(file)) as server:
        with server.login() as old:
            file.write_text(file.read_text().replace("before", "after"))
            server.process.send_signal(signal.SIGHUP)
            assert server.says("read again")
            with FTP(timeout=10) as ftp:
                ftp.connect("127.0.0.1", server.port)
                assert ftp.getwelcome() == "220 after"
            good = file.read_text()
            faults = {
                "nonsense\n": "conf:1: 'nonsense' is no setting",
                f"{good}userlist_enable=YES\nuserlist_file=/nowhere\n": "userlist_file=/nowhere cannot be read",
                f"{good}ssl_enable=YES\nrsa_cert_file=/etc/passwd\n": "rsa_cert_file=/etc/passwd: no certificate",
                f"{good}banner_file=/nowhere\n": "banner_file=/nowhere cannot be read",
                "": "nobody could log in",
            }
            for text, why in faults.items():
                file.write_text(text)
                server.process.send_signal(signal.SIGHUP)
                assert server.says(why), server.log.read_text()
            file.unlink()
            server.process.send_signal(signal.SIGHUP)
            assert server.says("there is no file")
            assert server.log.read_text().count("the old configuration stays: ") == len(faults) + 1
            assert old.nlst()
            with FTP(timeout=10) as ftp:
                ftp.connect("127.0.0.1", server.port)
                assert ftp.getwelcome() == "220 after"


@pytest.mark.skipif(not ROOT, reason="an ordinary user's sessions are all his own")
def test_whom_the_configuration_names_is_looked_up_once_for_it(pub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And who logs in each time."""
    asked: list[str] = []
    look_up = pwd.getpwnam
    monkeypatch.setattr(pwd, "getpwnam", lambda name: (asked.append(name), look_up(name))[1])
    forget_service_users()
    config = Config(
        anonymous_enable=True, local_enable=True, ftp_username="daemon", anon_root=str(pub), local_root=str(pub)
    )
    for _ in range(3):
        earned = account(config, "ftp", Kind.ANONYMOUS, tls=False)
        assert earned.user.uid == look_up("daemon").pw_uid
    for _ in range(2):
        account(config, "nobody", Kind.LOCAL, tls=False)
    assert asked == ["daemon", "nobody", "nobody"]
    forget_service_users()
    account(config, "ftp", Kind.ANONYMOUS, tls=False)
    assert asked[3:] == ["daemon"]


@pytest.mark.slow
def test_a_rate_is_kept_and_an_idle_peer_is_sent_away(place: Path, pub: Path) -> None:
    file = written(place / "conf", anonymous_enable="YES", anon_root=pub, ftp_username="", anon_max_rate=500000,
                   idle_session_timeout=1)  # fmt: skip
    with serving(place, str(file)) as server, server.login() as ftp:
        begun = time.monotonic()
        size = 0

        def count(data: bytes) -> None:
            nonlocal size
            size += len(data)

        ftp.retrbinary("RETR large", count)
        assert size == 1 << 20 and time.monotonic() - begun > 1.0
        time.sleep(1.5)
        with pytest.raises((error_temp, EOFError), match="421|"):
            ftp.sendcmd("NOOP")


def test_system_users_without_root_are_refused_at_the_start(place: Path) -> None:
    if ROOT:
        pytest.skip("root may have them")
    assert "needs a server that root starts" in refused(str(written(place / "conf", local_enable="YES"))) or os.getuid()
