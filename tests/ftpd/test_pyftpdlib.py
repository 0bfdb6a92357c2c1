"""pyftpdlib's own functional tests, pointed at our server: those that reach a server by its port and nothing else.

They come with pyftpdlib's source distribution, which pip fetches; without a package index they are skipped. What they
expect otherwise than vsftpd does it stands below, each with its reason.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from ftp_served import ROOT, serving, written

from bunri.apps.ftpd.auth import set_password

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLASSES = (
    "TestFtpAuthentication", "TestFtpDummyCmds", "TestFtpCmdsSemantic", "TestFtpFsOperations", "TestFtpStoreData",
    "TestFtpRetrieveData", "TestFtpListingCmds", "TestFtpAbort", "TestIPv4Environment", "TestIPv6Environment",
    "TestCornerCases",
)  # fmt: skip
OTHERWISE = {
    "TestFtpAuthentication": {
        "test_anon_auth": "who is logged in stays so, as in vsftpd",
        "test_user": "likewise",
        "test_user_during_transfer": "likewise",
        "test_wrong_cmds_order": "PASS once more is answered 230, as in vsftpd",
        "test_auth_failed": "vsftpd's words: 530 Login incorrect.",
        "test_max_auth": "likewise",
        "test_rein": "REIN is not there, as in vsftpd",
        "test_rein_during_transfer": "likewise",
    },
    "TestFtpDummyCmds": {"test_help": "asks about a command at random, which may be REIN"},
    "TestFtpCmdsSemantic": dict.fromkeys(("test_auth_cmds", "test_no_arg_cmds", "test_no_auth_cmds"), "REIN"),
    "TestFtpFsOperations": {"test_size": "SIZE is the file's, also after TYPE A, as in vsftpd"},
    "TestFtpStoreData": {
        "test_rest_on_stor": "a transfer needs PORT or PASV before it, as in vsftpd",
        "test_stou": "likewise",
        "test_stou_rest": "likewise",
        "test_stou_orphaned_file": "USER once more",
    },
    "TestFtpListingCmds": dict.fromkeys(("test_list", "test_nlst"), "what is not there has an empty listing, as in vsftpd"),
    "TestIPv4Environment": dict.fromkeys(("test_eprt", "test_eprt_v4", "test_port_v4"), "500 for a wrong PORT, as in vsftpd"),
    "TestIPv6Environment": dict.fromkeys(("test_eprt", "test_eprt_v6"), "likewise"),
    "TestCornerCases": {
        "test_active_conn_error": "the connection is made when a transfer begins",
        "test_port_race_condition": "likewise",
        "test_ioloop_fileno": "looks into the server's process",
    },
}  # fmt: skip
POINTED = """\
import os, tests

class Ours:
    def __init__(self, addr=None):
        v6 = addr is not None and ":" in addr[0]
        self.host, self.port = ("::1", int(os.environ["PORT6"])) if v6 else ("127.0.0.1", int(os.environ["PORT4"]))

    def start(self): ...
    def stop(self): ...

tests.FtpdThreadWrapper = tests.FtpdMultiprocWrapper = Ours
"""


@pytest.fixture
def suite(place: Path) -> Path:
    """Their tests, beside a conftest that puts our server in the place of theirs."""
    if ROOT and not os.access(sys.executable, os.X_OK):
        pytest.skip("nobody cannot run this interpreter")
    folder = place / "suite"
    folder.mkdir()
    number = version("pyftpdlib")
    kept = Path(sys.prefix) / "share" / "bunri-tests"  # fetched once for an environment
    if not list(kept.glob(f"pyftpdlib-{number}.tar.gz")):
        command = [
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            str(kept),
            f"pyftpdlib=={number}",
        ]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-m", *command], capture_output=True, timeout=90)
    found = list(kept.glob(f"pyftpdlib-{number}.tar.gz"))
    if not found:
        pytest.skip(f"pip could not fetch the source of pyftpdlib {number}")
    (folder / "tests").mkdir()
    with tarfile.open(found[0]) as archive:
        for member in archive:
            name = re.fullmatch(r"[^/]+/tests/(\w+\.(?:py|pem))", member.name)
            content = archive.extractfile(member) if name and member.isfile() else None
            if name and content is not None and name[1] != "conftest.py":  # it looks into a server of the same process
                (folder / "tests" / name[1]).write_bytes(content.read())
    (folder / "conftest.py").write_text(POINTED)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture
def ports(place: Path) -> Iterator[dict[str, str]]:
    users, home = place / "users", place / "home"
    set_password(users, "user", "12345")
    home.mkdir()
    home.chmod(0o1777)
    options = {"anonymous_enable": "YES", "ftp_username": "nobody", "anon_root": home, "local_enable": "YES",
               "guest_enable": "YES", "guest_username": "nobody", "virtual_passwd_file": users, "local_root": home,
               "virtual_use_local_privs": "YES", "write_enable": "YES", "allow_writeable_chroot": "YES",
               "ascii_download_enable": "YES", "ascii_upload_enable": "YES", "delay_failed_login": 0,
               "local_umask": "022", "ftpd_banner": "pyftpdlib ready."}  # fmt: skip
    six = {"listen": "NO", "listen_ipv6": "YES", "listen_address6": "::1"}
    with serving(place, str(written(place / "four", **options))) as four:
        with serving(place, str(written(place / "six", **{**options, **six}))) as server:
            yield {"PORT4": str(four.port), "PORT6": str(server.port)}


def test_their_tests_pass(suite: Path, ports: dict[str, str], place: Path) -> None:
    left_out = [f"({name} and {test})" for name, tests in OTHERWISE.items() for test in tests]
    chosen = f"({' or '.join(CLASSES)}) and not NoSendfile and not CustomIO and not ({' or '.join(left_out)})"
    path = [str(suite), *filter(None, sys.path)]
    (place / "tmp").mkdir()
    (place / "tmp").chmod(0o1777)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(suite),
         f"--basetemp={place}/tmp/inner", "-W", "ignore", "-n", "2", str(suite / "tests" / "test_functional.py"), "-k", chosen],
        cwd=place / "home", capture_output=True, text=True, umask=0,
        env={**os.environ, **ports, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"},
        **({"user": "nobody", "group": "nogroup", "extra_groups": []} if ROOT else {}),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 60
