"""What single options do: each as a peer sees it, and what it costs in permissions."""

from __future__ import annotations

import asyncio
import io
import os
import pwd
import re
import signal
from ftplib import FTP, error_perm, error_temp
from pathlib import Path

import pytest
from ftp_served import ROOT, pam_service, refused, serving, system_user, written

import bunri
from bunri.apps import ftpd
from bunri.apps.ftpd.accounts import account
from bunri.apps.ftpd.config import Config
from bunri.apps.ftpd.favours import OwnersHere, UploadsHere
from bunri.apps.ftpd.messages import Kind

pytestmark = pytest.mark.slow
needs_root = pytest.mark.skipif(not ROOT, reason="gives files to other users")


@pytest.fixture
def drop(place: Path) -> Path:
    """A root that nobody may write to, with a folder for uploads."""
    (place / "in").mkdir()
    (place / "in").chmod(0o777)
    return place


def lines_of(ftp: FTP, command: str) -> list[str]:
    found: list[str] = []
    ftp.retrlines(command, found.append)
    return found


@needs_root
def test_uploads_become_somebody_elses(drop: Path, tmp_path: Path) -> None:
    file = written(
        tmp_path / "conf", anonymous_enable="YES", anon_root=drop, ftp_username="nobody", write_enable="YES",
        anon_upload_enable="YES", chown_uploads="YES", chown_username="daemon", text_userdb_names="YES",
    )  # fmt: skip
    with serving(tmp_path, str(file)) as server, server.login() as ftp:
        ftp.storbinary("STOR in/new", io.BytesIO(b"x" * 100000))
        stored = drop / "in" / "new"
        assert (stored.owner(), stored.stat().st_mode & 0o777, stored.stat().st_size) == ("daemon", 0o600, 100000)
        with pytest.raises(error_perm, match="553"):
            ftp.storbinary("STOR in/new", io.BytesIO(b"again"))
        with pytest.raises(error_perm, match="553"):
            ftp.storbinary("STOR in/../../new", io.BytesIO(b"above"))
        assert " daemon " in lines_of(ftp, "LIST in")[0]
        assert ftp.sendcmd("CWD in") == "250 Directory successfully changed."


@needs_root
@pytest.mark.parametrize("other", ["NO", "YES"])
def test_every_kind_of_upload_becomes_somebody_elses(drop: Path, tmp_path: Path, other: str) -> None:
    """STOU too, and where existing files may be changed."""
    (drop / "in" / "old").write_text("old")
    os.chown(drop / "in" / "old", *pwd.getpwnam("nobody")[2:4])
    file = written(
        tmp_path / "conf", anonymous_enable="YES", anon_root=drop, ftp_username="nobody", write_enable="YES",
        anon_upload_enable="YES", chown_uploads="YES", chown_username="daemon", anon_other_write_enable=other,
    )  # fmt: skip
    with serving(tmp_path, str(file)) as server, server.login() as ftp:
        ftp.storbinary("STOR in/stor", io.BytesIO(b"x"))
        ftp.storbinary("STOU in/stou", io.BytesIO(b"x"))
        if other == "YES":
            ftp.storbinary("APPE in/appe", io.BytesIO(b"x"))
            ftp.storbinary("STOR in/old", io.BytesIO(b"x"))
            ftp.storbinary("APPE in/old", io.BytesIO(b"y"))
            assert (drop / "in" / "old").read_text() == "xy"
        ftp.sendcmd("EPSV")
        for command, code in ((b"STOR in/\xff", "553"), (b"STOU in/\xff", "450")):
            ftp.sock.sendall(command + b"\r\n")
            with pytest.raises((error_perm, error_temp), match=f"{code} .*UTF-8"):
                ftp.getresp()
        assert ftp.pwd() == "/"
    found = {path.name.split(".")[0]: (path.owner(), path.stat().st_mode & 0o777) for path in (drop / "in").iterdir()}
    made = ("stor", "stou", "appe") if other == "YES" else ("stor", "stou")
    assert {name: found[name] for name in made} == dict.fromkeys(made, ("daemon", 0o600))
    assert found["old"][0] == "nobody"


# Before all else: without the capabilities that are not in the unit, as systemd starts it.
BOUND = """
import ctypes, os, sys
if "BOUND" not in os.environ:
    for number in {numbers}:
        ctypes.CDLL(None).prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
    os.environ["BOUND"] = "yes"
    os.execv(sys.executable, sys.orig_argv)
"""


@needs_root
def test_the_capabilities_of_the_unit_are_enough(drop: Path, tmp_path: Path) -> None:
    """For users and PAM, for a port below 1024, for what is given away, and for names of owners."""
    unit = (Path(ftpd.__path__[0]) / "systemd" / "bunri-ftpd.service").read_text()
    kept = {bunri.Capability[name] for name in re.findall(r"CAP_(\w+)", unit)}
    lost = sorted(set(bunri.Capability) - kept)
    assert len(kept) == 16 and bunri.Capability.SYS_MODULE in lost and bunri.Capability.MKNOD in lost
    with pam_service() as service, system_user() as (name, password, home):
        file = written(
            tmp_path / "conf", anonymous_enable="YES", anon_root=drop, ftp_username="nobody", write_enable="YES",
            anon_upload_enable="YES", chown_uploads="YES", chown_username="daemon", text_userdb_names="YES",
            local_enable="YES", pam_service_name=service, connect_from_port_20="YES",
        )  # fmt: skip
        with serving(tmp_path, str(file), first=BOUND.format(numbers=[int(each) for each in lost])) as server:
            held = int(re.findall(r"CapEff:\s+(\w+)", Path(f"/proc/{server.process.pid}/status").read_text())[0], 16)
            assert held and not any(held >> int(each) & 1 for each in lost)
            with server.login() as ftp:
                ftp.storbinary("STOR in/new", io.BytesIO(b"x"))
                assert (drop / "in" / "new").owner() == "daemon" and " daemon " in lines_of(ftp, "LIST in")[0]
            with server.login(name, password) as ftp:
                ftp.set_pasv(False)
                ftp.storbinary("STOR mine", io.BytesIO(b"x"))
                assert (home / "mine").owner() == name


def test_names_of_owners_come_back_when_their_broker_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> list[str]:
        owners = OwnersHere()
        said = [await owners.user(0), await owners.group(0), await owners.user(1 << 62), await owners.group(-(1 << 62))]
        agent = owners._names._agent  # type: ignore[attr-defined]
        os.kill(agent.pid, signal.SIGKILL)
        return [*said, await owners.user(0), await owners.user(0)]

    assert asyncio.run(go()) == ["root", "root", str(1 << 62), str(-(1 << 62)), "0", "root"]
    assert "no names of owners: broker: the broker of names has ended" in caplog.text


def test_a_unique_name_has_the_mode_of_every_upload(drop: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "conf", anonymous_enable="YES", anon_root=drop, ftp_username="", write_enable="YES",
                   anon_upload_enable="YES", anon_umask="022", file_open_mode="0664")  # fmt: skip
    with serving(tmp_path, str(file)) as server, server.login() as ftp:
        for command in ("STOR in/stor", "STOU in/stou", "STOU"):
            ftp.storbinary(command, io.BytesIO(b"x"))
            ftp.cwd("in" if command.startswith("STOU in") else "/")
    assert {path.stat().st_mode & 0o777 for path in (drop / "in").iterdir()} == {0o644}
    assert len(list((drop / "in").iterdir())) == 3


@needs_root
def test_only_what_the_broker_made_is_given_away(drop: Path) -> None:
    """Names that are there already, links, and names outside: nothing changes its owner."""
    (drop / "in" / "mine").write_text("root's")
    (drop / "in" / "link").symlink_to(drop / "in" / "mine")
    (drop / "in" / "out").symlink_to("/tmp")
    config = Config(anonymous_enable=True, anon_root=str(drop), ftp_username="nobody", write_enable=True,
                    anon_upload_enable=True, chown_uploads=True, chown_username="daemon")  # fmt: skip

    async def go() -> None:
        uploads = UploadsHere(account(config, "ftp", Kind.ANONYMOUS, tls=False))
        for name in ("in/mine", "in/link", "in/out/x", "../x", "in", "new", ""):
            with pytest.raises(OSError, match="."):
                await uploads.create(name)
        (await uploads.create("/in/new")).close()

    asyncio.run(go())
    assert (drop / "in/mine").stat().st_uid == 0 and not (drop / "new").exists()
    assert (drop / "in/new").stat().st_uid == pwd.getpwnam("daemon").pw_uid


@pytest.mark.parametrize("on", [True, False])
def test_folders_speak_for_themselves(place: Path, pub: Path, on: bool) -> None:
    message = pub / "inner" / ".message"
    message.write_text("Mind the step.\n")
    try:
        with serving(place, "--share", str(pub), f"-odirmessage_enable={'YES' if on else 'NO'}") as server:
            with server.login() as ftp:
                said = ftp.sendcmd("CWD inner")
                assert said == ("250-Mind the step.\n" if on else "") + "250 Directory successfully changed."
                ftp.cwd("..")
                assert ftp.sendcmd("CWD inner") == "250 Directory successfully changed."
    finally:
        message.unlink()


@pytest.mark.parametrize(("option", "hour"), [("NO", "12:00"), ("YES", "21:00")])
def test_times_are_utc_or_local(
    place: Path, pub: Path, monkeypatch: pytest.MonkeyPatch, option: str, hour: str
) -> None:
    monkeypatch.setenv("TZ", "JST-9")
    (pub / "dated").write_text("x")
    os.utime(pub / "dated", (1_000_036_800 + 86400 * 365, 1_000_036_800 + 86400 * 365))
    try:
        with serving(place, "--share", str(pub), f"-ouse_localtime={option}") as server, server.login() as ftp:
            assert ftp.sendcmd("MDTM dated").endswith(hour.replace(":", "") + "00")
    finally:
        (pub / "dated").unlink()


def test_chown_uploads_takes_root(tmp_path: Path) -> None:
    if ROOT:
        pytest.skip("root may")
    file = written(tmp_path / "conf", anonymous_enable="YES", write_enable="YES", anon_upload_enable="YES",
                   chown_uploads="YES")  # fmt: skip
    assert "root starts" in refused(str(file))


def test_a_session_has_only_what_its_options_ask_for(drop: Path) -> None:
    plain = Config(anonymous_enable=True, anon_root=str(drop), ftp_username="")
    earned = account(plain, "ftp", Kind.ANONYMOUS, tls=False)
    assert not earned.gives_away and earned.files == bunri.fs.read(str(drop), at="/")
