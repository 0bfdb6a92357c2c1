"""`bunri ftpd --check`: what a configuration grants stands there, and what it leaves off does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from ftp_served import ROOT, certificate, refused, written

from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.needs import unmet
from bunri.cli.ftpd import command


@pytest.fixture
def home(place: Path) -> Path:
    (place / "pub").mkdir()
    return place / "pub"


def checked(folder: Path, **options: str | int) -> tuple[int, str]:
    done = CliRunner().invoke(command, ["--check", str(written(folder / "conf", **options))], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.output


PLAIN = {"anonymous_enable": "YES", "ftp_username": ""}
WRITES = {"write_enable": "YES", "anon_upload_enable": "YES", "allow_writeable_chroot": "YES"}


@pytest.mark.parametrize(
    ("options", "there", "not_there"),
    [
        ({}, ["fs.read('{home}', at='/')", "changes nothing", "26 system calls"], ["fs.write", "tls,", "auth,", "Owners"]),
        (WRITES, ["fs.write('{home}', at='/')", "changes files by STOR, STOU"], ["fs.read(", "MKD", "DELE"]),
        ({**WRITES, "cmds_denied": "STOU"}, ["changes files by STOR\n"], ["STOU"]),
        ({**WRITES, "write_enable": "NO"}, ["fs.read(", "changes nothing"], ["fs.write"]),
        ({"text_userdb_names": "YES"}, ["an Owners"], []),
        ({"text_userdb_names": "YES", "hide_ids": "YES"}, [], ["Owners"]),
        ({"pasv_enable": "NO"}, ["passive ports off", "active from port any"], []),
        ({"port_enable": "NO", "pasv_min_port": 50000}, ["passive ports 50000 to any", "active off"], []),
        ({"max_per_ip": 3}, ["3 from one address"], []),
        ({"nopriv_user": "daemon"}, ["nopriv_user is not needed"], []),
    ],
)  # fmt: skip
def test_what_is_off_costs_no_permission(
    place: Path, home: Path, options: dict[str, str | int], there: list[str], not_there: list[str]
) -> None:
    code, said = checked(place, anon_root=home, **PLAIN, **options)
    assert code == 0, said
    for text in there:
        assert text.replace("{home}", str(home)) in said
    for text in not_there:
        assert text not in said


def test_a_key_that_is_another_ones_or_has_a_password_is_a_problem(place: Path) -> None:
    certificate(place / "one")
    certificate(place / "other")
    certificate(place / "locked", "-passout", "pass:word")
    for cert, key in (("one.cert", "other"), ("locked.cert", "locked"), ("one.cert", "one.cert")):
        config = Config(ssl_enable=True, rsa_cert_file=str(place / cert), rsa_private_key_file=str(place / key))
        assert [f"{place}/{key}: no certificate with its key" in fault for fault in unmet(config)] == [True]
    config = Config(ssl_enable=True, rsa_cert_file=str(place / "one.cert"), rsa_private_key_file=str(place / "one"))
    assert list(unmet(config)) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"userlist_enable": "YES", "userlist_file": "/nowhere"}, "userlist_file=/nowhere cannot be read"),
        ({"ssl_enable": "YES", "rsa_cert_file": "/etc/passwd"}, "rsa_cert_file=/etc/passwd: no certificate"),
        ({"ssl_enable": "YES", "rsa_cert_file": "/nowhere"}, "rsa_cert_file=/nowhere cannot be read"),
        ({"xferlog_enable": "YES", "vsftpd_log_file": "/nowhere/x"}, "vsftpd_log_file=/nowhere/x cannot be written to"),
    ],
)
def test_a_start_refuses_what_the_check_finds(place: Path, home: Path, options: dict[str, str], why: str) -> None:
    said = refused(str(written(place / "conf", **PLAIN, anon_root=home, **options)))
    assert f"{place}/conf:8: {why}" in said


def test_tls_and_users_have_processes_of_their_own(place: Path, home: Path) -> None:
    certificate(place / "pem")
    (place / "users").write_text("")
    code, said = checked(
        place, anon_root=home, **PLAIN, ssl_enable="YES", rsa_cert_file=place / "pem", local_enable="YES",
        guest_enable="YES", guest_username="nobody", virtual_passwd_file=place / "users", local_root=home,
    )  # fmt: skip
    assert code == 0, said
    assert f"the key of {place}/pem" in said and "users' logins must" in said and "anonymous logins must not" in said
    assert f"the open file {place}/users" in said and "unconfined" not in said


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"anon_root": "/nowhere"}, "session of anonymous: none could start: its folder '/nowhere' is none"),
        ({"banner_file": "/nowhere"}, "conf:7: banner_file=/nowhere cannot be read: No such file"),
        ({"ssl_enable": "YES", "rsa_cert_file": "/nowhere"}, "conf:8: rsa_cert_file=/nowhere cannot be read"),
        ({"ssl_enable": "YES", "rsa_cert_file": "/etc/passwd"}, "conf:8: rsa_cert_file=/etc/passwd: no certificate"),
        ({"userlist_enable": "YES", "userlist_file": "/nowhere"}, "conf:8: userlist_file=/nowhere cannot be read: No"),
        ({"chroot_list_enable": "YES", "chroot_list_file": "/nowhere"}, "conf:8: chroot_list_file=/nowhere cannot be"),
        ({"local_enable": "YES", "pam_service_name": "no-such"}, "pam_service_name=no-such"),
        (
            {"xferlog_enable": "YES", "vsftpd_log_file": "/nowhere/x"},
            "conf:8: vsftpd_log_file=/nowhere/x cannot be written",
        ),
        ({"ftp_username": "no-such-user"}, "there is no user 'no-such-user'"),
        ({"user_config_dir": "/nowhere"}, "user_config_dir=/nowhere is no folder"),
    ],
)
def test_what_a_peer_would_meet_is_a_problem(
    place: Path, home: Path, options: dict[str, str | int], problem: str
) -> None:
    code, said = checked(place, **{**PLAIN, "anon_root": home, **options})
    assert code == 1 and any(line.startswith("problem: ") and problem in line for line in said.splitlines()), said


def test_each_users_own_file_is_looked_at(place: Path, home: Path) -> None:
    own = place / "own"
    own.mkdir()
    for name, text in {
        "fine": "write_enable=YES\n", "clash": "pasv_min_port=3000\npasv_max_port=2000\n", "late": "\nmax_clients=1\n",
        "wrong": "writ_enable=YES\n", "a b": "", ".kept": "nonsense", "gone": "local_root=/nowhere\n",
    }.items():  # fmt: skip
        (own / name).write_text(text)
    (place / "users").write_text("")
    code, said = checked(
        place, local_enable="YES", guest_enable="YES", guest_username="nobody", virtual_passwd_file=place / "users",
        local_root=home, virtual_use_local_privs="YES", user_config_dir=own, text_userdb_names="YES",
    )  # fmt: skip
    told = [line.removeprefix("problem: ") for line in said.splitlines() if line.startswith("problem: ")]
    none = "none could start"
    assert code == 1 and told == [
        f"{own}/a b: no user has this name: it has a space or an unprintable sign",
        f"session of clash: {none}: {own}/clash:1: pasv_min_port is above pasv_max_port",
        f"session of gone: {none}: its folder '/nowhere' is none",
        f"session of late: {none}: {own}/late:2: max_clients does nothing in a user's own file. Set it in the main file",
        f"session of wrong: {none}: {own}/wrong:1: there is no option 'writ_enable'. Did you mean write_enable?",
    ]
    sessions = {line.split()[2]: line for line in said.splitlines() if line.startswith("  session of ")}
    assert sessions.keys() == {"USER:", "fine:"}
    assert "fs.read(" in sessions["USER:"] and "fs.write(" in sessions["fine:"]


def test_a_root_that_its_user_may_write_to_is_a_problem(place: Path, home: Path) -> None:
    home.chmod(0o777)
    code, said = checked(place, anon_root=home, **PLAIN, write_enable="YES", anon_upload_enable="YES")
    assert code == 1 and "allow_writeable_chroot=YES" in said
    assert ROOT or "User.same()" in checked(place, anon_root=home, **PLAIN)[1]
