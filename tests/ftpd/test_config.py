"""vsftpd.conf: the options that are there mean what they mean, and the others are refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ftp_served import refused

import bunri
from bunri.apps.ftpd import config as _config
from bunri.apps.ftpd import verbs
from bunri.apps.ftpd.accounts import _commands, names_in
from bunri.apps.ftpd.config import EITHER, KINDS, NOT_BUILT, Config, for_user, read
from bunri.apps.ftpd.messages import Kind

pytestmark = pytest.mark.slow


def parsed(folder: Path, text: str, *given: str) -> Config:
    file = folder / "conf"
    file.write_text("listen=YES\nanonymous_enable=YES\n" + text)
    return read(file, given)


def test_values_are_read_as_vsftpd_reads_them(tmp_path: Path) -> None:
    text = "# a comment\n\nlocal_umask=022\nmax_clients=22\nwrite_enable=yes\nftpd_banner=Hello, you = me\n"
    c = parsed(tmp_path, text, "max_clients=23")
    assert (c.local_umask, c.max_clients, c.write_enable, c.ftpd_banner) == (0o22, 23, True, "Hello, you = me")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("anonymus_enable=YES", "no option 'anonymus_enable'. Did you mean anonymous_enable?"),
        ("write_enable=perhaps", "neither YES nor NO"),
        ("max_clients=many", "no number"),
        ("local_umask=099", "no number"),
        ("max_clients=4294967296", "out of range"),
        ("write_enable = YES", "no space"),
        ("write_enable= YES", "no space"),
        ("write_enable", "no setting"),
        ("tilde_user_enable=YES", "does not have vsftpd's option tilde_user_enable"),
        ("chown_uploads=YES", "needs anonymous uploads"),
        ("pasv_promiscuous=YES", "always"),
        ("listen_ipv6=YES", "exclude each other"),
        ("implicit_ssl=YES", "needs ssl_enable"),
        ("pasv_min_port=2001\npasv_max_port=2000", "conf:3: pasv_min_port is above pasv_max_port"),
        ("pasv_enable=NO\nport_enable=NO", "no way for data"),
        ("ssl_enable=YES\nforce_anon_logins_ssl=YES", "conf:4: force_anon_logins_ssl=YES and allow_anon_ssl=NO let no"),
        ("ssl_enable=YES\nforce_anon_data_ssl=YES", "conf:4: force_anon_data_ssl=YES and allow_anon_ssl=NO leave"),
        ("idle_session_timeout=0", "conf:3: idle_session_timeout=0 is out of range: it is at least 1"),
        ("max_login_fails=0", "conf:3: max_login_fails=0 is out of range: it is at least 1"),
        ("accept_timeout=0", "at least 1"),
        ("listen_port=65536", "from 1 to 65535"),
        ("ftp_data_port=0", "from 1 to 65535"),
        ("pasv_min_port=70000", "conf:3: pasv_min_port=70000 is out of range: it is a number from 1 to 65535"),
        ("pasv_max_port=1023", "from 1024 to 65535"),
        ("max_clients=1_0", "no number"),
        ("max_clients=٣", "no number"),
        ("max_clients=-1", "no number"),
        ("max_clients=", "no number"),
        ("local_umask=0o22", "no number"),
        ("local_umask=01000", "conf:3: local_umask=01000 is above 0777"),
        (
            "file_open_mode=666",
            "conf:3: file_open_mode=666 is above 0777. Write it with a first 0: file_open_mode=0666",
        ),
        ("chown_upload_mode=07777", "above 0777"),
        ("pasv_address=ftp.example.org", "conf:3: pasv_address=ftp.example.org: it is no IPv4 address"),
        ("pasv_address=::1", "no IPv4 address"),
        ("listen_address=1.2.3", "no IPv4 address"),
        ("listen_address6=127.0.0.1", "no IPv6 address"),
        ("ftpd_banner=a\0b", "zero byte"),
        ("ssl_enable=YES\nssl_ciphers=NONSENSE", "no cipher"),
        ("deny_file={a,{b}}", "conf:3: deny_file={a,{b}}: { } are not nested"),
        ("deny_file={secret/*}", "conf:3: deny_file={secret/*}: a / matches nothing"),
        ("hide_file=inner/x", "conf:3: hide_file=inner/x: a / matches nothing"),
        ("cmds_denied=DELE,SIT", "conf:3: cmds_denied=DELE,SIT: there is no command 'SIT'. Did you mean SITE?"),
        ("cmds_allowed=SITE CHMODE", "there is no command 'SITE CHMODE'. Did you mean SITE CHMOD?"),
        ("cmds_allowed=*", "there is no command '*'. RFC 959 has the names"),
    ],
)
def test_what_means_nothing_is_refused_with_its_place(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(bunri.UsageError, match=re.escape(what)) as fault:
        parsed(tmp_path, line)
    assert str(tmp_path / "conf") in str(fault.value)


def test_numbers_and_addresses_at_the_ends_of_their_ranges_are_taken(tmp_path: Path) -> None:
    text = "listen_port=65535\npasv_min_port=0\npasv_max_port=0\nlocal_umask=0777\nmax_clients=0\n"
    c = parsed(tmp_path, f"{text}pasv_address=192.0.2.1\nlisten_address=\nlisten_address6=fe80::1%eth0\n")
    assert (c.listen_port, c.pasv_max_port, c.local_umask, c.pasv_address) == (65535, 0, 0o777, "192.0.2.1")


def test_a_file_may_begin_with_the_mark_of_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    file.write_bytes(b"\xef\xbb\xbflisten=YES\r\nanonymous_enable=YES\r\nftpd_banner=caf\xc3\xa9\xe2\x80\xa8!\r\n")
    assert read(file) == Config(listen=True, anonymous_enable=True, ftpd_banner="café\u2028!")
    file.write_bytes(b"\xef\xbb\xbfcarol\nbob\n")
    assert names_in(str(file)) == {"carol", "bob"}


def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    file.write_bytes(b"listen=YES\nanonymous_enable=YES\nftpd_banner=caf\xe9\n")
    with pytest.raises(bunri.UsageError, match=re.escape(f"{file}:3: this line is not UTF-8")):
        read(file)


def test_a_contradiction_is_told_with_the_place_of_one_of_its_options(tmp_path: Path) -> None:
    with pytest.raises(bunri.UsageError, match=":4: pasv_min_port is above"):
        parsed(tmp_path, "pasv_max_port=5000\npasv_min_port=5001\n")
    with pytest.raises(bunri.UsageError, match="^-opasv_min_port=5001: pasv_min_port is above"):
        parsed(tmp_path, "pasv_max_port=5000\n", "pasv_min_port=5001")


@pytest.mark.parametrize(
    ("lists", "there", "gone"),
    [
        ({"cmds_denied": "SITE"}, ["DELE"], ["SITE", "SITE CHMOD", "SITE HELP"]),
        ({"cmds_denied": "site chmod, DELE,"}, ["SITE", "SITE HELP"], ["SITE CHMOD", "DELE"]),
        ({"cmds_allowed": "SITE"}, ["SITE", "SITE CHMOD", "SITE HELP", "QUIT"], ["RETR", "DELE"]),
        ({"cmds_allowed": "RETR,SITE  CHMOD"}, ["RETR", "SITE CHMOD", "USER", "PASS"], ["SITE HELP"]),
        ({"cmds_allowed": "SITE", "cmds_denied": "SITE CHMOD"}, ["SITE HELP"], ["SITE CHMOD"]),
        ({"mdtm_write": False}, ["MDTM", "DELE"], ["MFMT"]),
        ({"mdtm_write": True}, ["MDTM", "MFMT"], []),
        ({"cmds_denied": "ACCT,REIN,SMNT"}, ["SITE CHMOD"], []),
    ],
)
def test_what_is_listed_or_off_is_what_a_session_has(
    lists: dict[str, str | bool], there: list[str], gone: list[str]
) -> None:
    config = Config(local_enable=True, write_enable=True, **lists)  # type: ignore[arg-type]
    commands = _commands(config, Kind.LOCAL, tls=False)
    assert commands >= set(there) and not commands & set(gone)


def test_every_command_of_the_server_is_known_to_the_lists() -> None:
    everything = Config(local_enable=True, write_enable=True)
    assert _commands(everything, Kind.LOCAL, tls=True) <= verbs.KNOWN


def test_an_option_that_is_not_built_may_stand_at_its_default(tmp_path: Path) -> None:
    assert parsed(tmp_path, "tcp_wrappers=NO\nseccomp_sandbox=YES\n") == parsed(tmp_path, "")


@pytest.mark.parametrize(
    "line",
    ["ssl_tlsv1=NO", "lock_upload_files=NO", "use_sendfile=NO", "ssl_request_cert=NO", "background=YES", "debug_ssl=1",
     "setproctitle_enable=YES", "no_log_lock=true", "check_shell=NO", "check_shell=YES", "one_process_model=false"],
)  # fmt: skip
def test_a_value_that_changes_nothing_is_accepted(tmp_path: Path, line: str) -> None:
    assert parsed(tmp_path, f"{line}\n") == parsed(tmp_path, "")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("background=perhaps", "neither YES nor NO"),
        ("strict_ssl_read_eof=YES", "does not have"),
        ("require_cert=YES", "does not have"),
        ("ssl_sslv3=YES", "does not have"),
        ("delete_failed_uploads=YES", "does not have"),
    ],
)
def test_a_value_that_would_be_missed_is_refused(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(bunri.UsageError, match=f"conf:3: .*{what}"):
        parsed(tmp_path, line)


def test_nobody_to_log_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(bunri.UsageError, match="nobody could log in"):
        parsed(tmp_path, "anonymous_enable=NO")


def test_a_users_own_file_changes_what_is_still_open(tmp_path: Path) -> None:
    main = parsed(tmp_path, "")
    own = tmp_path / "alice"
    own.write_text("write_enable=YES\n")
    assert for_user(main, own).write_enable and not for_user(main, tmp_path / "bob").write_enable
    own.write_text("accept_timeout=5\n")
    assert for_user(main, own).accept_timeout == 5
    for line, what in (
        ("max_clients=1", "max_clients does nothing in a user's own file"),
        ("xferlog_enable=YES", "xferlog_enable does nothing"),
        ("anon_root=/srv", "anon_root does nothing"),
        ("pasv_enable=NO\nport_enable=NO", "leave no way for data"),
        ("nonsense", "is no setting"),
    ):
        own.write_text(f"{line}\n")
        with pytest.raises(bunri.UsageError, match=f"{own}:[12]: .*{what}"):
            for_user(main, own)


def test_every_option_of_the_manual_is_known() -> None:
    """Debian's vsftpd.conf(5), where it is installed."""
    import gzip

    manual = Path("/usr/share/man/man5/vsftpd.conf.5.gz")
    if not manual.exists():
        pytest.skip("vsftpd's manual is not installed")
    names = set(re.findall(r"\.TP\n\.B (\w+)\n", gzip.decompress(manual.read_bytes()).decode()))
    assert len(names) > 100
    assert names <= set(KINDS) | set(NOT_BUILT) | set(EITHER)


def test_the_defaults_are_those_of_the_manual() -> None:
    import gzip

    manual = Path("/usr/share/man/man5/vsftpd.conf.5.gz")
    if not manual.exists():
        pytest.skip("vsftpd's manual is not installed")
    text = gzip.decompress(manual.read_bytes()).decode()
    ours = {"nopriv_user", "secure_chroot_dir", "ssl_ciphers"}
    different = []
    for name, entry in re.findall(r"\.TP\n\.B (\w+)\n(.*?)(?=\n\.TP|\n\.SH|\Z)", text, re.DOTALL):
        found = re.search(r"^Default: (\S+)", entry, re.MULTILINE)
        if name in KINDS and name not in ours and found:
            default = found[1] if not found[1].startswith("(none") else ""
            if _config._value(name, default, "the manual") != getattr(_config.DEFAULTS, name):
                different.append((name, default, getattr(_config.DEFAULTS, name)))
    assert not different


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    file.write_text("listen=YES\nanonymous_enable=YES\nanon_rooot=/srv\n")
    assert f"{file}:3: there is no option 'anon_rooot'. Did you mean anon_root?" in refused(str(file))
    assert "there is no file" in refused(str(tmp_path / "none"))
