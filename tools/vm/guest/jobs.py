"""Runs in: a guest of `make test-vm`, as its root. Does the jobs named on the kernel's command line.

Each answer is one line on the console: `@@ ` and a JSON object. What pytest prints goes there too, to be read by eye.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

ORDINARY = 1000
MARK = "@@ "
SELINUX = Path("/sys/fs/selinux")
CGROUPS = Path("/sys/fs/cgroup")
BECOME = """
import os, sys
group, uid, *command = sys.argv[1:]
with open(f"{group}/cgroup.procs", "w") as file:
    file.write("0")
os.setgroups([])
os.setresgid(*[int(uid)] * 3)
os.setresuid(*[int(uid)] * 3)
os.execv(command[0], command)
"""
HERE = Path(__file__).parent
# The parts whose outcome depends on the kernel; what is pure, or drives other programs, is left to `make test`.
ENFORCEMENT = ("tests/kernel", "tests/confine", "tests/threats", "tests/process/test_grants.py")
PYTEST = ("-q", "-p", "no:cacheprovider", "--timeout", "300", "--tb", "short", "-m", "not slow")


def main() -> None:
    for name in words("bunri.jobs"):
        JOBS[name]()
    tell(job="end")


def words(parameter: str) -> list[str]:
    """The comma-separated value of one parameter of the kernel's command line."""
    for each in Path("/proc/cmdline").read_text().split():
        key, _, value = each.partition("=")
        if key == parameter:
            return value.split(",")
    return []


def tell(**facts: Any) -> None:
    print(f"\n{MARK}{json.dumps(facts)}", flush=True)


def run_as(uid: int, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments as root or as a user without an account; its output goes to the console."""
    environment = {**os.environ, "HOME": "/tmp", **more}
    become = [sys.executable, "-c", BECOME, str(group_of(uid)), str(uid)]
    return subprocess.run([*become, sys.executable, *command], env=environment, text=True, check=False)


def group_of(uid: int) -> Path:
    """The control group of a user's next program: for root the topmost, for others a new one, theirs to share out."""
    if uid == 0:
        return CGROUPS
    group = CGROUPS / f"user-{uid}-{len(list(CGROUPS.iterdir()))}"
    group.mkdir()
    for each in (group, *(group / name for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"))):
        os.chown(each, uid, uid)
    return group


def layers() -> None:
    """What the host can do, and the report of a worker."""
    for uid in (0, ORDINARY):
        target = f"/tmp/layers-{uid}.json"
        done = run_as(uid, "-m", "tools.vm.guest.layers", target)
        found = json.loads(Path(target).read_text()) if done.returncode == 0 else {"failed": done.returncode}
        tell(job="layers", uid=uid, **found)


def suite() -> None:
    for uid in (0, ORDINARY):
        test("suite", uid, *ENFORCEMENT)


def some() -> None:
    """The files and folders that the command line names as bunri.tests=one,two."""
    for uid in (0, ORDINARY):
        test("some", uid, *words("bunri.tests"))


def memory() -> None:
    """The tests of the memory cgroup: here is a version 2 hierarchy with its controllers."""
    for uid in (0, ORDINARY):
        test("memory", uid, "tests/process/test_memcg.py")


def selinux() -> None:
    """Load our policy, then run the tests of labels where it is enforced and where it is not."""
    subprocess.run(["busybox", "mount", "-t", "selinuxfs", "selinuxfs", str(SELINUX)], check=True)
    policy = (HERE / "labels.policy").read_bytes()
    number = os.open(SELINUX / "load", os.O_WRONLY)
    os.write(number, policy)  # a policy is taken in one write
    os.close(number)
    for enforced in "1", "0":
        (SELINUX / "enforce").write_text(enforced)
        for uid in (0, ORDINARY):
            test("selinux, " + ("enforcing" if enforced == "1" else "permissive"), uid, "tests/labels", "selinux")
    (SELINUX / "enforce").write_text("0")


def apparmor() -> None:
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache", str(HERE / "labels.apparmor")], check=True)
    for uid in (0, ORDINARY):
        test("apparmor", uid, "tests/labels", "apparmor")


def test(job: str, uid: int, *what: str) -> None:
    """Run tests; `what`: files and folders, and for those of labels the module last."""
    labels = what[-1] if what[-1] in ("selinux", "apparmor") else ""
    paths = what[:-1] if labels else what
    report = f"/tmp/report-{uid}.xml"
    run_as(uid, "-m", "pytest", *PYTEST, f"--junitxml={report}", *paths, BUNRI_LABELS=labels)
    tell(job=job, uid=uid, **read(report))


def read(report: str) -> dict[str, Any]:
    """Counts, and what did not pass with its reason, from pytest's XML."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    found: dict[str, Any] = {"passed": 0, "failed": {}, "skipped": {}}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        if bad is None:
            found["passed"] += 1
        else:
            kind = "skipped" if bad.tag == "skipped" else "failed"
            found[kind][name] = (bad.get("message") or "").splitlines()[0:1]
    return found


JOBS: dict[str, Callable[[], None]] = {
    "layers": layers,
    "suite": suite,
    "some": some,
    "memory": memory,
    "selinux": selinux,
    "apparmor": apparmor,
}

if __name__ == "__main__":
    main()
