"""Runs in: the base zygote, before anything else; a fresh interpreter started with -I -S -B, with the monitor's uid.

Usage: python -I -S -B _boot.py SOCKET USERNS MODULES PATH...
SOCKET is the control socket's number; PATH the folders that hold bunri and msgspec, nothing else. MODULES, with commas
between them: bunri's own that a role will import, loaded while nobody waits for them yet.
USERNS "own": first move into a new user namespace in which 0 is the monitor's uid, and start over. The *interpreter*
must be executed inside it: only then has the monitor rights over the memory, and may look at workers that are not
dumpable (user_namespaces(7), ptrace(2)).
"""

import gc
import os
import signal
import sys

CLONE_NEWUSER = 0x10000000


def _enter_user_namespace() -> None:
    import ctypes

    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare(CLONE_NEWUSER): {os.strerror(code)}")
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def main() -> None:
    """Become the base zygote."""
    # Both are inherited from a monitor that ignores its children, or from a thread of it that blocks signals; and with
    # SIGCHLD ignored there is nobody to wait for (wait(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    number, userns, modules, *paths = sys.argv[1:]
    if userns == "own":
        _enter_user_namespace()
        os.set_inheritable(int(number), True)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", __file__, number, "inherited", modules, *paths])
    sys.path[:0] = paths
    gc.disable()  # what modules are made of stays: it is looked through neither now nor by those that are forked from here
    import importlib

    from bunri.process.zygote import run_base

    # Every role needs the names: loaded before the fork, they are shared.
    for module in ("bunri._public", *filter(None, modules.split(","))):
        importlib.import_module(module)
    gc.freeze()
    gc.enable()
    run_base(int(number))


if __name__ == "__main__":
    main()
