"""Runs in: interpreters of their own. What is loaded with a session, and so is in every worker of its class."""

from __future__ import annotations

import subprocess
import sys

LIBRARIES = "sorted({line.rsplit('/', 1)[-1].split('.')[0] for line in open('/proc/self/maps') if '.so' in line})"
NOT_WANTED = {"_bz2", "_crypt", "_curses", "_lzma", "libbz2", "libcrypt", "liblzma", "libncursesw", "libtinfo"}


def libraries_with(imports: str) -> set[str]:
    command = [sys.executable, "-W", "ignore", "-c", f"import {imports}\nprint(*{LIBRARIES})"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_session_has_no_libraries_that_it_has_no_use_for() -> None:
    assert not libraries_with("bunri.apps.ftpd.session") & NOT_WANTED
    assert libraries_with("pyftpdlib.handlers") & NOT_WANTED


def test_who_wants_them_later_has_them() -> None:
    assert {"_bz2", "_lzma"} <= libraries_with("bunri.apps.ftpd.session, bz2, lzma")
