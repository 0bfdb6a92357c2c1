"""Runs in: root's shell, then the service. What systemd does to a service with its hardening switched on, done by hand.

    python hardened.py UID CAPABILITY,... SETS PATHS COMMAND...

In this order (systemd.exec(5)): ProtectSystem=strict, ReadWritePaths=PATHS, PrivateTmp (of /var/tmp: the checkout may
lie in /tmp), ProtectProc=invisible, ProtectKernelTunables; CapabilityBoundingSet; User; UMask=0077; NoNewPrivileges;
RestrictNamespaces, MemoryDenyWriteExecute, RestrictSUIDSGID, LockPersonality, SystemCallFilter=SETS with
SystemCallErrorNumber=EPERM. Then it is tried whether they are in force: a hardening that is not would prove nothing.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys

from bunri.kernel import capability, clone, prctl
from bunri.kernel import seccomp as kernel_seccomp
from bunri.seccomp import Action, Arg, allow, compile, dangerous_allow, deny

NAMESPACES = 0x7E020080  # CLONE_NEW*, of unshare and clone
WRITE_AND_EXECUTE = mmap.PROT_WRITE | mmap.PROT_EXEC


def filter_of_the_service(sets: list[str]) -> bytes:
    eperm = Action.errno(errno.EPERM)
    rules = [
        deny("clone3", with_=Action.errno(errno.ENOSYS), reason="RestrictNamespaces: its flags are in memory"),
        deny("clone", "unshare", when=Arg(0).masked(NAMESPACES) != 0, with_=eperm, reason="RestrictNamespaces"),
        deny("setns", with_=eperm, reason="RestrictNamespaces"),
        deny(
            "mprotect",
            "pkey_mprotect",
            when=Arg(2).masked(mmap.PROT_EXEC) != 0,
            with_=eperm,
            reason="MemoryDenyWriteExecute",
        ),
        deny(
            "mmap",
            when=Arg(2).masked(WRITE_AND_EXECUTE) == WRITE_AND_EXECUTE,
            with_=eperm,
            reason="MemoryDenyWriteExecute",
        ),
        deny("chmod", "fchmod", when=Arg(1).masked(0o6000) != 0, with_=eperm, reason="RestrictSUIDSGID"),
        deny("personality", with_=eperm, reason="LockPersonality"),
        dangerous_allow("clone", reason="with whatever flags are left"),
        *([dangerous_allow("seccomp", reason="it is in @sandbox")] if "@sandbox" in sets else []),
        *(allow(name, reason="SystemCallFilter=") for name in sets),
    ]
    return compile(rules, default=eperm).to_bytes()


def file_systems(writable: list[str]) -> None:
    clone.unshare(clone.flags_of(("mnt",)))
    libc = ctypes.CDLL(None, use_errno=True)

    def do(source: bytes | None, at: bytes, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
        if libc.mount(source, at, kind, flags, data) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"mount {at.decode()}: {os.strerror(code)}")

    rdonly, nosuid, remount, bind, rec, private = 1, 2, 32, 4096, 16384, 1 << 18
    do(None, b"/", None, rec | private)
    do(b"tmpfs", b"/var/tmp", b"tmpfs", nosuid)
    for path in writable:
        os.makedirs(path, mode=0o700, exist_ok=True)
        do(path.encode(), path.encode(), None, bind)
    do(None, b"/", None, bind | remount | rdonly)
    do(b"proc", b"/proc", b"proc", nosuid, b"hidepid=2")
    do(b"/proc/sys", b"/proc/sys", None, bind)
    do(None, b"/proc/sys", None, bind | remount | rdonly)


def main() -> None:
    uid, kept = int(sys.argv[1]), [name for name in sys.argv[2].split(",") if name]
    program = filter_of_the_service(sys.argv[3].split(","))
    file_systems([path for path in sys.argv[4].split(",") if path])
    numbers = [capability.NAMES.index(name) for name in kept]
    for number in range(capability.last() + 1):
        if number not in numbers:
            prctl.drop_from_bounding_set(number)
    os.umask(0o077)
    os.chdir("/")
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    else:
        mask = capability.mask_of(numbers)
        capability.set_(capability.Sets(mask, mask, 0))
    prctl.set_no_new_privs()
    kernel_seccomp.set_filter(program)
    is_in_force(uid)
    os.execv(sys.argv[5], sys.argv[5:])


def is_in_force(uid: int) -> None:
    def refused(action: object, *codes: int) -> None:
        try:
            action()  # type: ignore[operator]
        except OSError as fault:
            if fault.errno in codes:
                return
            raise
        raise AssertionError(f"{action} was not refused: nothing is hardened")

    refused(lambda: clone.unshare(clone.flags_of(("user",))), errno.EPERM)
    refused(lambda: os.close(os.open("/etc/hardened", os.O_WRONLY | os.O_CREAT)), errno.EROFS, errno.EACCES)
    refused(lambda: mmap.mmap(-1, 4096, mmap.MAP_PRIVATE, WRITE_AND_EXECUTE | mmap.PROT_READ), errno.EPERM)
    if uid:
        assert not os.path.exists("/proc/1/status"), "other processes are in sight"


if __name__ == "__main__":
    main()
