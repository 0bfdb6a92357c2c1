"""Runs in: a worker that changes its label; the monitor, which reads it back; the host's detection.

SELinux domains and AppArmor profiles are kept in /proc/PID/attr (proc_pid_attr(5)). A process changes its own by
writing there, with one thread, and only through a descriptor that it opened itself.
"""

from __future__ import annotations

import os
from typing import Final

SELINUX: Final = "selinux"
APPARMOR: Final = "apparmor"

_FILES: Final = {SELINUX: "attr/current", APPARMOR: "attr/apparmor/current"}


def open_own(module: str, proc: int | None = None) -> int:
    """The caller's own label, to be written. `proc`: a descriptor of a /proc that knows the caller; else /proc itself.

    OSError: ENOENT where the module is none of this kernel's.
    """
    path = f"self/{_FILES[module]}"
    if proc is None:
        return os.open(f"/proc/{path}", os.O_WRONLY | os.O_CLOEXEC)
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)


def change(module: str, number: int, label: str) -> None:
    """Change the caller's label through the descriptor of `open_own`.

    OSError: EINVAL, ENOENT where the policy knows no such domain or profile; EACCES where it does not allow the change.
    """
    text = f"changeprofile {label}" if module == APPARMOR else label
    os.write(number, text.encode())


def read(module: str, directory: int) -> str:
    """The label of the process that `directory` (of /proc/PID) names, as the kernel spells it.

    AppArmor adds the profile's mode: "NAME (enforce)". OSError where it may not be read.
    """
    number = os.open(_FILES[module], os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(number, 4096).decode(errors="backslashreplace").rstrip("\0\n")
    finally:
        os.close(number)


def module_here() -> str:
    """The security module that labels processes here: "selinux", "apparmor", or "" for none."""
    with open("/proc/filesystems") as file:
        if "selinuxfs" in file.read().split():
            return SELINUX
    try:
        with open("/sys/module/apparmor/parameters/enabled") as file:
            return APPARMOR if file.read().strip() == "Y" else ""
    except OSError:
        return ""


def selinux_enforces() -> bool:
    """Whether SELinux refuses what its policy forbids, and does not only log it. OSError: selinuxfs is not mounted."""
    with open("/sys/fs/selinux/enforce") as file:
        return file.read().strip() == "1"
