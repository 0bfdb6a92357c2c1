"""Runs in: the test process. Somebody owns a process of `bunri dump`: what they get, and what goes on without them."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dump_owned
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import Dump, capture, ours, udp4
from test_capture import read
from veth import Wire, counted, packet_sockets, wire

import bunri
from bunri import fs
from bunri.apps.dump import command, compiler, monitor, output, reading, resolver
from bunri.apps.dump.bpf import Refused, check
from bunri.apps.dump.capture import Packet, add_records, are_records, file_header, record
from bunri.apps.dump.messages import Batch, Cursor, Job, Place, RingShape, Style
from bunri.apps.dump.output import LeftOut
from bunri.apps.dump.reading import Stream
from bunri.apps.dump.ring import Ring

pytestmark = pytest.mark.slow

JOB = Job(Style(numeric=1, time=1), [], prints=True, records=False, interfaces={})

# What an attacker would do next, wherever they are. Each is done; a refusal is an OSError or the end of the process.
NEXT = {
    "read a file": "result = open('/etc/passwd').read()[:4]",
    "look at the root": "result = os.listdir('/')",
    "write a file": "open('/tmp/was-here-MONITOR', 'w').write('x'); result = 'written'",
    "connect": "s = socket.socket(); s.connect(('127.0.0.1', PORT)); result = 'connected'",
    "send a datagram": "socket.socket(2, 2).sendto(b'x', ('127.0.0.1', PORT)); result = 'sent'",
    "sniff": "socket.socket(17, 3, 0x300); result = 'a packet socket'",
    "fork": "pid = os.fork()\nif pid == 0: os._exit(0)\nresult = 'forked'",
    "run a program": "os.execv('/bin/true', ['true'])",
    "kill the monitor": "os.kill(MONITOR, 0); result = 'could'",
    "trace the monitor": "result = 'traced' if libc.ptrace(16, MONITOR, 0, 0) == 0 else os.strerror(13)",
}
# What is not refused: what the process is there for, and the files that the C library reads for it.
GOT = {
    ("compiler", "look at the root"): "`/etc`, tables of names",
    ("resolver", "look at the root"): "the C library and its tables",
    ("resolver", "connect"): "connected",
    ("resolver", "send a datagram"): "sent",
}
REFUSED = {"Permission denied", "Operation not permitted", "No such file or directory", "No such process", "[]"}


def outcome(run: object, code: str) -> str:
    """What it said, or that its filter ended it."""
    try:
        return str(run(code))  # type: ignore[operator]
    except bunri.WorkerDied:
        return "Permission denied"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def code_of(action: str, port: int) -> str:
    return NEXT[action].replace("PORT", str(port)).replace("MONITOR", str(os.getpid()))


@contextmanager
def owned(which: str, tmp_path: Path) -> Iterator[object]:
    """The process of this name, with what it is given in the program."""
    if which == "decoder":
        with dump_owned.OwnedDecoder.start(JOB, Cursor(), None) as decoder:
            yield decoder.run_code
    elif which == "compiler":
        there = [fs.read(path) for path in compiler.NAMES if os.path.exists(path)]
        with dump_owned.OwnedCompiler.start_under(dump_owned.OwnedCompiler.policy.with_(files=there)) as worker:
            yield worker.run_code
    elif which == "resolver":
        there = [path for path in resolver.FILES if os.path.exists(path)]
        with dump_owned.OwnedResolver.start_under(resolver.policy(there)) as names:
            yield names.run_code
    else:
        with bunri.File.open(tmp_path / "out.pcap", "w") as file:
            with dump_owned.OwnedWriter.start(file, 1, 65535, 0) as writer:
                yield writer.run_code


@pytest.mark.parametrize("action", NEXT)
@pytest.mark.parametrize("which", ["decoder", "writer", "compiler", "resolver"])
def test_the_owner_of_a_process_gets_nothing_more(which: str, action: str, port: int, tmp_path: Path) -> None:
    with owned(which, tmp_path) as run:
        said = outcome(run, code_of(action, port))
    assert said in REFUSED or (which, action) in GOT, said


def test_the_page_says_what_the_owner_of_each_process_gets() -> None:
    """What the tests around this one found: nothing, but for what stands in GOT."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "dump.md").read_text()
    for action in NEXT:
        cells = [
            GOT.get((which, action), "refused") for which in ("decoder", "opener", "compiler", "writer", "resolver")
        ]
        assert f"| {action} | {' | '.join(cells)} |" in page


@pytest.mark.parametrize(
    "action", [action for action in NEXT if action not in ("sniff", "run a program", "trace the monitor")]
)
def test_without_confinement_they_would(action: str, port: int) -> None:
    """The control: the same code, in a process of its own with this user's rights."""
    code = code_of(action, port)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, dump_owned.run(code).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(pid, 0)
    assert said and said not in REFUSED, said
    Path(f"/tmp/was-here-{os.getpid()}").unlink(missing_ok=True)


def test_the_owner_of_the_decoder_prints_lies_and_no_more_than_a_terminal_may_see() -> None:
    lie = Batch(b"\x1b[2J\x07all is well\n", b"", 1, Cursor())
    assert monitor.safe(lie.text) == b"?[2J?all is well\n"


def test_a_decoder_that_says_it_carries_what_it_was_not_given_is_ended(tmp_path: Path) -> None:
    with ExitStack() as stack:
        signals = monitor.Signals()
        left_out = LeftOut("", stack, signals)
        stream = Stream(stack.enter_context((tmp_path / "none").open("w+b")).fileno())
        made = reading.Reading(stream, JOB, None, -1, left_out)
        for lie in (Batch(b"", b"", 0, Cursor(carried=11)), Batch(b"", b"", -1, Cursor())):
            with pytest.raises(bunri.ProtocolError):
                made._checked(lie, 10)
        assert made._checked(Batch(b"", b"", 0, Cursor(carried=10)), 10).packets == 0


def test_a_decoder_that_says_it_carries_everything_costs_no_time_and_no_more_than_a_block() -> None:
    """What it says is kept for the next decoder: as it came, uncopied, and the oldest of it only as long as may be."""
    tail = reading._Tail()
    tail.add(bytes(1000))
    for index in range(1, 200):
        piece = bytes([index]) * 1000
        tail.add(piece)
        tail.keep(2500)
        assert tail.size == min(2500, 1000 * (index + 1))
        assert tail._pieces[-1] is piece
    assert tail.bytes() == bytes([197]) * 500 + bytes([198]) * 1000 + bytes([199]) * 1000


def test_the_owner_of_the_decoder_writes_records_or_nothing(tmp_path: Path) -> None:
    """The writer takes apart what it is to append."""
    with bunri.File.open(tmp_path / "out.pcap", "w") as file:
        with dump_owned.OwnedWriter.start(file, 1, 65535, 0) as writer:
            writer.begin()
            writer.append(record(Packet(1, 2, 4, b"good")), 0)
            with pytest.raises(bunri.RemoteError):
                writer.append(b"#!/bin/sh\nrm -rf /\n", 0)
            with pytest.raises(bunri.RemoteError):
                writer.append(struct.pack("<IIII", 1, 2, 1 << 30, 4) + b"good", 0)
    assert (tmp_path / "out.pcap").read_bytes() == file_header(1, 65535, nanoseconds=False) + record(
        Packet(1, 2, 4, b"good")
    )


@pytest.mark.parametrize("rotation", [(), ("-C", "1")], ids=" ".join)
def test_the_owner_of_the_writer_makes_no_files_without_end(
    rotation: tuple[str, ...], dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "Writer", dump_owned.Lazy)
    source, folder = tmp_path / "in.pcap", tmp_path / "out"
    source.write_bytes(capture([udp4(40000, 50001, b"")] * 3))
    folder.mkdir()
    said = dump("-n", "-r", source, "-w", folder / "out", *rotation, code=1).stderr
    assert "the writer says what cannot be" in said
    assert [each.name for each in folder.iterdir()] == ["out"]


def test_the_owner_of_the_compiler_gives_a_program_that_is_checked() -> None:
    """It can let through too much or too little; it cannot make the kernel or the decoder read beside a packet."""
    for lie in ([(0x20, 0, 0, 0xFFFFF000), (6, 0, 0, 1)], [(5, 0, 0, 9)], [(6, 0, 0, 1)] * 5000):
        with pytest.raises(Refused):
            check(lie)


@pytest.mark.parametrize("more", [0, 2000], ids=["", "one of two"])
@pytest.mark.parametrize("mark", [b"DIES", b"RAISES", b"HANGS"])
def test_a_decoder_that_ends_on_a_packet_is_replaced(
    mark: bytes, more: int, dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are printed, that one is reported and kept."""
    for module in (command, reading):
        monkeypatch.setattr(module, "Decoder", dump_owned.Fragile)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    if mark == b"HANGS":
        monkeypatch.setattr(reading, "PATIENCE", 1.0)
        monkeypatch.setattr(reading, "PATIENCE_FOR_ONE", 0.7)
    packets = [udp4(40000, 50001, bytes(index)) for index in range(8)] + [udp4(40000, 50001, bytes(1400))] * more
    killer = udp4(40000, 50001, mark)
    source, kept = tmp_path / "in.pcap", tmp_path / "bad.pcap"
    source.write_bytes(capture([*packets[:3], killer, *packets[3:6], killer, *packets[6:]]))
    done = dump("-n", "-t", "-r", source, "--quarantine", kept, code=1)
    assert done.stdout == ours(capture(packets), "-n", "-t")
    assert "packet 4 was left out" in done.stderr
    assert "packet 8 was left out" in done.stderr
    assert done.stderr.endswith("\nbunri dump: 2 packets left out\n")
    assert [packet.data for packet in read(kept.read_bytes())] == [killer, killer]


def test_a_packet_on_which_its_printer_ended_is_written_all_the_same_from_a_file(
    dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (command, reading):
        monkeypatch.setattr(module, "Decoder", dump_owned.Fragile)
    killer = udp4(40000, 50001, b"DIES")
    packets = [udp4(40000, 50001, b"1"), udp4(1, 2, b"DIES"), killer, udp4(40000, 50001, b"2")]
    source, out = tmp_path / "in.pcap", tmp_path / "out.pcap"
    source.write_bytes(capture(packets))
    done = dump("-n", "-t", "-#", "-r", source, "-w", out, "--print", "udp port 50001", code=1)
    assert [packet.data for packet in read(out.read_bytes())] == [packets[0], *packets[2:]]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "3"]


def test_very_many_packets_on_which_decoders_end(dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (command, reading):
        monkeypatch.setattr(module, "Decoder", dump_owned.Fragile)
    killers = [udp4(40000, 50001, b"RAISES" + bytes([index])) for index in range(30)]
    source, kept = tmp_path / "in.pcap", tmp_path / "bad.pcap"
    source.write_bytes(capture([*killers, udp4(40000, 50001, b"")]))
    done = dump("-n", "-t", "-r", source, "--quarantine", kept, code=1)
    assert done.stdout == ours(capture([udp4(40000, 50001, b"")]), "-n", "-t")
    assert [packet.data for packet in read(kept.read_bytes())] == killers


def test_where_packets_are_to_be_kept_is_known_before_any_is_read(dump: Dump, tmp_path: Path) -> None:
    source = tmp_path / "in.pcap"
    source.write_bytes(capture([udp4(40000, 50001, b"")]))
    done = dump("-n", "-r", source, "--quarantine", "/nowhere/bad.pcap", code=1)
    assert done.stderr.endswith("\nbunri dump: /nowhere/bad.pcap: No such file or directory\n")
    assert done.stdout == ""
    assert dump("-n", "-r", source, "--quarantine", tmp_path / "none").stdout != ""
    assert read((tmp_path / "none").read_bytes()) == []


@given(seed=st.integers(0, 1 << 32), start=st.integers(0, 60), first=st.integers(0, 4200), small=st.booleans())
def test_a_ring_full_of_anything_is_walked_without_a_fault(seed: int, start: int, first: int, small: bool) -> None:
    """The decoder before may have written what it liked into the memory."""
    chance = random.Random(seed)
    memory = bytearray(chance.randbytes(8192))
    if small:
        for at in range(0, 8192, 4):
            memory[at : at + 4] = struct.pack("=I", chance.randrange(200))
    for base in (0, 4096):
        filled = chance.choice((4096, chance.randrange(1 << 32)))
        memory[base + 8 : base + 24] = struct.pack("=IIII", 1, chance.randrange(1 << 32), first, filled)
    with bunri.File(os.eventfd(0)) as bell:
        for cooked in (0, 1, 2):
            shape = RingShape(4096, 2, 1, cooked, 65535, nanoseconds=False, loopback=0, direction="")
            ring = Ring(shape, memoryview(memory), memoryview(bytearray(24)), bell, Place(0, start))
            assert all(0 <= stop - start <= 4096 + 24 and stop <= len(b) for *_, b, start, stop in ring.places())
            assert 0 <= ring.count() <= 4096
            made = bytearray()
            add_records(made, ring.places())
            assert are_records(bytes(made))
            assert ring.here() is None or isinstance(ring.here(), Packet)


PACKETS = [udp4(40000, 50001, bytes(10 * index)) for index in range(4)]


def block_of(packets: list[bytes]) -> bytearray:
    """A block of a ring as the kernel leaves it, of 4096 bytes."""
    block = bytearray(4096)
    at = 48
    for packet in packets:
        step = 82 + len(packet) + 7 & ~7
        struct.pack_into("=IIIIIIHH", block, at, step, 1, 2000, len(packet), len(packet), 1, 82, 96)
        block[at + 82 : at + 82 + len(packet)] = packet
        at += step
    struct.pack_into("=IIIIII", block, 0, 1, 0, 1, len(packets), 48, at)
    return block


def walked(block: bytearray) -> list[bytes]:
    """The packets that a decoder finds there, in each of its ways, which must agree."""
    with bunri.File(os.eventfd(0)) as bell:
        shape = RingShape(4096, 1, 1, 0, 65535, nanoseconds=False, loopback=0, direction="")
        ring = Ring(shape, memoryview(block), memoryview(bytearray(24)), bell, Place(0, 0))
        found = [b[start:stop] for *_, b, start, stop in ring.places()]
        records = bytearray()
        assert ring.add_records(records, -1) == len(found)
    assert are_records(records)
    assert [packet.data for packet in read(file_header(1, 65535, nanoseconds=False) + records)] == found
    return found


FIRST = 48  # where the first packet of the block stands
RING_LIES = {  # offset, format, value -> how many of the packets are still found
    "more packets than there are": (12, "=I", 0xFFFFFFFF, 4),
    "a first packet beyond the block": (16, "=I", 0xFFFFFFF0, 0),
    "a first packet at its very end": (16, "=I", 4090, 0),
    "more bytes than the block has": (20, "=I", 0xFFFFFFFF, 4),
    "fewer bytes than its head": (20, "=I", 7, 0),
    "fewer bytes than its packets": (20, "=I", 48 + 130, 1),
    "a packet longer than the block": (FIRST + 12, "=I", 5000, 0),
    "a packet longer than any": (FIRST + 12, "=I", 0xFFFFFFFF, 0),
    "a packet that begins beyond the block": (FIRST + 24, "=H", 0xFFFF, 0),
    "a next packet beyond the block": (FIRST, "=I", 0xFFFFFFF0, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", RING_LIES)
def test_lengths_offsets_and_counts_in_the_ring_that_are_a_lie_reach_nothing_beside_the_block(name: str) -> None:
    """Whoever owned the decoder before wrote them. What lies behind the block is no packet of it."""
    offset, form, value, still = RING_LIES[name]
    block = block_of(PACKETS)
    struct.pack_into(form, block, offset, value)
    found = walked(block)
    assert found[:still] == PACKETS[:still]
    assert all(not packet.strip(b"\0") for packet in found[still:]), "bytes that are no packet's"


def test_a_packet_that_is_its_own_next_one_is_found_as_often_as_is_said() -> None:
    block = block_of(PACKETS)
    struct.pack_into("=I", block, FIRST, 0)
    assert walked(block) == PACKETS[:1] * 4


def test_a_ring_without_a_lie_has_its_packets() -> None:
    """The control of both."""
    assert walked(block_of(PACKETS)) == PACKETS


# As root: a living capture.


@pytest.fixture(scope="module")
def cable() -> Iterator[Wire]:
    with wire() as made:
        yield made


REJECT = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def index_of(cable: Wire, device: str) -> int:
    said = subprocess.run(cable.command("ip", "-o", "link", "show", device), capture_output=True, check=True)
    return int(said.stdout.split(b":")[0])


@contextmanager
def opened(cable: Wire) -> Iterator[tuple[dump_owned.OwnedOpener, dump_owned.OwnedLive]]:
    """Opener and decoder of a living capture, both owned; the socket is in the namespace of the cable."""
    shape = RingShape(1 << 16, 2, 1, 0, 65535, nanoseconds=False, loopback=0, direction="")
    with ExitStack() as stack:
        packets = stack.enter_context(cable.socket(""))
        bell = stack.enter_context(bunri.File(os.eventfd(0)))
        progress = stack.enter_context(bunri.File(os.memfd_create("progress")))
        os.ftruncate(progress.fileno(), 4096)
        opener = stack.enter_context(dump_owned.OwnedOpener.start(packets, bell))
        opener.open(index_of(cable, "near"), [(6, 0, 0, 65535)], shape.block_size, shape.blocks, 10, 0)
        decoder = dump_owned.OwnedLive.start_under(
            dump_owned.OwnedLive.policy.with_(memory="512M"), JOB, shape, bunri.Mapped(packets.fileno(), shape.block_size * shape.blocks, bunri.Access.WRITE),
            bunri.Mapped(progress.fileno(), 4096, bunri.Access.WRITE), bell, Place(0, 0), Cursor(), None,
        )  # fmt: skip
        yield opener, stack.enter_context(decoder)


@pytest.mark.parametrize("action", NEXT)
@pytest.mark.parametrize("which", ["opener", "live decoder"])
def test_the_owner_of_a_process_of_a_living_capture_gets_nothing_more(
    cable: Wire, which: str, action: str, port: int
) -> None:
    with opened(cable) as (opener, decoder):
        run = opener.run_code if which == "opener" else decoder.run_code
        assert outcome(run, code_of(action, port)) in REFUSED


def held(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    links = (os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir())
    return {link[8:-1] for link in links if link.startswith("socket:")}


def test_the_decoder_holds_no_packet_socket_and_the_opener_the_only_one(cable: Wire) -> None:
    with opened(cable) as (opener, decoder):
        decoder.lost()  # it runs: what it was handed was taken
        there = packet_sockets(cable)
        assert there
        assert not held(decoder.process.pid) & there
        assert held(opener.process.pid) & there == there  # the control: this is how one is seen


def test_the_owner_of_the_opener_cannot_take_the_filter_away(cable: Wire) -> None:
    """It can send and listen elsewhere, as LIMITS say; but it sees no packet that could make it somebody's."""
    detach = "packets.setsockopt(socket.SOL_SOCKET, 27, 0); result = 'detached'"
    with opened(cable) as (opener, _):
        assert outcome(opener.run_code, detach) in REFUSED
    with cable.socket("near") as free:  # the control: before it is locked, it can be done
        free.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, _address(REJECT)))
        assert dump_owned.run(detach, packets=free) == "detached"


def test_the_opener_reads_no_packet(cable: Wire) -> None:
    """Not even its owner does: with a ring the kernel gives none to recv, and the memory is not mapped there."""
    with opened(cable) as (opener, _):
        cable.send([udp4(40000, 50001, bytes(40))] * 3)
        said = outcome(opener.run_code, "packets.setblocking(False); result = packets.recv(100)")
        assert said in {*REFUSED, "Resource temporarily unavailable"}


def test_the_owner_of_the_decoder_writes_what_it_likes_into_the_ring(cable: Wire) -> None:
    """The capture is wrong then, and nothing else: another decoder walks what is there, the kernel reads none of it."""
    with opened(cable) as (opener, decoder):
        decoder.run_code("memory[:] = bytes([255]) * len(memory); result = 'scribbled'")
        cable.send([udp4(40000, 50001, bytes(40))] * 50)
        counted = bunri.call(opener.counted).result()
        assert counted.received + counted.dropped >= 0
        assert decoder.lost() is None or isinstance(decoder.lost(), Batch)


OWNED = str(Path(__file__).parent / "dump_owned.py")
FRAGILE = (OWNED, "FragileLive")


@pytest.mark.parametrize("mark", [b"DIES", b"RAISES", b"HANGS"])
def test_a_living_capture_goes_on_behind_a_packet_that_ends_its_decoder(
    mark: bytes, cable: Wire, tmp_path: Path
) -> None:
    """As the same with a file: that packet is reported and kept, the others are printed."""
    kept = tmp_path / "bad.pcap"
    packets = [udp4(40000, 50001, bytes(40 + index)) for index in range(6)]
    killer = udp4(40000, 50001, mark + bytes(40))
    with cable.capture("-i", "near", "-n", "-t", "-c", "6", "--quarantine", kept, program=FRAGILE) as capturing:
        cable.send([*packets[:2], killer, *packets[2:]])
        assert capturing.end() == 1
    assert capturing.out == ours(capture(packets), "-n", "-t")
    assert "a packet was left out" in capturing.err
    assert counted(capturing.err) == (6, 7, 0)
    assert [packet.data for packet in read(kept.read_bytes())] == [killer]


def test_very_many_packets_on_which_living_decoders_die_cost_no_other(cable: Wire) -> None:
    """Their starts are held back, for longer than a decoder may hang: that is not its hanging."""
    with cable.capture("-i", "near", "-n", "-t", "-c", "1", program=FRAGILE) as capturing:
        cable.send([udp4(40000, 50001, b"DIES" + bytes([index])) for index in range(26)])
        cable.send([udp4(40000, 50001, b"lives")])
        assert capturing.end(seconds=55) == 1
    assert capturing.out == "IP 10.0.0.1.40000 > 10.0.0.2.50001: UDP, length 5\n"
    assert "starts are held back" in capturing.err
    assert "hangs" not in capturing.err
    assert capturing.err.endswith("\nbunri dump: 26 packets left out\n")


def test_a_packet_on_which_its_printer_ended_is_written_all_the_same(cable: Wire, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    killer = udp4(40000, 50001, b"DIES" + bytes(40))
    packets = [udp4(40000, 50001, bytes(40)), killer, udp4(40000, 50001, bytes(50))]
    with cable.capture("-i", "near", "-n", "-t", "-w", out, "--print", "-c", "3", program=FRAGILE) as capturing:
        cable.send(packets)
        assert capturing.end() == 1
    assert [packet.data for packet in read(out.read_bytes())] == packets
    assert capturing.out == ours(capture([packets[0], packets[2]]), "-n", "-t")


LIAR = (OWNED, "Liar")


@pytest.mark.parametrize("lie", dump_owned.BAD_RECORDS, ids=bytes.decode)
def test_records_that_are_a_lie_are_not_written(lie: bytes, cable: Wire, tmp_path: Path) -> None:
    """The writer takes a copy apart, and what it took apart is what it writes."""
    out = tmp_path / "out.pcap"
    with cable.capture("-i", "near", "-n", "-w", out, program=LIAR) as capturing:
        cable.send([udp4(40000, 50001, lie + bytes(40))])
        assert capturing.end() == 1
    assert "the writer failed" in capturing.err
    assert read(out.read_bytes()) == []


@pytest.mark.parametrize("lie", dump_owned.BAD_COUNTS, ids=bytes.decode)
def test_counts_that_are_a_lie_end_the_decoder(lie: bytes, cable: Wire, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    with cable.capture("-i", "near", "-n", "-w", out, "-c", "2", program=LIAR) as capturing:
        cable.send([udp4(40000, 50001, lie + bytes(40))])
        capturing.wait_for("a decoder was replaced")
        cable.send([udp4(40000, 50001, bytes(40)), udp4(40000, 50001, bytes(50))])
        assert capturing.end() == 0
    assert "it had fewer packets than none, or more than it may" in capturing.err
    assert [packet.data for packet in read(out.read_bytes())] == [udp4(40000, 50001, bytes(size)) for size in (40, 50)]


def test_what_is_no_lie_is_written(cable: Wire, tmp_path: Path) -> None:
    """The control of both: the same decoder, where no packet tells it to lie."""
    out = tmp_path / "out.pcap"
    packets = [udp4(40000, 50001, b"BEYOND ITS BEGINNING" + bytes(index)) for index in range(30)]
    with cable.capture("-i", "near", "-n", "-w", out, "-c", "30", program=LIAR) as capturing:
        cable.send(packets)
        assert capturing.end() == 0
    assert [packet.data for packet in read(out.read_bytes())] == packets


def test_a_decoder_that_cannot_start_ends_a_living_capture_with_its_cause_told_once(cable: Wire) -> None:
    with cable.capture("-i", "near", "-n", program=(OWNED, "Unstartable")) as capturing:
        assert capturing.end() == 1
    assert capturing.err.count("there is none left") == 1
    assert "near: no decoder can be started: MemoryError: there is none left\n" in capturing.err
    assert counted(capturing.err) == (0, 0, 0)


def test_names_that_come_slowly_cost_no_packet_and_end_no_decoder(cable: Wire) -> None:
    """A name server may take longer than a decoder may hang; one that never answers costs the name."""
    packets = [udp4(40000, 50001, bytes(40))] * 3
    with cable.capture("-i", "near", "-t", "-l", "-c", "3", program=(OWNED, "Slow")) as capturing:
        cable.send(packets)
        assert capturing.end() == 0
    assert capturing.out == 3 * "IP host-1.example.40000 > host-2.example.50001: UDP, length 40\n"
    assert "left out" not in capturing.err


def resolved(packets: list[bytes], tmp_path: Path, dump: Dump) -> str:
    source = tmp_path / "in.pcap"
    source.write_bytes(capture(packets))
    return dump("-t", "-r", source).stdout


def sent_to(last: int) -> bytes:
    packet = udp4(40000, 50001, b"")
    return packet[:33] + bytes([last]) + packet[34:]


def test_of_a_file_too_and_a_resolver_that_is_stuck_or_died_is_replaced(
    dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "Resolver", dump_owned.Slow)
    monkeypatch.setattr(monitor, "_FOR_A_NAME", 2.0)
    monkeypatch.setattr(reading, "PATIENCE", 1.0)
    assert resolved([sent_to(last) for last in (2, 3, 4, 5)], tmp_path, dump).splitlines() == [
        f"IP host-1.example.40000 > {target}.50001: UDP, length 0"
        for target in ("host-2.example", "10.0.0.3", "10.0.0.4", "host-5.example")
    ]


def test_the_owner_of_the_decoder_asks_for_each_address_once_and_not_for_many() -> None:
    """Each question tells something to whoever answers for an address."""
    questions: list[bytes] = []

    class Counting:
        def host(self, address: bytes) -> str:
            questions.append(address)
            return "\x1b" * 10_000_000  # which is no name

    names = monitor.Asked(Counting)  # type: ignore[arg-type]
    for _ in range(3):
        for index in range(monitor.MOST_NAMES + 100):
            assert names.host(struct.pack(">I", index)) == ""
    assert questions == [struct.pack(">I", index) for index in range(monitor.MOST_NAMES)]
    for lie in (b"", b"12345", bytes(200)):
        with pytest.raises(bunri.Misbehaved):
            names.host(lie)
