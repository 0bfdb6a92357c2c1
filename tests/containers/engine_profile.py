"""Runs in: the test process. A container engine's seccomp profile, compiled by libseccomp as engines compile it.

The profile is the file that Debian's golang-github-containers-common installs (Podman's default). Nothing of bunri's
own compiler is used: what confines the tests must not be made by what they test.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FILE = Path("/usr/share/containers/seccomp.json")
_ACT = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_CMP = {name: number for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)}
_ACT_BADARCH, _CTL_NNP = 2, 3
_ARCHES = {"x86_64": ("amd64", (b"x86", b"x32")), "aarch64": ("arm64", (b"arm",))}
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW*: mnt, cgroup, uts, ipc, user, pid, net

# What Docker's own default differs in (moby, profiles/seccomp/default.json): these need CAP_SYS_ADMIN there ...
_ADMIN = frozenset(
    ("mount", "mount_setattr", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick", "pivot_root",
     "setns", "umount", "umount2", "unshare", "sethostname", "setdomainname")
)  # fmt: skip
# ... and these are in no list.
_NEVER = frozenset(("keyctl", "add_key", "request_key", "userfaultfd"))


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def read() -> dict[str, Any]:
    """Podman's default."""
    return json.loads(FILE.read_text())


def docker() -> dict[str, Any]:
    """Docker's default, made from Podman's by the differences above. clone3 is ENOSYS there, so that callers fall back
    to clone, whose flags a filter can see."""
    profile = read()
    taken = _ADMIN | _NEVER | {"clone", "clone3"}
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in taken]
    profile["defaultErrnoRet"] = 1
    admin = {"caps": ["CAP_SYS_ADMIN"]}
    no_namespaces = [
        {"index": 0, "value": _NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
    ]
    profile["syscalls"] += [
        {"names": [*sorted(_ADMIN), "clone", "clone3"], "action": "SCMP_ACT_ALLOW", "includes": admin},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": no_namespaces, "excludes": admin},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": admin},
    ]
    return profile


def without_landlock(profile: dict[str, Any]) -> dict[str, Any]:
    """The same on a kernel that has no Landlock: ENOSYS."""
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if not name.startswith("landlock_")]
    names = ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"]
    profile["syscalls"].append({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    return profile


def compiled(profile: dict[str, Any], capabilities: Iterable[str]) -> bytes:
    """The program (an array of struct sock_filter) for a container with these capabilities."""
    library = _library()
    machine, others = _ARCHES[os.uname().machine]
    context = library.seccomp_init(_action(profile["defaultAction"], profile.get("defaultErrnoRet")))
    try:
        for name in others:
            library.seccomp_arch_add(context, library.seccomp_arch_resolve_name(name))
        for rule in profile["syscalls"]:
            if _applies(rule, machine, frozenset(capabilities)):
                _add(library, context, profile, rule)
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    for name in ("seccomp_release", "seccomp_arch_add", "seccomp_export_bpf"):
        getattr(library, name).argtypes = (ctypes.c_void_p, ctypes.c_uint32)[: 1 if name == "seccomp_release" else 2]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison)
    )  # fmt: skip
    return library


def _action(name: str, errno: int | None) -> int:
    return _ACT[name] | ((1 if errno is None else errno) if name == "SCMP_ACT_ERRNO" else 0)


def _applies(rule: dict[str, Any], machine: str, capabilities: frozenset[str]) -> bool:
    """Which rules an engine takes: those whose architecture fits, by the container's capabilities."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    if includes.get("caps") and not capabilities & set(includes["caps"]):
        return False
    return not (set(excludes.get("arches") or ()) & {machine} or capabilities & set(excludes.get("caps") or ()))


def _add(library: ctypes.CDLL, context: int, profile: dict[str, Any], rule: dict[str, Any]) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == _action(profile["defaultAction"], profile.get("defaultErrnoRet")):
        return
    compared = [_Comparison(*_comparison(each)) for each in rule.get("args") or ()]
    array = (_Comparison * max(1, len(compared)))(*compared)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != -1:  # an unknown name: newer, or of another machine
            _check(library.seccomp_rule_add_array, context, action, number, len(compared), array)


def _comparison(each: dict[str, Any]) -> tuple[int, int, int, int]:
    op = _CMP[each["op"].removeprefix("SCMP_CMP_")]
    return each["index"], op, each["value"], each.get("valueTwo", 0)


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    number = os.memfd_create("profile")
    try:
        _check(library.seccomp_export_bpf, context, number)
        return os.pread(number, os.fstat(number).st_size, 0)
    finally:
        os.close(number)


def _check(call: Callable[..., int], *arguments: Any) -> None:
    code = call(*arguments)
    if code < 0:
        raise OSError(-code, f"{call.__name__}: {os.strerror(-code)}")  # type: ignore[attr-defined]
