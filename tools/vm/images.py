"""Runs in: the developer's machine, as root. What a guest is made of, from the distribution's packages: kept in .cache.

A guest's root is one initial RAM file system: a base that is kept, and a second archive with this checkout, made anew
each time. The kernel unpacks them one over the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).resolve().parent.parent.parent
CACHE: Final = TOP / ".cache/vm"
ROOT_SUITE: Final = "bookworm"
ROOT_PACKAGES: Final = ("python3", "busybox-static", "tzdata", "apparmor")
# What the tests import. The guest's Python is the root suite's.
SITE_PACKAGES: Final = ("pytest", "pytest-timeout", "hypothesis", "msgspec")
SITE_PYTHON: Final = "311"
WHEELS: Final = {"amd64": "manylinux2014_x86_64", "arm64": "manylinux2014_aarch64"}
COPIED: Final = ("src", "tests", "tools", "pyproject.toml")
POLICY_VERSION: Final = "31"  # which Linux 5.10 reads


@dataclass(frozen=True)
class Kernel:
    """A cloud kernel of a distribution's release, for one architecture."""

    suite: str
    arch: str

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.arch}"


def kernel(which: Kernel) -> Path:
    """The kernel's image."""
    image = CACHE / f"vmlinuz-{which.name}"
    if not image.exists():
        with tempfile.TemporaryDirectory() as folder:
            extract(folder, which.suite, which.arch, f"linux-image-cloud-{which.arch}")
            found = sorted(Path(folder, "boot").glob("vmlinuz-*"))
            if not found:
                raise SystemExit(f"vm: {which.suite} has no cloud kernel for {which.arch}")
            keep(found[-1], image)
    return image


def initrd(arch: str) -> Path:
    """The root and this checkout, for one boot."""
    CACHE.mkdir(parents=True, exist_ok=True)
    whole = CACHE / f"initrd-{arch}.zst"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "opt/bunri")
        target.mkdir(parents=True)
        for name in COPIED:
            source = TOP / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target / name)
        guest = target / "tools/vm/guest"
        run(
            "secilc",
            "-c",
            POLICY_VERSION,
            "-o",
            str(guest / "labels.policy"),
            "-f",
            "/dev/null",
            str(guest / "labels.cil"),
        )
        shutil.copy(guest / "init", Path(folder, "init"))
        Path(folder, "init").chmod(0o755)
        accounts(Path(folder, "etc"))
        os.chmod(folder, 0o755)
        archive(folder, CACHE / f"checkout-{arch}.zst")
    with whole.open("wb") as out:
        for part in base(arch), CACHE / f"checkout-{arch}.zst":
            out.write(part.read_bytes())
    return whole


def base(arch: str) -> Path:
    """The distribution's part of the root, and the packages the tests import."""
    made = CACHE / f"base-{arch}.zst"
    if not made.exists():
        with tempfile.TemporaryDirectory() as folder:
            extract(folder, ROOT_SUITE, arch, *ROOT_PACKAGES)
            run(
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
                *("--target", f"{folder}/opt/site", "--only-binary=:all:", "--platform", WHEELS[arch]),
                *("--python-version", SITE_PYTHON, *SITE_PACKAGES),
            )
            for name in "mnt", "proc", "sys", "dev", "tmp", "run", "opt/bunri":
                Path(folder, name).mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o755)
            archive(folder, made)
    return made


def accounts(etc: Path) -> None:
    """What the packages' own scripts would have made: root, nobody, and the ordinary user of the tests."""
    etc.mkdir()
    etc.joinpath("passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nuser:x:1000:1000::/tmp:/bin/sh\n"
    )
    etc.joinpath("group").write_text("root:x:0:\nnogroup:x:65534:\nuser:x:1000:\n")
    shadow = etc / "shadow"
    shadow.write_text("root:*:19000::::::\n")
    shadow.chmod(0o600)


def extract(folder: str, suite: str, arch: str, *packages: str) -> None:
    """The packages and what they depend on, unpacked and not configured: nothing of the guest's is executed here."""
    source = f"deb http://deb.debian.org/debian {suite} main"
    include = f"--include={','.join(packages)}"
    run("mmdebstrap", "--quiet", "--variant=extract", f"--arch={arch}", include, suite, folder, source)


def archive(folder: str, target: Path) -> None:
    """The folder as a compressed archive in the format of initramfs."""
    unfinished = target.with_suffix(".unfinished")
    command = f"find . -print0 | cpio --null --create --format=newc --quiet | zstd -3 -q -f -o {unfinished}"
    subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, check=True)
    unfinished.rename(target)


def keep(source: Path, target: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    shutil.copy(source, unfinished)
    unfinished.rename(target)


def run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
        raise SystemExit(f"vm: {command[0]} failed ({done.returncode})")
