"""Runs in: the test process, as root. Services with systemd's hardening: systemd itself runs nowhere here, so its effects are made by hand
(programs/hardened.py), tried, and then the service is executed under them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hosting import PROGRAMS, environment

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="what systemd does to a service takes root")
UID = 61174  # of the service; without an account


def run(uid: int, capabilities: str, sets: str, paths: str = "/run/bunri") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAMS / "hardened.py", str(uid), capabilities, sets, paths, sys.executable, PROGRAMS / "service.py"],
        env=environment(), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def service(uid: int, capabilities: str) -> dict[str, Any]:
    """With the set that lets a service confine itself."""
    done = run(uid, capabilities, "@system-service,@sandbox")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def works(told: dict[str, Any]) -> None:
    assert told["size"] == [3, 4]
    assert told["read"] in ("Violation", "RemoteError")
    assert told["death"] == 9
    assert told["pool"] == [[n, n] for n in range(5)]
    assert {"files", "network", "syscalls", "time"} <= set(told["kept"])
    assert told["layers"]["filter"] == "in force"
    assert told["layers"]["pid namespace"] == "missing"


def test_a_hardened_service_of_an_ordinary_user() -> None:
    """No namespace is to be had: what only a user namespace keeps is refused by name, unless the policy says it may be missing."""
    told = service(UID, "")
    assert told["refused"][0] == "identity", told
    works(told)


def test_a_hardened_service_that_keeps_root() -> None:
    """With the capabilities to change ids, a worker has a uid of its own."""
    told = service(0, "SETUID,SETGID,SETPCAP,KILL,CHOWN,DAC_OVERRIDE")
    assert told.get("strict") == [1, 2], told
    works(told)


@pytest.mark.parametrize("uid", [0, UID])
def test_without_the_calls_to_confine_itself_nothing_starts(uid: int) -> None:
    """SystemCallFilter=@system-service alone has neither seccomp nor Landlock: no worker runs unconfined."""
    done = run(uid, "SETUID,SETGID,SETPCAP,KILL" if uid == 0 else "", "@system-service")
    assert done.returncode == 1
    assert "HostError" in done.stderr, done.stderr
    assert "may_miss" in done.stderr
    assert not done.stdout


def test_where_no_uid_can_be_reserved_the_remedy_is_said() -> None:
    """ProtectSystem=strict makes /run read-only too."""
    done = run(0, "SETUID,SETGID,SETPCAP,KILL", "@system-service,@sandbox", paths="")
    assert done.returncode == 1
    assert "ReadWritePaths=/run/bunri" in done.stdout + done.stderr, done.stderr
    assert "identity / own uid" in done.stdout + done.stderr
