"""Runs in: the test process, with tcpdump beside it. Filter programs: checked, run, and printed as tcpdump does it."""

from __future__ import annotations

import random
import subprocess
from itertools import pairwise

import pytest
from corpus import SAMPLES
from hypothesis import given
from hypothesis import strategies as st
from packets import capture, mutated, needs_tcpdump, tcpdump

from bunri.apps.dump import bpf
from bunri.apps.dump.messages import Instruction

EXPRESSIONS = [
    "", "ip", "tcp", "udp port 50001", "host 10.0.0.1", "net 10.0.0.0/8 and not arp", "tcp[tcpflags] & tcp-syn != 0",
    "ip6 and udp", "icmp[icmptype] = icmp-echo", "less 60", "greater 60", "vlan 5", "ether host 02:00:00:00:00:01",
    "ip[8] < 65 and ip[0] & 0xf > 5", "portrange 1000-2000", "ip proto 253", "len - 14 > ip[2:2] * 2 / 2",
    "udp[4:2] % 3 = 0", "ip[6:2] & 0x1fff != 0", "llc", "ip[2:2] << 1 ^ 7 > 90 or ip[1] >> 2 = 0", "not ip and not ip6",
    "ip[ip[0] & 0xf] > 10", "tcp portrange 40000-50001 and (tcp[13] & 18 == 18 or tcp[13] & 2 == 2)",
]  # fmt: skip


def compiled(expression: str, *flags: str) -> str:
    """The program of tcpdump itself, as text."""
    done = subprocess.run(
        [needs_tcpdump(), "-y", "EN10MB", *flags, expression], capture_output=True, text=True, check=False
    )
    if done.returncode and "-i" not in flags:
        # Without a capture tcpdump needs an interface; a file gives the link type as well.
        done = subprocess.run(
            [needs_tcpdump(), "-r", "-", *flags, expression],
            input=capture([]),
            capture_output=True,
            check=True,
            encoding="latin-1",
        )
    return done.stdout


def program_of(expression: str, *flags: str) -> list[Instruction]:
    lines = compiled(expression, "-ddd", *flags).splitlines()[1:]
    return [(each[0], each[1], each[2], each[3]) for each in ([int(word) for word in line.split()] for line in lines)]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_libpcap_compiles_is_accepted_and_printed_as_tcpdump_prints_it(expression: str) -> None:
    for flags in ((), ("-O",)):
        program = program_of(expression, *flags)
        bpf.check(program)
        for level, name in ((1, "-d"), (2, "-dd"), (3, "-ddd")):
            assert bpf.listing(program, level) == compiled(expression, name, *flags)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_filter_lets_through_what_tcpdump_lets_through(expression: str) -> None:
    chance = random.Random(expression)
    packets = [sample.data for every in SAMPLES.values() for sample in every]
    packets += [mutated(packet, 12, (), chance) for packet in packets for _ in range(5)]
    matches = bpf.machine(program_of(expression))
    # The time is the number of the packet, in thousandths.
    theirs = {
        round(float(line.split()[0]) * 1000) % 10**6
        for line in tcpdump(capture(packets), "-n", "-tt", "-q", expression).splitlines()
        if line[:10].isdigit()
    }
    first = 1_700_000_000 * 1000 % 10**6
    mine = {first + index for index, packet in enumerate(packets) if matches(packet, len(packet))}
    assert mine == theirs


RETURN: Instruction = (0x06, 0, 0, 5)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ([], "1 to 4096"),
        ([RETURN] * 4097, "1 to 4096"),
        ([(0x28, 0, 0, 12)], "must be a return"),
        ([(0x15, 1, 0, 5), RETURN], "past the end"),
        ([(0x05, 0, 0, 1), RETURN], "past the end"),
        ([(0x05, 0, 0, 0xFFFFFFFF), RETURN], "past the end"),
        ([(0x34, 0, 0, 0), RETURN], "divides by 0"),
        ([(0x64, 0, 0, 32), RETURN], "shifts"),
        ([(0x02, 0, 0, 16), RETURN], "memory cells"),
        ([(0x20, 0, 0, 0xFFFFF000), RETURN], "beside the packet"),
        ([(0x20, 256, 0, 0), RETURN], "out of range"),
        ([(0x20, 0, 0, -1), RETURN], "out of range"),
        ([(0xFFFF, 0, 0, 0), RETURN], "no such instruction"),
        ([(0x18, 0, 0, 0), RETURN], "no such instruction"),
    ],
)
def test_a_program_that_the_machine_does_not_take(program: list[Instruction], said: str) -> None:
    """Control: the same return alone is taken."""
    bpf.check([RETURN])
    with pytest.raises(bpf.Refused, match=said):
        bpf.check(program)


codes = st.sampled_from(
    [
        0x20,
        0x28,
        0x30,
        0x40,
        0x15,
        0x25,
        0x35,
        0x45,
        0x05,
        0x06,
        0x04,
        0x34,
        0x94,
        0x64,
        0x7C,
        0xB1,
        0x02,
        0x60,
        0x07,
        0x87,
        0x84,
        0x80,
        0x16,
        0x3C,
        0x61,
        0x50,
    ]
)
words = st.one_of(st.integers(0, 40), st.integers(0, 0xFFFFFFFF))


@given(
    st.lists(st.tuples(codes, st.integers(0, 6), st.integers(0, 6), words), min_size=1, max_size=12),
    st.binary(max_size=60),
)
def test_a_program_that_was_checked_runs_to_an_answer(program: list[Instruction], packet: bytes) -> None:
    """Every jump goes forward, so it ends; whatever the packet is, nothing is raised."""
    try:
        bpf.check(program)
    except bpf.Refused:
        return
    assert 0 <= bpf.machine(program)(packet, len(packet)) <= 0xFFFFFFFF


def test_a_program_for_cooked_packets_asks_the_kernel_for_what_the_header_says() -> None:
    program: list[Instruction] = [(0x28, 0, 0, 0), (0x15, 0, 1, 0x0800), (0x30, 0, 0, 29), (0x06, 0, 0, 1)]
    made = bpf.for_cooked(program, 2)
    assert made is not None
    assert made[0] == (0x20, 0, 0, 0xFFFFF000)
    assert made[2] == (0x30, 0, 0, 9)
    assert bpf.for_cooked([(0x80, 0, 0, 0), RETURN], 2) is None  # the length is another one there
    assert all(a[0] in (0x20, 0x15, 0x30, 0x06) for a, _ in pairwise(made))
