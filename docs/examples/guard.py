"""A filter as a value: asked first, then installed."""

import os
import socket
from mmap import PROT_EXEC, PROT_READ

from bunri import filters
from bunri.seccomp import Arg, Children, allow, attack_rules, clone_rules, compile, deny

ARCH = os.uname().machine

program = compile(
    [
        *attack_rules(),
        *clone_rules(Children.THREADS),
        deny("mmap", "mprotect", when=Arg(2).masked(PROT_EXEC) != 0, reason="no new code"),
        allow("socket", when=Arg(0).int32 == socket.AF_UNIX, reason="it talks to the local daemon"),
        allow("connect", reason="to the daemon; Landlock says which"),
        allow("@stdio", reason="the descriptors it has, memory, time"),
    ],
    arch=ARCH,
)

if __name__ == "__main__":
    print(program.decide(ARCH, "socket", (socket.AF_UNIX, socket.SOCK_STREAM, 0)))
    print(program.decide(ARCH, "socket", (socket.AF_INET, socket.SOCK_STREAM, 0)))
    print(program.decide(ARCH, "ptrace"))
    print(program.explain("mmap", (0, 4096, PROT_READ | PROT_EXEC)))

    filters.install(program)
    socket.socket(socket.AF_UNIX).close()
    try:
        socket.socket(socket.AF_INET)
    except PermissionError as refused:
        print(refused)
