"""Runs in: the test process, as root. Living captures, on a cable between two devices in a network namespace."""

from __future__ import annotations

import os
import re
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus import SAMPLES
from packets import Dump, capture, ether, ip4, ours, six, udp, udp4
from test_capture import read
from veth import Wire, counted, wire

pytestmark = pytest.mark.slow

PACKETS = [
    sample.data for name, every in SAMPLES.items() if name != "vlan" for sample in every if len(sample.data) >= 60
]


@pytest.fixture(scope="module")
def cable() -> Iterator[Wire]:
    with wire() as made:
        yield made


def bodies(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_what_arrives_is_printed_as_from_a_file(cable: Wire) -> None:
    with cable.capture("-i", "near", "-n", "-t", "-c", str(len(PACKETS))) as capturing:
        cable.send(PACKETS)
        assert capturing.end() == 0
    assert capturing.out == ours(capture(PACKETS), "-n", "-t")
    assert counted(capturing.err)[0] == len(PACKETS)
    assert counted(capturing.err)[2] == 0


def test_an_expression_is_the_kernels_filter(cable: Wire) -> None:
    wanted = udp4(40000, 50001, bytes(40))
    with cable.capture("-i", "near", "-n", "-t", "-c", "2", "udp port 50001 and ip") as capturing:
        cable.send(
            [six(17, udp(40000, 50002, bytes(40))), udp4(1, 2, bytes(40)), wanted, udp4(1, 2, bytes(40)), wanted]
        )
        assert capturing.end() == 0
    assert capturing.out == ours(capture([wanted] * 2), "-n", "-t")
    assert counted(capturing.err)[1] == 2  # the others were not even received


def test_written_and_read_again(cable: Wire, tmp_path: Path, dump: Dump) -> None:
    out = tmp_path / "out.pcap"
    with cable.capture("-i", "near", "-w", out, "-c", str(len(PACKETS))) as capturing:
        cable.send(PACKETS)
        assert capturing.end() == 0
    assert capturing.out == ""
    packets = read(out.read_bytes())
    assert [packet.data for packet in packets] == PACKETS
    assert all(abs(packet.second - time.time()) < 60 for packet in packets)
    assert dump("-n", "-t", "-r", out).stdout == ours(capture(PACKETS), "-n", "-t")


@pytest.mark.parametrize("expression", [(), ("vlan",)], ids=["all packets", "some"])
def test_tags_that_the_kernel_took_out_are_put_back(expression: tuple[str, ...], cable: Wire, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    tagged = ether(0x8100, b"\x60\x05\x08\0" + ip4(17, udp(40000, 50001, bytes(40))))
    double = ether(0x88A8, b"\0\x07" + tagged[12:])
    plain = udp4(40000, 50001, bytes(40))
    wanted = [tagged, double] if expression else [plain, tagged, plain, double]
    with cable.capture("-i", "near", "-w", out, "-c", str(len(wanted)), *expression) as capturing:
        cable.send([plain, tagged, plain, double])
        assert capturing.end() == 0
    assert [packet.data for packet in read(out.read_bytes())] == wanted


def test_what_a_device_sends_to_itself_is_taken_once(cable: Wire, tmp_path: Path) -> None:
    """The kernel shows it twice: as it goes out, and as it comes in again."""
    packets = [udp4(40000, 50001, bytes(size)) for size in range(40, 50)]
    for arguments in (["--count"], ["-w", tmp_path / "out.pcap"], ["-n", "-t"]):
        with cable.capture("-i", "lo", *arguments) as capturing:
            cable.send(packets, "lo")
            while capturing.asked()[1] < 20:
                time.sleep(0.1)
            assert capturing.interrupt() == 0
        assert counted(capturing.err) == (10, 20, 0)
    assert [packet.data for packet in read((tmp_path / "out.pcap").read_bytes())] == packets
    assert capturing.out == ours(capture(packets), "-n", "-t") + "\n"


def test_as_many_packets_as_were_asked_for_and_no_more(cable: Wire, tmp_path: Path) -> None:
    """All of them stand in one block."""
    out = tmp_path / "out.pcap"
    for arguments in (["--count"], ["-w", out], ["-n", "-t"], ["-n", "-t", "-w", out, "--print"], ["--count", "udp"]):
        with cable.capture("-i", "near", "-c", "7", *arguments) as capturing:
            cable.send([udp4(40000, 50001, bytes(40))] * 20)
            assert capturing.end() == 0
        assert counted(capturing.err)[0] == 7
        if "-w" in arguments:
            assert len(read(out.read_bytes())) == 7
        assert len(bodies(capturing.out)) == (7 if "-t" in arguments else 0)


def test_an_expression_about_tags_is_one_in_every_spelling(cable: Wire) -> None:
    """Tagged frames are told apart where their tags have been put back, and not by the kernel, which took them out."""
    tagged = ether(0x8100, struct.pack(">HH", 5, 0x0800) + ip4(17, udp(1, 2, bytes(40))))
    plain = udp4(3, 4, bytes(40))
    with cable.capture("-i", "near", "-n", "-t", "-c", "1", "!vlan") as capturing:
        cable.send([tagged, plain])
        assert capturing.end() == 0
    assert capturing.out == ours(capture([plain]), "-n", "-t")


def test_a_hangup_ends_a_capture_as_an_interrupt_does(cable: Wire) -> None:
    """Unless it is to be ignored, as nohup wants it: the tests may have been started so."""
    plain = udp4(3, 4, bytes(40))
    heard = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\nfrom bunri.cli import main\nmain()"
    with cable.capture("-i", "near", "-n", "-t", program=("-c", heard, "dump")) as capturing:
        cable.send([plain])
        while capturing.asked()[0] < 1:
            time.sleep(0.1)
        assert capturing.end(signal.SIGHUP) == 0
    assert capturing.out == ours(capture([plain]), "-n", "-t") + "\n"  # as tcpdump does, behind what may be half a line
    assert counted(capturing.err)[0] == 1


def test_a_snapshot_length_cuts(cable: Wire, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    with cable.capture("-i", "near", "-w", out, "-c", "1", "-s", "40") as capturing:
        cable.send([udp4(40000, 50001, bytes(1000))])
        assert capturing.end() == 0
    [packet] = read(out.read_bytes())
    assert (len(packet.data), packet.length) == (40, 1042)


def test_every_device_at_once(cable: Wire) -> None:
    with cable.capture("-i", "any", "-n", "-t", "-c", "2", "udp port 50001") as capturing:
        cable.send([udp4(40000, 50001, bytes(40))])
        assert capturing.end() == 0
    assert sorted(bodies(capturing.out)) == [
        "far   Out IP 10.0.0.1.40000 > 10.0.0.2.50001: UDP, length 40",
        "near  P   IP 10.0.0.1.40000 > 10.0.0.2.50001: UDP, length 40",
    ]


@pytest.mark.parametrize(("direction", "mark"), [("in", b"in"), ("out", b"out")])
def test_one_direction(cable: Wire, direction: str, mark: bytes) -> None:
    with cable.capture("-i", "near", "-n", "-t", "-A", "-Q", direction, "-c", "1") as capturing:
        cable.send([udp4(40000, 50001, b"it goes out" + bytes(40))], "near")
        cable.send([udp4(40000, 50001, b"it comes in" + bytes(40))])
        assert capturing.end() == 0
    assert f"it {'comes in' if direction == 'in' else 'goes out'}" in capturing.out


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_one_direction_by_an_expression(cable: Wire, direction: str) -> None:
    with cable.capture("-i", "near", "-n", "-t", "-A", "-c", "1", direction, "and", "udp") as capturing:
        cable.send([udp4(40000, 50001, b"it goes out" + bytes(40))], "near")
        cable.send([udp4(40000, 50001, b"it comes in" + bytes(40))])
        assert capturing.end() == 0
    assert f"it {'comes in' if direction == 'inbound' else 'goes out'}" in capturing.out


def test_v_with_w_tells_each_second_how_many_came(cable: Wire, tmp_path: Path) -> None:
    with cable.capture("-i", "near", "-v", "-w", tmp_path / "out.pcap") as capturing:
        cable.send([udp4(40000, 50001, bytes(40))])
        time.sleep(2.5)
        assert capturing.interrupt() == 0
    assert capturing.out == ""
    assert "Got 1\n" in capturing.err.replace("\r", "\n")
    assert "bunri dump: listening on near, link-type EN10MB" in capturing.err


def test_counted_packets_are_not_printed(cable: Wire) -> None:
    with cable.capture("-i", "near", "--count", "-c", "1") as capturing:
        cable.send([udp4(40000, 50001, bytes(40))])
        assert capturing.end() == 0
    assert capturing.out == ""
    assert counted(capturing.err)[0] == 1


def test_statistics_are_told_when_asked_and_at_the_end(cable: Wire) -> None:
    with cable.capture("-i", "near", "-n", "-l") as capturing:
        cable.send(PACKETS[:3])
        assert capturing.process.stdout is not None
        for _ in range(3):
            capturing.out += capturing.process.stdout.readline()
        assert capturing.asked() == (3, 3, 0)
        assert capturing.interrupt() == 0
    assert counted(capturing.err) == (3, 3, 0)


def test_who_asks_until_the_very_end_does_not_change_it(cable: Wire) -> None:
    """A question that comes when nobody answers any more ended the program, as SIGUSR1 does by default."""
    with cable.capture("-i", "near", "-n", "-t", "-c", "1") as capturing:
        cable.send([udp4(40000, 50001, bytes(40))])
        until = time.monotonic() + 20
        while capturing.process.poll() is None and time.monotonic() < until:
            capturing.process.send_signal(signal.SIGUSR1)
            time.sleep(0.0005)
        assert capturing.end() == 0
    assert capturing.out == ours(capture([udp4(40000, 50001, bytes(40))]), "-n", "-t")
    assert counted(capturing.err)[0] == 1


def test_files_change_with_the_clock(cable: Wire, tmp_path: Path) -> None:
    with cable.capture("-i", "near", "-w", tmp_path / "out-%s", "-G", "1", "-W", "2") as capturing:
        until = time.monotonic() + 20
        while capturing.process.poll() is None and time.monotonic() < until:
            cable.send(PACKETS[:1])
            time.sleep(0.2)
        assert capturing.end() == 0
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert all(read(file.read_bytes()) for file in files)


@pytest.mark.slow
@pytest.mark.parametrize("buffer", [(), ("-B", "65536")], ids=" ".join)
def test_at_full_speed_no_packet_is_lost_unsaid(cable: Wire, tmp_path: Path, buffer: tuple[str, ...]) -> None:
    """200,000 packets: each of them was captured, or is counted as dropped."""
    out = tmp_path / "out.pcap"
    with cable.capture("-i", "near", "-w", out, *buffer) as capturing:
        cable.send([udp4(40000, 50001, bytes(160))] * 200_000)
        until = time.monotonic() + 40
        while sum(capturing.asked()[::2]) < 200_000 and time.monotonic() < until:
            time.sleep(0.2)
        assert capturing.interrupt() == 0
    captured, received, dropped = counted(capturing.err)
    assert received == 200_000
    assert captured + dropped == received
    assert len(read(out.read_bytes())) == captured
    if buffer:
        assert dropped == 0


def test_without_the_right_to_it_a_capture_is_refused_with_a_sentence(dump: Dump) -> None:
    if os.geteuid() == 0:
        pytest.skip("as root it is not refused")
    said = dump("-i", "lo", "-n", code=1).stderr
    assert "You don't have permission to perform this capture on that device" in said
    assert "CAP_NET_RAW" in said


def test_a_device_that_is_not_there(dump: Dump) -> None:
    assert "nodevice: No such device exists" in dump("-i", "nodevice", "-n", code=1).stderr


def test_devices_are_listed(dump: Dump) -> None:
    assert re.search(r"^\d+\.lo \[Up, Running, Loopback\]$", dump("-D").stdout, re.MULTILINE)


def test_an_interface_that_goes_away_ends_the_capture_behind_its_last_packet() -> None:
    with wire() as cable, cable.capture("-i", "near", "-n", "-t") as capturing:
        cable.send([udp4(40000, 50001, bytes(40))])
        cable.ip("link", "del", "near")
        assert capturing.end() == 1
    assert capturing.out == ours(capture([udp4(40000, 50001, bytes(40))]), "-n", "-t")
    assert "bunri dump: pcap_loop: The interface disappeared\n1 packet captured\n" in capturing.err


def test_an_interface_that_is_only_down_for_a_while_ends_nothing() -> None:
    with wire() as cable, cable.capture("-i", "near", "-n", "-t", "-c", "2") as capturing:
        cable.send([udp4(40000, 50001, bytes(40))])
        cable.ip("link", "set", "near", "down")
        time.sleep(1.5)
        cable.ip("link", "set", "near", "up")
        until = time.monotonic() + 20
        while capturing.process.poll() is None and time.monotonic() < until:  # the cable takes a while, too
            cable.send([udp4(40000, 50001, bytes(50))])
            time.sleep(0.2)
        assert capturing.end() == 0
    assert capturing.out == ours(capture([udp4(40000, 50001, bytes(size)) for size in (40, 50)]), "-n", "-t")


@pytest.mark.parametrize("size", ["600000", "4096"])
def test_a_ring_of_any_size_is_mapped(cable: Wire, size: str) -> None:
    with cable.capture("-i", "near", "-n", "-t", "-c", "1", "-B", size) as capturing:
        cable.send([udp4(40000, 50001, bytes(40))])
        assert capturing.end() == 0
    assert capturing.out == ours(capture([udp4(40000, 50001, bytes(40))]), "-n", "-t")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_capture_in_which_nothing_happens_ends_at_once(cable: Wire, number: int) -> None:
    with cable.capture("-i", "near", "-n") as capturing:
        time.sleep(0.5)
        since = time.monotonic()
        assert capturing.end(number) == 0
        assert time.monotonic() - since < 2.5
    assert counted(capturing.err) == (0, 0, 0)


def test_packets_that_cannot_be_written_end_the_capture_with_a_sentence(cable: Wire) -> None:
    with cable.capture("-i", "near", "-n", "-w", "/dev/full", "-U") as capturing:
        cable.send([udp4(40000, 50001, bytes(40))] * 3000)
        assert capturing.end() == 14
    assert "bunri dump: /dev/full: No space left on device\n" in capturing.err
