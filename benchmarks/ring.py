"""Runs in: the benchmark. `bunri dump -i` beside tcpdump: what a packet from the ring costs, in processor time. Takes root.

The clock says little of it: how many packets arrive is up to the sender. So what is read is the processor time of all
processes of the program (clock_gettime(2) on their clocks), from the first packet until they rest again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Row, Skipped, descendants, verdict

COUNT = 400_000
ROUNDS = 5
AT_LEAST = 1_000_000  # packets a second of processor time; printing them takes tcpdump more
_BUFFER = "65536"  # KiB: room for all of them, so that none is dropped
_LOOK = 0.25  # seconds
_SETTLED = 0.01  # seconds of processor time between two looks: below it the processes rest
_RESTS = 6  # looks; tcpdump's last block comes after a second
_PATIENCE = 60.0  # seconds
_SENT = re.compile(r"(\d+) packets captured\s+(\d+) packets received by filter\s+(\d+) packets dropped by kernel")
_SENDER = """
import socket, struct, sys
def packet(number):
    ports = struct.pack(">HHHH", 30000 + number * 7919 % 30000, 50001, 26, 0)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 46, number, 0, 64, 17, 0) + b"\\x0a\\0\\0" + bytes([number % 250 + 1])
    return bytes.fromhex("0200000000010200000000020800") + head + b"\\x0a\\0\\0\\2" + ports + bytes(18)
packets = [packet(number) for number in range(1000)]
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as far:
    far.bind(("far", 0))
    for number in range(int(sys.argv[1])):
        far.send(packets[number % 1000])
"""


@dataclass
class _Cable:
    """Two devices in a network namespace of their own: what is sent at `far` arrives at `near`."""

    namespace: str

    def command(self, *words: str) -> list[str]:
        return ["nsenter", f"--net={self.namespace}", *words]

    def ip(self, *words: str) -> None:
        subprocess.run(self.command("ip", *words), check=True, capture_output=True)

    def send(self) -> None:
        subprocess.run(self.command(sys.executable, "-c", _SENDER, str(COUNT)), check=True)


def ring() -> Iterator[Row]:
    """Counted, written and printed; tcpdump counts nothing without printing or writing it."""
    tcpdump = shutil.which("tcpdump", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if tcpdump is None:
        raise Skipped("tcpdump is not installed")
    with _cable() as cable, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # tcpdump gives its user up before it makes the file
        ours, theirs = [sys.executable, "-m", "bunri", "dump"], [tcpdump]
        written, printed = ["-w", f"{folder}/out.pcap"], ["-nn"]
        commands = {
            "counted": [*ours, "--count"],
            "written": [*ours, *written],
            "printed": [*ours, *printed],
            "tcpdump, written": [*theirs, *written],
            "tcpdump, printed": [*theirs, *printed],
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                found[name].append(_once(cable, command, Path(folder)))
    yield _row("counted", found, AT_LEAST)
    yield _row("written", found, AT_LEAST)
    yield _row("printed", found, None)


def _row(name: str, found: Mapping[str, Sequence[float]], at_least: int | None) -> Row:
    ours, theirs = found[name], found.get(f"tcpdump, {name}")
    beside = ratio = ""
    if theirs is not None:
        beside = f"tcpdump {_rates(theirs)}"
        ratio = " / ".join(f"{read(theirs) / read(ours):.2f}" for read in (statistics.median, min))
    return Row(
        f"dump -i, {COUNT:,} packets, {name}",
        f"{_rates(ours)} a CPU second",
        beside,
        ratio,
        f">= {at_least:,}" if at_least else "",
        verdict(COUNT / statistics.median(ours) >= at_least) if at_least else "",
    )


def _rates(samples: Sequence[float]) -> str:
    return f"{COUNT / statistics.median(samples):,.0f} / {COUNT / min(samples):,.0f}"


def _once(cable: _Cable, command: list[str], folder: Path) -> float:
    """Seconds of processor time for all packets. None may be lost."""
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            cable.command(*command, "-i", "near", "-B", _BUFFER), stdout=out, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            while "listening on" not in process.stderr.readline():
                if process.poll() is not None:
                    raise AssertionError(f"{command[0]} ended")
            _at_rest(process.pid)
            before = _processor_time(process.pid)
            cable.send()
            taken = _at_rest(process.pid) - before
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=_PATIENCE)[1]
        finally:
            process.kill()
            process.wait()
    counted = _SENT.search(said)
    if counted is None or [int(number) for number in counted.groups()] != [COUNT, COUNT, 0]:
        raise AssertionError(f"{' '.join(command)} had not all packets: {said}")
    return taken


def _at_rest(of: int) -> float:
    """The processor time of a program's processes when they began to rest, once they did so for a while."""
    until = time.monotonic() + _PATIENCE
    quiet, since, before = 0, 0.0, -1.0
    while quiet < _RESTS:
        if time.monotonic() > until:
            raise AssertionError("it does not come to rest")
        now = _processor_time(of)
        if now - before > _SETTLED:
            quiet, since = 0, now
        quiet, before = quiet + 1, now
        time.sleep(_LOOK)
    return since


def _processor_time(of: int) -> float:
    total = 0.0
    for pid in (of, *descendants(of)):
        with contextlib.suppress(OSError):  # it ended meanwhile
            total += time.clock_gettime(~pid << 3 | 2)
    return total


@contextlib.contextmanager
def _cable() -> Generator[_Cable]:
    if os.getuid() != 0:
        raise Skipped("a packet socket and a network namespace take root")
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        raise Skipped("unshare, nsenter and ip (util-linux, iproute2) are not here")
    # It reads its standard input and so ends with this process, whatever happens; the namespace with it.
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo there; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"there\n":
            raise Skipped("no network namespace can be made here")
        cable = _Cable(f"/proc/{holder.pid}/ns/net")
        cable.ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        for device in ("near", "far"):
            # Without an address of its own a device says nothing by itself.
            cable.ip("link", "set", device, "addrgenmode", "none")
            cable.ip("link", "set", device, "arp", "off", "up")
        yield cable
    finally:
        holder.communicate()
