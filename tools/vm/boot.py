"""Runs in: the developer's machine. One boot of one guest under qemu's emulation (no KVM is needed), and its answers."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from vm import images
from vm.guest.jobs import MARK

QEMU: Final = {
    "amd64": ("qemu-system-x86_64", "-M", "q35", "-cpu", "max"),
    "arm64": ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57"),
}
CONSOLE: Final = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
MEMORY: Final = "2500"
LONGEST: Final = 1800  # seconds


@dataclass(frozen=True)
class Boot:
    """A kernel, the security modules it is started with, and what is to be done in it."""

    kernel: images.Kernel
    jobs: tuple[str, ...]
    lsm: str = "landlock"
    tests: tuple[str, ...] = ()  # of the job "some"


@dataclass
class Answers:
    """What a guest said. `ended`: it did all its jobs."""

    boot: Boot
    found: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ended: bool = False
    seconds: float = 0.0
    when: str = ""

    def of(self, job: str) -> list[dict[str, Any]]:
        return [each for each in self.found if each["job"].split(",")[0] == job]


def boot(what: Boot, log: Path) -> Answers:
    """Start it and wait until it powers off, at most half an hour. Its console is kept in `log`."""
    arch = what.kernel.arch
    line = f"console={CONSOLE[arch]} quiet panic=-1 lsm={what.lsm} bunri.jobs={','.join(what.jobs)}"
    if what.tests:
        line += f" bunri.tests={','.join(what.tests)}"
    command = (
        *("nice", *QEMU[arch], "-accel", "tcg", "-m", MEMORY, "-smp", "1", "-nographic", "-no-reboot", "-nic", "none"),
        *("-kernel", str(images.kernel(what.kernel)), "-initrd", str(images.initrd(arch)), "-append", line),
    )
    began = time.monotonic()
    with log.open("wb") as console:
        try:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            console.write(b"\nvm: not finished in time, and ended\n")
    return replace(read(what, log), seconds=time.monotonic() - began)


def read(what: Boot, log: Path) -> Answers:
    """The answers that a boot left in its log."""
    answers = Answers(what, when=time.strftime("%Y-%m-%d", time.localtime(log.stat().st_mtime)))
    for text in log.read_text(errors="replace").splitlines():
        if text.startswith(MARK):
            found = json.loads(text.removeprefix(MARK))
            answers.ended = answers.ended or found["job"] == "end"
            answers.found.append(found)
    return answers
