"""Runs in: the test process, or `make containers`. Starts the container and reads what came out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
WITHIN = 240  # seconds


class NotPossible(Exception):
    """What this host lacks for such a container."""


@dataclass
class Found:
    """What was seen inside one kind of container."""

    kept: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    missing: dict[str, str] = field(default_factory=dict[str, str])
    passed: list[str] = field(default_factory=list[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    skipped: dict[str, str] = field(default_factory=dict[str, str])


def look_inside(kind: str, tests: list[str]) -> Found:
    """The promises that are kept there; then the tests, with what is missing named in every policy."""
    with tempfile.TemporaryDirectory(prefix="bunri-record-") as out:
        os.chmod(out, 0o777)
        found = Found(**json.loads(_run(kind, [str(HERE / "promises.py")], out)))
        record = Path(out, "record.xml")
        options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "missed", "--timeout=30", f"--junitxml={record}"]
        _run(kind, ["-m", "pytest", *options, *tests], out, missing=",".join(found.missing), codes=(0, 1))
        for case in ElementTree.parse(record).iter("testcase"):
            _sort(found, case)
        return found


def _sort(found: Found, case: ElementTree.Element) -> None:
    name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
    for child in case:
        if child.tag in ("failure", "error"):
            found.failed[name] = child.get("message", "")
            return
        if child.tag == "skipped":
            found.skipped[name] = child.get("message", "")
            return
    found.passed.append(name)


def _run(kind: str, arguments: list[str], out: str, *, missing: str = "", codes: tuple[int, ...] = (0,)) -> str:
    """Python in the container; what it wrote. AssertionError where it ended otherwise."""
    folders = [str(TOP), out, *(p for p in (sys.prefix, sys.base_prefix) if not p.startswith(("/usr", str(TOP))))]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(HERE),
        "BUNRI_MAY_MISS": missing,
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "container.py"), kind, *folders, "--", sys.executable, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WITHIN, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode in codes, f"{kind}: ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refuse_what_cannot_be(needs_root: bool, other_user: bool) -> None:
    """NotPossible where this host or its user cannot make such a container."""
    if needs_root and os.getuid() != 0:
        raise NotPossible("only root can make this container")
    if not Path("/usr/share/containers/seccomp.json").exists():
        raise NotPossible("no seccomp profile: install golang-github-containers-common")
    if other_user:
        for folder in (TOP, Path(sys.executable).resolve()):
            closed = [path for path in (folder, *folder.parents) if not path.stat().st_mode & 0o001]
            if closed:
                raise NotPossible(f"the container's ordinary user may not enter {closed[0]}")
