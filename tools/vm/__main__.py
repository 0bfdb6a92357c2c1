"""Runs in: the developer's machine, as root: `make test-vm`. Boots the kernels, then writes docs/kernels.md.

    python -m vm              all boots; about an hour
    python -m vm NAME...      those of these names; * stands for anything
    python -m vm NAME... -- TEST...      only these tests, files or folders of them, in those

But for single tests, the table in docs/kernels.md is written anew from the last boot of each.

Ends with 1 when a test failed in a guest, or a guest did not do all its jobs.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from vm import images, table
from vm.boot import Answers, Boot, boot, read
from vm.images import Kernel

BULLSEYE, BOOKWORM, TRIXIE = Kernel("bullseye", "amd64"), Kernel("bookworm", "amd64"), Kernel("trixie", "amd64")
BOOTS = {
    "5.10": Boot(BULLSEYE, ("layers", "suite", "memory")),
    "6.1": Boot(BOOKWORM, ("layers", "suite", "memory")),
    "6.12": Boot(TRIXIE, ("layers", "suite", "memory")),
    "6.1-arm64": Boot(Kernel("bookworm", "arm64"), ("layers", "suite")),
    "6.12-arm64": Boot(Kernel("trixie", "arm64"), ("layers", "suite")),
    "6.12-selinux": Boot(TRIXIE, ("selinux",), lsm="landlock,selinux"),
    "6.12-apparmor": Boot(TRIXIE, ("apparmor",), lsm="landlock,apparmor"),
}
TOOLS = ("qemu-system-x86_64", "qemu-system-aarch64", "mmdebstrap", "cpio", "zstd", "secilc")


def main(words: list[str]) -> int:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        packages = " ".join(
            each
            for each in (images.TOP / "tools/vm/debian-packages.txt").read_text().split("\n")
            if each and each[0] != "#"
        )
        print(f"vm: {', '.join(missing)} missing. As root:  apt-get install -y {packages}", file=sys.stderr)
        return 1
    if os.geteuid():
        print("vm: the guests' roots are made as root", file=sys.stderr)
        return 1
    words, tests = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    chosen = {name: each for name, each in BOOTS.items() if not words or any(fnmatch(name, word) for word in words)}
    if not chosen:
        print(f"vm: no boot is called so. There are {', '.join(BOOTS)}", file=sys.stderr)
        return 2
    if tests:
        chosen = {name: replace(each, jobs=("some",), tests=tuple(tests)) for name, each in chosen.items()}
    answers = {name: _one(name, each) for name, each in chosen.items()}
    if not tests:
        logs = {name: _log(name, each) for name, each in BOOTS.items()}
        kept = {name: read(BOOTS[name], log) for name, log in logs.items() if log.exists()}
        table.write({name: each for name, each in kept.items() if each.ended})
    return 0 if all(map(_well, answers.values())) else 1


def _log(name: str, what: Boot) -> Path:
    return images.CACHE / f"{name}{'-some' if what.tests else ''}.log"


def _one(name: str, what: Boot) -> Answers:
    log = _log(name, what)
    images.CACHE.mkdir(parents=True, exist_ok=True)
    print(f"\n== {name}: {what.kernel.name}, lsm={what.lsm}, {' '.join(what.jobs)}", flush=True)
    answers = boot(what, log)
    for each in answers.found:
        if "passed" in each:
            counts = f"{each['passed']} passed, {len(each['failed'])} failed, {len(each['skipped'])} skipped"
            print(f"{each['job']}, uid {each['uid']}: {counts}")
            for test, why in each["failed"].items():
                print(f"  FAILED {test}: {' '.join(why)}")
        elif each["job"] == "layers":
            print(f"layers, uid {each['uid']}: {each.get('refused') or each.get('failed') or 'started'}")
    if not answers.ended:
        print(f"  the guest did not finish: see {log}")
    print(f"{answers.seconds:.0f} s", flush=True)
    return answers


def _well(answers: Answers) -> bool:
    tested = [each for each in answers.found if "passed" in each]
    started = [each for each in answers.of("layers") if each.get("answer") != 42 and "refused" not in each]
    return answers.ended and not started and all(not each["failed"] for each in tested)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
