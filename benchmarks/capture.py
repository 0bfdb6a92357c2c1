"""Runs in: the benchmark. `bunri dump -r` beside tcpdump: 200,000 packets, 60 % TCP, 20 % DNS, 10 % ICMP, 10 % ARP."""

from __future__ import annotations

import compileall
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import bunri
from benchmarks.measure import Row, Skipped

COUNT = 200_000
ROUNDS = 5
AT_LEAST = 0.8  # of tcpdump's packets a second
_ETHER = bytes.fromhex("020000000001020000000002")
_NAME = b"\3www\7example\3com\0"


def capture() -> Iterator[Row]:
    """Both print the same bytes of the same capture, in turn."""
    tcpdump = shutil.which("tcpdump", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if tcpdump is None:
        raise Skipped("tcpdump is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mix.pcap"
        path.write_bytes(_file())
        path.chmod(0o644)
        # As pip leaves a package that it installs: without it, each start of Python would compile the sources anew.
        compileall.compile_dir(Path(bunri.__file__).parent, quiet=2)
        commands = {"tcpdump": [tcpdump], "bunri": [sys.executable, "-m", "bunri", "dump"]}
        printed: dict[str, set[bytes]] = {name: set() for name in commands}
        wall: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                begun = time.perf_counter()
                done = subprocess.run([*command, "-nn", "-r", path], capture_output=True, check=True)
                wall[name].append(time.perf_counter() - begun)
                printed[name].add(done.stdout)
        if printed["tcpdump"] != printed["bunri"]:
            raise AssertionError("the two did not print the same")
    yield _row("200,000 packets, by the clock", wall["bunri"], wall["tcpdump"])


def _row(what: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    median, least = (read(theirs) / read(ours) for read in (statistics.median, min))
    return Row(
        what,
        f"{COUNT / statistics.median(ours):,.0f} / {COUNT / min(ours):,.0f} a second",
        f"tcpdump {COUNT / statistics.median(theirs):,.0f} / {COUNT / min(theirs):,.0f}",
        f"{median:.2f} / {least:.2f}",
        f">= {AT_LEAST}",
        "met" if median >= AT_LEAST else "missed",
    )


def _file() -> bytes:
    chance = random.Random(1)
    made = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)]
    for number in range(COUNT):
        packet = _packet(chance, number)
        made.append(
            struct.pack("<IIII", 1_700_000_000 + number // 1000, number % 1000, len(packet), len(packet)) + packet
        )
    return b"".join(made)


def _packet(chance: random.Random, number: int) -> bytes:
    drawn = chance.random()
    port = chance.randrange(30000, 60000)
    if drawn < 0.6:
        head = struct.pack(">HHIIBBHHH", port, 443, number, 7, 0x80, chance.choice((16, 24)), 512, 0, 0)
        payload = chance.randbytes(chance.choice((0, 0, 100, 1000)))
        return _ip(6, head + b"\1\1\x08\x0a" + chance.randbytes(8) + payload)
    if drawn < 0.8:
        asks = chance.random() < 0.5
        question = _NAME + b"\0\1\0\1"
        answer = b"\xc0\x0c\0\1\0\1\0\0\x0e\x10\0\4\xc0\0\2\1"
        message = struct.pack(">6H", number & 0xFFFF, 0x0100 if asks else 0x8180, 1, 0 if asks else 1, 0, 0) + question
        message += b"" if asks else answer
        ports = (port, 53) if asks else (53, port)
        return _ip(17, struct.pack(">HHHH", *ports, 8 + len(message), 0) + message)
    if drawn < 0.9:
        return _ip(1, struct.pack(">BBHHH", 8, 0, 0, 7, number & 0xFFFF) + bytes(56))
    return _ETHER + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + _ETHER[6:] + bytes(14)


def _ip(protocol: int, payload: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH8s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, b"\x0a\0\0\1\x0a\0\0\2")
    return _ETHER + b"\x08\0" + head + payload
