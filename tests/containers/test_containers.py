"""Runs in: the test process. The attacks of THREATS, done in workers inside containers: kept, or named as missing.

`make containers` runs more of the suite in more kinds of container, and prints the table of docs/how-to/containers.md.
"""

from __future__ import annotations

import os

import pytest
from container import KINDS
from inside import NotPossible, look_inside, refuse_what_cannot_be

pytestmark = pytest.mark.slow

# Attacks that do not end there as they do on a bare host, and why. Nothing else may fail.
_ZYGOTE = {"07": "no user namespace to put the zygote in: it keeps root's rights, and the report says so"}
# These start under a policy of their own, which names nothing as missing: the start is refused.
_NOT_STARTED = {"06": "its own policy misses nothing", "16": "its own policy misses nothing"}
NAMED: dict[str, dict[str, str]] = {
    "docker-root": _ZYGOTE,
    "docker-user": _NOT_STARTED,
    "old-root": _ZYGOTE | _NOT_STARTED,
    "old-user": _NOT_STARTED,
    "rootless": {},
    "rootless-one-uid": {"07": "its root is the only user that there is"},
}
MISSING = {
    "docker-user": {"identity"},
    "old-root": {"processes"},
    "old-user": {"files", "identity", "processes"},
}
_SHORT = ("docker-root", "docker-user", "rootless") if os.getuid() == 0 else ("rootless-one-uid",)


@pytest.mark.slow
@pytest.mark.parametrize("kind", _SHORT)
def test_in_a_container_attacks_are_refused_or_named(kind: str) -> None:
    what = KINDS[kind]
    try:
        refuse_what_cannot_be(what.needs_root, bool(what.uid))
    except NotPossible as reason:
        pytest.skip(str(reason))
    found = look_inside(kind, ["tests/threats/test_threats.py", "-k", "attack"])
    assert set(found.missing) == MISSING.get(kind, set()), found.missing
    assert len(found.passed) > 25, found
    expected = {f"test_threats::test_threat_{number}_attack" for number in NAMED[kind]}
    assert set(found.failed) == expected, found.failed


def test_a_container_is_what_an_engine_makes() -> None:
    """The control: the fourteen capabilities, the filter, the masks; else nothing was tried above."""
    import subprocess
    import sys
    from pathlib import Path

    kind = _SHORT[0]
    try:
        refuse_what_cannot_be(KINDS[kind].needs_root, other_user=False)
    except NotPossible as reason:
        pytest.skip(str(reason))
    script = "cat /proc/self/status; ls -A /proc/scsi /tmp; head -c1 /proc/kcore | wc -c; hostname"
    command = [sys.executable, str(Path(__file__).parent / "container.py"), kind, "--", "/bin/sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "CapBnd:\t00000000a80425fb" in done.stdout, done
    assert "Seccomp:\t2" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["0", "container"]
