"""Runs in: a fresh interpreter of its own, started by `detect` with -I -S -B, with the caller's rights.

Usage: python -I -S -B _probe.py FOLDER_OF_BUNRI. Writes one JSON object: the fields of `bunri.plan.Host`.

Each thing is *tried*, in a child that then ends: kernel versions and configuration files do not say what a container's
filter or a security module takes away. Only the standard library and bunri.kernel are loaded, and not bunri itself.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

_WITHIN = 5  # seconds for one thing


def _make_importable(folder: str) -> None:
    """A package `bunri` that only has a path: its own __init__ would load what is not needed here."""
    package = ModuleType("bunri")
    package.__path__ = [folder]
    sys.modules["bunri"] = package


if __name__ == "__main__":
    _make_importable(sys.argv[1])

from bunri.kernel import (  # noqa: E402
    capability,
    cgroup,
    clone,
    descriptors,
    keyring,
    label,
    landlock,
    mount,
    notify,
    paths,
    pidfd,
    pinned,
    prctl,
    rlimit,
    seccomp,
    system,
)

_ALLOW_ALL = b"\x06\0\0\0\0\0\xff\x7f"  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW
_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
_ROOT_LINKS = ("/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")


def _attempt(action: Callable[[], object]) -> str:
    """Do it in a child. Empty where it went well, else the errno's name or the signal's."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(_WITHIN)
        word = b""
        try:
            action()
        except OSError as error:
            word = errno.errorcode.get(error.errno or 0, "OSError").encode()
        except BaseException as error:
            word = type(error).__name__.encode()
        os.write(writer, word)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else answer


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    clone.unshare(clone.CLONE_NEWUSER)
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def _use_user_namespace() -> None:
    """Ubuntu's security module lets it be made, and then refuses what its capabilities are for."""
    _enter_user_namespace()
    clone.unshare(clone.CLONE_NEWNS)
    mount.mount(None, "/", None, mount.REC | mount.PRIVATE)


def _privileged() -> bool:
    return bool(capability.get().effective >> capability.SYS_ADMIN & 1)


def _gain_privilege() -> None:
    if not _privileged():
        _enter_user_namespace()


def _make_namespace(name: str) -> None:
    _gain_privilege()
    pid, _ = clone.clone_process(clone.FLAGS[name])
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _set_hostname() -> None:
    _gain_privilege()
    clone.unshare(clone.CLONE_NEWUTS)
    system.set_hostname("bunri")


def _own_mounts() -> None:
    _gain_privilege()
    clone.unshare(clone.CLONE_NEWNS)
    mount.mount(None, "/", None, mount.REC | mount.PRIVATE)


def _pivot() -> None:
    _own_mounts()
    root = mount.new_filesystem("tmpfs", {}, 0)
    mount.attach(root, os.open("/", os.O_PATH))
    os.fchdir(root)
    mount.pivot_root(".", ".")
    mount.umount(".", mount.MNT_DETACH)


def _set_mount_attributes() -> None:
    _own_mounts()
    mount.set_attributes(mount.clone_tree("/"), mount.ATTR_RDONLY, recursive=True)


def _restrict_by_landlock() -> None:
    prctl.set_no_new_privs()
    landlock.restrict_self(landlock.create_ruleset(fs=landlock.FS_EXECUTE))


def _install_filter(flags: int) -> None:
    prctl.set_no_new_privs()
    seccomp.set_filter(_ALLOW_ALL, flags)


def _notify() -> None:
    if not seccomp.action_available(seccomp.RET_USER_NOTIF):
        raise OSError(errno.EOPNOTSUPP, "SECCOMP_RET_USER_NOTIF")
    _install_filter(seccomp.FLAG_NEW_LISTENER)


def _answer_with_descriptors() -> None:
    prctl.set_no_new_privs()
    if not notify.takes_descriptors(seccomp.set_filter(_ALLOW_ALL, seccomp.FLAG_NEW_LISTENER)):
        raise OSError(errno.EINVAL, "SECCOMP_ADDFD_FLAG_SEND")


def _log() -> None:
    if not seccomp.action_available(seccomp.RET_LOG):
        raise OSError(errno.EOPNOTSUPP, "SECCOMP_RET_LOG")


def _close_range() -> None:
    descriptors.close_range(1000, 1001)


def _clone3() -> None:
    pid, _ = clone.by_clone3()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _pin() -> None:
    with mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        page = ctypes.c_char.from_buffer(room)
        left = pinned.Pinned(pinned.open_ring()).hold((ctypes.addressof(page), mmap.PAGESIZE))
        del page
    if left:
        raise OSError(errno.ENOMEM, "io_uring_register")


class _Hidden:
    """A process as a worker is at its end: not dumpable, and seen from here. Started first, looked at last."""

    def __init__(self, mapped: list[tuple[int, int]]) -> None:
        self._uid = os.geteuid() if os.geteuid() else _highest(mapped)  # root's, where there is no other
        self._ready, told = os.pipe()
        wait, self._end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            signal.alarm(_WITHIN)
            os.close(self._end)
            os.dup2(told, 1)
            os.dup2(wait, 0)
            self._become()
        os.close(told)
        os.close(wait)

    def _become(self) -> None:
        try:
            if os.geteuid() != self._uid:
                os.setgroups([])
                os.setresgid(self._uid, self._uid, self._uid)
                os.setresuid(self._uid, self._uid, self._uid)
                _hide()
            _enter_user_namespace()
            # The memory of a process belongs to the user namespace in which its program was executed.
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", __file__, sys.argv[1], "hidden"])
        finally:
            os._exit(1)

    def look(self) -> str:
        """Empty where its links and its descriptors can be read."""
        with os.fdopen(self._ready, "rb") as pipe:
            answer = _attempt(self._read) if pipe.read(1) else "no such process could be made"
        os.close(self._end)
        os.waitpid(self.pid, 0)
        return answer

    def _read(self) -> None:
        os.readlink(f"/proc/{self.pid}/ns/mnt")
        os.listdir(f"/proc/{self.pid}/fd")


def _hide() -> None:
    prctl.set_dumpable(0)
    os.write(1, b"r")
    os.read(0, 1)
    os._exit(0)


def _highest(mapped: list[tuple[int, int]]) -> int:
    """An id that is not root's and exists in our user namespace."""
    return min(65534, max(first + count - 1 for first, count in mapped))


def _map_of(name: str) -> list[tuple[int, int]]:
    with open(f"/proc/self/{name}") as file:
        return [(int(first), int(count)) for first, _, count in map(str.split, file)]


def _user_namespaces(remarks: dict[str, str]) -> str:
    word = _attempt(_use_user_namespace)
    if not word:
        return "full"
    remarks["user_namespaces"] = word
    return "refused" if _attempt(lambda: clone.unshare(clone.CLONE_NEWUSER)) else "without capabilities"


def _namespaces(remarks: dict[str, str]) -> list[str]:
    found: list[str] = []
    for name in _NAMESPACES:
        word = _attempt(partial(_make_namespace, name))
        if word:
            remarks[f"namespace {name}"] = word
        else:
            found.append(name)
    return found


def _landlock_abi(remarks: dict[str, str]) -> int:
    try:
        found = landlock.abi()
    except OSError as error:
        remarks["landlock"] = errno.errorcode.get(error.errno or 0, "OSError")
        return 0
    word = _attempt(_restrict_by_landlock)
    if word:
        remarks["landlock"] = word
    return 0 if word else found


def _merged_links() -> list[str]:
    return [path for path in _ROOT_LINKS if os.path.islink(path) and os.readlink(path).lstrip("/").startswith("usr/")]


def _label(remarks: dict[str, str]) -> dict[str, Any]:
    """Not to be tried: which domains there are only the policy's author knows."""
    module = label.module_here()
    if not module:
        return {}
    own = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    found: dict[str, Any] = {"label_module": module}
    try:
        found["label"] = label.read(module, own)
        found["label_enforced"] = module == label.APPARMOR or label.selinux_enforces()
    except OSError as error:
        remarks["label"] = errno.errorcode.get(error.errno or 0, "OSError")
    finally:
        os.close(own)
    return found


def _memory_groups(remarks: dict[str, str]) -> bool:
    """For the program that started us: it is the one that would make them."""
    try:
        parent, _ = cgroup.parent_for(os.getppid())
    except OSError as error:
        remarks["memory_groups"] = error.strerror or "refused"
        return False
    trial = os.path.join(parent, f"bunri-probe-{os.getpid()}")

    def try_() -> None:
        os.mkdir(trial)
        os.rmdir(trial)

    word = _attempt(try_)
    if word:
        remarks["memory_groups"] = word
    return not word


_TRIED: dict[str, Callable[[], object]] = {
    "hostname": _set_hostname,
    "pivot_root": _pivot,
    "chroot": lambda: os.chroot("/"),
    "seccomp": lambda: _install_filter(0),
    "seccomp_notify": _notify,
    "seccomp_addfd": _answer_with_descriptors,
    "seccomp_log": _log,
    "mdwe": prctl.set_mdwe,
    "close_range": _close_range,
    "clone3": _clone3,
    "pidfd": lambda: pidfd.open_(os.getpid()),
    "io_uring": _pin,
    "keyring": keyring.join_session,
    "openat2": lambda: paths.openat2("/", os.O_PATH),
    "mount_setattr": _set_mount_attributes,
}


def _look() -> dict[str, Any]:
    remarks: dict[str, str] = {}
    mapped = _map_of("uid_map")
    hidden = _Hidden(mapped)
    found: dict[str, Any] = {
        "kernel": [int(part) for part in os.uname().release.split("-")[0].split(".")[:2]],
        "arch": os.uname().machine,
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "groups": os.getgroups(),
        "capabilities": capability.numbers_of(capability.get().effective),
        "last_capability": capability.last(),
        "user_namespaces": _user_namespaces(remarks),
        "namespaces": _namespaces(remarks),
        "landlock_abi": _landlock_abi(remarks),
        "mapped_uids": mapped,
        "merged_usr": _merged_links(),
        "limits": {name: rlimit.get(name)[1] for name in rlimit.NUMBERS},
        "memory_groups": _memory_groups(remarks),
        **_label(remarks),
    }
    for name, action in _TRIED.items():
        word = _attempt(action)
        found[name] = not word
        if word:
            remarks[name] = word
    word = hidden.look()
    found["reads_not_dumpable"] = not word
    if word:
        remarks["reads_not_dumpable"] = word
    return {**found, "remarks": remarks}


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would be inherited, and no child could be waited for
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if sys.argv[2:] == ["hidden"]:
        _hide()
    sys.stdout.write(json.dumps(_look()))
