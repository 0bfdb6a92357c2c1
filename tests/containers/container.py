"""Runs in: a program of its own, with the rights of whoever starts it: root, or an ordinary user for the rootless kinds.

    python container.py KIND FOLDER... -- COMMAND...

Runs COMMAND in what a container engine makes, without one: namespaces, a root of its own, /proc masked and /sys
read-only, the engine's fourteen default capabilities and its seccomp profile. FOLDERs are there under their own names;
/tmp and /run are empty. Ends as COMMAND did. The steps and their order are those of runc: the filter is loaded before
the capabilities go, without no_new_privs.

The root is this host's own, read-only, for want of an image. No image's content matters here; what an engine takes
away does.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass
from typing import NoReturn

import engine_profile

from bunri.kernel import capability, clone, mount, prctl, seccomp, system

# Docker's and Podman's default.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
                "NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP")  # fmt: skip
MASKED = ("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/dev/block")  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
USER = 1000  # the ordinary user in a container
OUTSIDE, SUBORDINATE, COUNT = (
    59050,
    1_000_000,
    65535,
)  # a rootless engine's user, and the uids that he has beside his own


@dataclass(frozen=True)
class Kind:
    """One way to be in a container."""

    what: str
    docker: bool = False  # Docker's profile, or Podman's
    uid: int = 0  # inside
    rootless: bool = False  # the engine is an ordinary user's: a user namespace around it all
    subordinate: bool = False  # in which he has more uids than his own
    landlock: bool = True

    @property
    def needs_root(self) -> bool:
        return not self.rootless or self.subordinate


KINDS = {
    "docker-root": Kind("Docker's profile, root", docker=True),
    "docker-user": Kind("Docker's profile, ordinary user", docker=True, uid=USER),
    "podman-root": Kind("Podman's profile, root"),
    "podman-user": Kind("Podman's profile, ordinary user", uid=USER),
    "rootless": Kind("rootless, Podman's profile", rootless=True, subordinate=True),
    "rootless-docker": Kind("rootless, Docker's profile", docker=True, rootless=True, subordinate=True),
    "rootless-one-uid": Kind("rootless with one uid", rootless=True),
    "old-root": Kind("Docker's profile, no Landlock, root", docker=True, landlock=False),
    "old-user": Kind("Docker's profile, no Landlock, ordinary user", docker=True, uid=USER, landlock=False),
}


def main(arguments: list[str]) -> int:
    kind, rest = KINDS[arguments[0]], arguments[1:]
    folders, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    profile = engine_profile.docker() if kind.docker else engine_profile.read()
    if not kind.landlock:
        profile = engine_profile.without_landlock(profile)
    program = engine_profile.compiled(profile, [f"CAP_{name}" for name in CAPABILITIES])
    with tempfile.TemporaryDirectory(prefix="bunri-container-") as root:
        os.chmod(root, 0o755)
        return _outside(kind, root, folders, program, command)


def _outside(kind: Kind, root: str, folders: list[str], program: bytes, command: list[str]) -> int:
    """Fork the one that makes the namespaces, write its maps, wait."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            prctl.set_parent_death_signal(signal.SIGKILL)
            _make_namespaces(kind, theirs)
            first = os.fork()  # the first process of the new pid namespace
            if first == 0:
                prctl.set_parent_death_signal(signal.SIGKILL)
                _inside(kind, root, folders, program, command)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
        except BaseException as fault:
            os.write(2, f"container: {type(fault).__name__}: {fault}\n".encode())
            os._exit(125)
    theirs.close()
    with ours:
        if ours.recv(1):
            _write_maps(kind, pid)
            ours.send(b"g")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _make_namespaces(kind: Kind, parent: socket.socket) -> None:
    if kind.rootless:
        clone.unshare(clone.CLONE_NEWUSER)
        parent.send(b"u")
        if parent.recv(1) != b"g":
            os._exit(125)
        if kind.subordinate:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
    parent.close()
    clone.unshare(clone.flags_of(("mnt", "pid", "net", "ipc", "uts", "cgroup")))


def _write_maps(kind: Kind, pid: int) -> None:
    """What newuidmap and newgidmap do for a rootless engine; or what its user may do without them.

    Its root is whoever starts us, also where that is root: outside of the namespace it has no capability, and what an
    image has for root's own, here the host's files, must be its own.
    """
    mine = (os.getuid(), os.getgid())
    if not kind.subordinate:
        _write(f"/proc/{pid}/setgroups", "deny")
    for name, own in zip(("uid_map", "gid_map"), mine, strict=True):
        more = f"1 {SUBORDINATE} {COUNT}\n" if kind.subordinate else ""
        _write(f"/proc/{pid}/{name}", f"0 {own} 1\n{more}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _inside(kind: Kind, root: str, folders: list[str], program: bytes, command: list[str]) -> NoReturn:
    """The container's first process: make the place, lower the rights, run the command, reap."""
    try:
        _make_root(root, folders)
        system.set_hostname("container")
        _loopback_up()
        os.chdir(folders[0] if folders else "/")
        _lower(kind, program)
        _run(command)
    except BaseException as fault:
        os.write(2, f"container: {type(fault).__name__}: {fault}\n".encode())
        os._exit(125)


# The root ------------------------------------------------------------------------------------------------------------


def _make_root(root: str, folders: list[str]) -> None:
    mount.mount(None, "/", None, mount.REC | mount.PRIVATE)
    kept = {folder: mount.clone_tree(folder) for folder in folders}
    mount.mount("/", root, None, mount.BIND | mount.REC)
    new = os.open(root, os.O_PATH | os.O_DIRECTORY)
    mount.set_attributes(new, mount.ATTR_RDONLY, recursive=True)
    os.close(new)
    for place in ("/tmp", "/run"):
        mount.mount("tmpfs", root + place, "tmpfs", mount.NOSUID | mount.NODEV, "mode=1777" if place == "/tmp" else "")
    for folder, tree in kept.items():
        os.makedirs(root + folder, exist_ok=True)
        place = os.open(root + folder, os.O_PATH | os.O_DIRECTORY)
        mount.attach(tree, place)
        os.close(place)
        os.close(tree)
    _make_devices(root)
    mount.mount("proc", f"{root}/proc", "proc", mount.NOSUID | mount.NODEV | mount.NOEXEC)
    _mask(root)
    os.chdir(root)
    mount.pivot_root(".", ".")
    mount.umount(".", mount.MNT_DETACH)
    os.chdir("/")


def _make_devices(root: str) -> None:
    """Empty but for six, each the host's own, by bind."""
    kept = {name: mount.clone_tree(f"/dev/{name}") for name in DEVICES}
    mount.mount("tmpfs", f"{root}/dev", "tmpfs", mount.NOSUID, "mode=755")
    for name, tree in kept.items():
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        place = os.open(f"{root}/dev/{name}", os.O_PATH)
        mount.attach(tree, place)
        os.close(place)
        os.close(tree)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")
    for name, kind in (("shm", "tmpfs"), ("mqueue", "mqueue")):
        os.mkdir(f"{root}/dev/{name}")
        mount.mount(kind, f"{root}/dev/{name}", kind, mount.NOSUID | mount.NODEV | mount.NOEXEC)


def _mask(root: str) -> None:
    for path in MASKED:
        if os.path.isdir(root + path):
            mount.mount("tmpfs", root + path, "tmpfs", mount.RDONLY, "size=0k")
        elif os.path.exists(root + path):
            mount.mount(f"{root}/dev/null", root + path, None, mount.BIND)
    for path in READ_ONLY:
        if os.path.exists(root + path):
            mount.mount(root + path, root + path, None, mount.BIND | mount.REC)
            place = os.open(root + path, os.O_PATH)
            mount.set_attributes(place, mount.ATTR_RDONLY, recursive=True)
            os.close(place)


def _loopback_up() -> None:
    get, put, up = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, get, struct.pack("16sH14x", b"lo", 0))
        fcntl.ioctl(sock, put, struct.pack("16sH14x", b"lo", struct.unpack("16sH14x", answer)[1] | up))


# The rights ----------------------------------------------------------------------------------------------------------


def _lower(kind: Kind, program: bytes) -> None:
    kept = {capability.NAMES.index(name) for name in CAPABILITIES}
    for number in range(capability.last() + 1):
        if number not in kept:
            prctl.drop_from_bounding_set(number)
    seccomp.set_filter(program)
    mask = capability.mask_of(kept)
    if kind.uid:
        os.setgroups([])
        os.setresgid(kind.uid, kind.uid, kind.uid)
        os.setresuid(kind.uid, kind.uid, kind.uid)
    else:
        capability.set_(capability.Sets(mask, mask, 0))
    prctl.set_dumpable(1)


def _run(command: list[str]) -> NoReturn:
    """As the first process of its pid namespace: whatever loses its parent becomes ours."""
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
