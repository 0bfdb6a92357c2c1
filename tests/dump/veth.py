"""Runs in: the test process, as root. A pair of network devices in a network namespace of their own, which ends with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packets import ENVIRONMENT

CLONE_NEWNET = 0x40000000


class Wire:
    """`near` and `far` are the two ends of a cable. Whatever is sent at `far` arrives at `near`."""

    def __init__(self, holder: int) -> None:
        self.namespace = f"/proc/{holder}/ns/net"

    def command(self, *words: str) -> list[str]:
        """A command line that runs inside."""
        return ["nsenter", f"--net={self.namespace}", *words]

    def ip(self, *words: str) -> None:
        subprocess.run(self.command("ip", *words), check=True, capture_output=True)

    def socket(self, device: str) -> socket.socket:
        """A packet socket in there that sends to the device, or is not bound. Only the thread that makes it changes its namespace."""
        made: list[socket.socket] = []

        def make() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            number = os.open(self.namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if libc.setns(number, CLONE_NEWNET) == 0:
                    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                    if device:
                        sock.bind((device, 0))
                    made.append(sock)
            finally:
                os.close(number)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        assert made, "no packet socket in the namespace"
        return made[0]

    def send(self, packets: list[bytes], device: str = "far") -> None:
        with self.socket(device) as sock:
            for packet in packets:
                sock.send(packet)

    @contextlib.contextmanager
    def capture(self, *arguments: str | Path, program: Sequence[str] = ("-m", "bunri", "dump")) -> Iterator[Capturing]:
        """`bunri dump` in there; inside of the block it listens."""
        process = subprocess.Popen(
            self.command(sys.executable, *program, *map(str, arguments)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, encoding="latin-1",
        )  # fmt: skip
        capturing = Capturing(process)
        try:
            capturing.wait_for("listening on")
            yield capturing
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def packet_sockets(cable: Wire) -> set[str]:
    """The inodes of all packet sockets in the namespace."""
    said = subprocess.run(cable.command("cat", "/proc/net/packet"), capture_output=True, check=True, text=True)
    return {line.split()[-1] for line in said.stdout.splitlines()[1:]}


COUNTED = re.compile(
    r"(\d+) packets? captured[\n,] ?(\d+) packets? received by filter[\n,] ?(\d+) packets? dropped by kernel"
)


def counted(said: str) -> tuple[int, int, int]:
    """Packets captured, received by the filter, dropped by the kernel, as the last statistics say."""
    found = COUNTED.findall(said)
    assert found, said
    captured, received, dropped = map(int, found[-1])
    return captured, received, dropped


class Capturing:
    """A capture that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.out = ""
        self.err = ""

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Until standard error says it."""
        stream = self.process.stderr
        assert stream is not None
        until = time.monotonic() + seconds
        while text not in self.err and time.monotonic() < until:
            line = stream.readline()
            assert line, f"it ended: {self.err}"
            self.err += line
        assert text in self.err

    def asked(self) -> tuple[int, int, int]:
        """Its statistics, by SIGUSR1."""
        before, self.err = self.err, ""
        self.process.send_signal(signal.SIGUSR1)
        self.wait_for("dropped by kernel\n")
        found = counted(self.err)
        self.err = before + self.err
        return found

    def end(self, number: int = 0, seconds: float = 40) -> int:
        """Its exit status, after a signal."""
        if number:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=seconds)
        self.out, self.err = self.out + out, self.err + err
        assert "Traceback" not in self.err, self.err
        return self.process.returncode

    def interrupt(self) -> int:
        return self.end(signal.SIGINT)


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    """Skips where this host lets nobody make one."""
    if os.geteuid() != 0:
        pytest.skip("a packet socket takes CAP_NET_RAW, and a network namespace CAP_SYS_ADMIN")
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("unshare, nsenter and ip (util-linux, iproute2) are not here")
    # It reads its standard input and so ends with this process, whatever happens; the namespace with it.
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo there; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"there\n":
            pytest.skip("no network namespace can be made here")
        made = Wire(holder.pid)
        made.ip("link", "set", "lo", "up")
        made.ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        for device in ("near", "far"):
            # Without an address of its own a device says nothing by itself.
            made.ip("link", "set", device, "addrgenmode", "none")
            made.ip("link", "set", device, "arp", "off", "up")
        yield made
    finally:
        holder.communicate()
