"""Runs in: a small interpreter of its own (-I -S -B), without bunri. Makes system calls under a filter, and times them.

    filtered.py DESCRIPTOR SECCOMP_NUMBER

The first packet is the filter that the loop runs under, or nothing. Then each packet is answered with seconds:
"call NUMBER ARGUMENT COUNT" makes the call COUNT times; "install" forks, and the child installs the filter of the next
packet. The loop is machine code of x86-64, so that what is timed is the kernel and not Python.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import sys
import time

LARGEST = 1 << 16  # bytes of a packet; a filter has at most 32 KiB
_NO_NEW_PRIVS, _FILTER = 38, 1
_LOOP = bytes.fromhex(
    "53"  # push rbx
    "4889fb"  # mov rbx, rdi      the count
    "4989f0"  # mov r8, rsi       the number of the call
    "4889d7"  # mov rdi, rdx      its first argument
    "4c89c0"  # again: mov rax, r8
    "0f05"  # syscall
    "48ffcb"  # dec rbx
    "75f6"  # jnz again
    "5bc3"  # pop rbx; ret
)


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def install(number: int, code: bytes) -> float:
    """Seconds of the one system call that does it."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(code) // 8, code)
    assert libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    begun = time.perf_counter()
    result = libc.syscall(number, _FILTER, 0, ctypes.byref(program))
    taken = time.perf_counter() - begun
    assert result == 0, ctypes.get_errno()
    return taken


def in_child(number: int, code: bytes) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, str(install(number, code)).encode())
        os._exit(0)
    os.close(writer)
    taken = os.read(reader, 64).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    return taken


def main(descriptor: int, number: int) -> None:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptor)
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_LOOP)
    where = ctypes.addressof(ctypes.c_char.from_buffer(page))
    loop = ctypes.CFUNCTYPE(None, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)(where)
    first = peer.recv(LARGEST)
    if first != b"none":
        install(number, first)
    peer.send(b"ready")
    while packet := peer.recv(LARGEST):
        if packet == b"install":
            peer.send(in_child(number, peer.recv(LARGEST)).encode())
            continue
        call, argument, count = map(int, packet.split()[1:])
        begun = time.perf_counter()
        loop(count, call, argument)
        peer.send(str((time.perf_counter() - begun) / count).encode())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
