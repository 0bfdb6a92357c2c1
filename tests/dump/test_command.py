"""Runs in: the test process, with tcpdump beside it. `bunri dump -r` as a user runs it: the whole command, its workers confined."""

from __future__ import annotations

import os
import random
import re
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from corpus import SAMPLES, connections
from packets import ENVIRONMENT, Dump, capture, four, needs_tcpdump, ours, tcp, udp4
from test_capture import FILES, block, read

from bunri.apps.dump.capture import file_header, record
from bunri.apps.dump.reading import LONG, Stream

EVERY = [sample.data for every in SAMPLES.values() for sample in every]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dump") / "every.pcap"
    path.write_bytes(capture(EVERY))
    return path


def theirs(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [needs_tcpdump(), *map(str, arguments)], capture_output=True, encoding="latin-1", env=ENVIRONMENT, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    ["-n", "-nn -vvv -e", "-n -c 3 -#", "-n --count", "-n -c 4 --count udp", "-n -tttt -X udp and host 10.0.0.1", "-n --nano", "-v"],
)  # fmt: skip
def test_the_command_prints_what_tcpdump_prints(dump: Dump, file: Path, arguments: str) -> None:
    words = arguments.split()
    done, expected = dump("-r", file, *words), theirs("-r", file, *words)
    assert done.stdout == expected.stdout
    assert done.stderr == expected.stderr


def test_a_capture_comes_from_standard_input(shell: Dump, file: Path) -> None:
    done = shell("-n", "-r", "-", data=file.read_bytes())
    assert done.stdout == theirs("-n", "-r", file).stdout
    assert done.stderr.startswith("reading from file -, link-type EN10MB (Ethernet), snapshot length 262144\n")


@pytest.mark.parametrize("arguments", ["-n", "-n -#", "-n -ttt", "-n -v", "-n tcp"])
def test_a_long_file_is_printed_by_two_decoders_as_by_one(
    dump: Dump, tmp_path: Path, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    path = tmp_path / "long.pcap"
    path.write_bytes(capture(connections(random.Random(3), 8000)))
    assert path.stat().st_size > LONG
    words = arguments.split()
    assert dump("-r", path, *words).stdout == theirs("-r", path, *words).stdout


def test_pcapng_as_well(dump: Dump, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(FILES["pcapng, nanoseconds"])
    done = dump("-n", "--nano", "-r", path)
    assert done.stdout == theirs("-n", "--nano", "-r", path).stdout
    assert "123456789" in done.stdout


@pytest.mark.parametrize("level", ["-d", "-dd", "-ddd"])
def test_a_compiled_expression_is_listed(dump: Dump, file: Path, level: str) -> None:
    words = ["-r", file, level, "tcp", "port", "80"]
    assert dump(*words).stdout == theirs(*words).stdout


@pytest.mark.parametrize(
    "expression", ["tcp and and", "port 99999999", "host", "ip[", "ether host 1.2.3.4", "vlan and vlan vlan"]
)
def test_a_wrong_expression_is_told_in_tcpdumps_words(dump: Dump, file: Path, expression: str) -> None:
    done, expected = dump("-n", "-r", file, expression, code=1), theirs("-n", "-r", file, expression)
    assert expected.returncode == 1
    assert done.stderr.splitlines()[-1].removeprefix("bunri dump: ") == expected.stderr.splitlines()[-1].removeprefix(
        "tcpdump: "
    )


def test_an_expression_from_a_file(dump: Dump, file: Path, tmp_path: Path) -> None:
    expression = tmp_path / "expression"
    expression.write_text("udp # only these\nand port 50001\n")
    assert dump("-n", "-r", file, "-F", expression).stdout == theirs("-n", "-r", file, "-F", expression).stdout != ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-E x", "decryption of IPsec"),
        ("-z gzip", "a command would be started"),
        ("-I", "monitor mode"),
        ("-T snmp", "no printer of it"),
        ("-w - -C 1", "name one"),
        ("-w x --self-confine", "leave -w out"),
    ],
)
def test_what_is_left_out_is_refused_with_a_sentence(dump: Dump, arguments: str, said: str) -> None:
    done = dump("-r", "/nowhere", *arguments.split(), code=1)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def told(done: subprocess.CompletedProcess[str], name: str) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr.replace(f"{name}: ", "", 1)


@pytest.mark.parametrize(
    "arguments",
    [
        "-c 0", "-c x", "-B 0", "-C 0", "-C x", "-G -1", "-W 0", "-s -1", "-s 300000", "-s 08", "-Q sideways", "-T foo", "-y FOO", "-y DLT_RAW",
        "-tttttt", "--time-stamp-precision pico", "-i 0", "-i 99999999999", "-d", "-d tcp", "-dddd tcp", "-d -y RAW tcp", "-dd -s 100 ip",
        "-d inbound", "-r /nowhere", "-r /",
    ],
)  # fmt: skip
def test_without_a_capture_it_answers_as_tcpdump_does(dump: Dump, arguments: str) -> None:
    if os.getuid() != 0 and arguments.startswith("-i"):
        pytest.skip("whoever may not capture is told so first, by tcpdump")
    expected = theirs(*arguments.split())
    assert told(dump(*arguments.split(), code=expected.returncode), "bunri dump") == told(expected, "tcpdump")


@pytest.mark.parametrize(
    "arguments",
    [
        "-W 5", "-C 5", "-G 5", "-Q IN", "-T DOMAIN", "-u", "-a", "-b", "-H", "-L", "-y RAW", "-i nosuch", "-s 0x60", "-s 010", "--nano --micro", "-Z nobody",
        "-w /nowhere/x", "-w /dev/null", "--count -w /dev/null", "--count --print -w /dev/null", "inbound", "outbound", "host localhost",
        "-d inbound",
    ],
)  # fmt: skip
def test_of_a_capture_it_says_what_tcpdump_says(dump: Dump, file: Path, arguments: str) -> None:
    words = ["-n", "-r", file, "-c", "3", *arguments.split()]
    expected = theirs(*words)
    assert told(dump(*words, code=expected.returncode), "bunri dump") == told(expected, "tcpdump")


@pytest.mark.parametrize("arguments", ["--wrong", "-k", "-r", "--count=3", "--i"])
def test_an_option_that_is_none_is_answered_with_the_usage(dump: Dump, arguments: str) -> None:
    assert theirs(arguments).returncode == 1
    done = dump(arguments, code=1)
    assert done.stderr.startswith("bunri dump: option -") and "\nUsage: bunri dump [" in done.stderr


@pytest.mark.parametrize("option", ["-r", "-w", "-i"])
def test_a_name_may_not_be_empty(dump: Dump, file: Path, option: str) -> None:
    if os.getuid() != 0 and option == "-i":
        pytest.skip("whoever may not capture is told so first, by tcpdump")
    words = [option, "", *(["-r", str(file)] if option == "-w" else [])]
    expected = theirs(*words)
    said = [line for line in expected.stderr.splitlines() if line.startswith("tcpdump: ")]
    assert dump(*words, code=expected.returncode).stderr == said[0].replace("tcpdump", "bunri dump") + "\n"


def test_a_user_that_is_none_is_refused(dump: Dump, file: Path) -> None:
    expected = theirs("-n", "-r", file, "-Z", "nosuch")
    done = dump("-n", "-r", file, "-Z", "nosuch", code=expected.returncode)
    assert told(done, "bunri dump") == told(expected, "tcpdump")
    assert expected.returncode == (os.getuid() == 0)


def test_written_files_have_the_mode_that_the_umask_leaves(dump: Dump, file: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        dump("-n", "-r", file, "-w", tmp_path / "x")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="takes root")
def test_written_files_belong_to_the_user_that_was_named(dump: Dump, file: Path, tmp_path: Path) -> None:
    dump("-n", "-r", file, "-w", tmp_path / "x", "-Z", "nobody")
    assert (tmp_path / "x").owner() == "nobody"


def test_interfaces_stand_in_tcpdumps_order(dump: Dump) -> None:
    """Those that -i can take: the numbers are what it may be given, too."""
    there = re.compile(r"\d+\.(?!bluetooth|nflog|nfqueue|dbus)")
    expected = [line for line in theirs("-D").stdout.splitlines() if there.match(line)]
    assert dump("-D").stdout.splitlines() == expected


def test_an_expression_may_have_thousands_of_words(dump: Dump, file: Path) -> None:
    expression = "udp and " * 3000 + "udp"
    assert dump("-n", "-r", file, expression).stdout == theirs("-n", "-r", file, expression).stdout != ""


def test_a_nul_in_an_expression_is_refused(dump: Dump, file: Path, tmp_path: Path) -> None:
    """tcpdump reads up to it, and shows packets that were not asked for."""
    expression = tmp_path / "expression"
    expression.write_bytes(b"udp\0 and port 53")
    assert "there is a NUL" in dump("-n", "-r", file, "-F", expression, code=1).stderr


@pytest.mark.parametrize("expression", [b"udp # x\x0b y\n and port 53", b"udp and \xff"])
def test_an_expression_is_bytes(dump: Dump, file: Path, tmp_path: Path, expression: bytes) -> None:
    path = tmp_path / "expression"
    path.write_bytes(expression)
    expected = theirs("-n", "-r", file, "-F", path)
    assert told(dump("-n", "-r", file, "-F", path, code=expected.returncode), "bunri dump") == told(expected, "tcpdump")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "truncated dump file"),
        (b"GIF89a" + bytes(40), "unknown file format"),
        (capture(EVERY)[:-3], "truncated dump file"),
    ],
)
def test_a_file_that_is_no_capture_is_told_as_tcpdump_does(dump: Dump, tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    done, expected = dump("-n", "-r", path, code=1), theirs("-n", "-r", path)
    assert expected.returncode == 1
    assert said in done.stderr and said in expected.stderr
    assert done.stdout == expected.stdout
    assert done.stderr.splitlines()[-1].removeprefix("bunri dump: ") == expected.stderr.splitlines()[-1].removeprefix(
        "tcpdump: "
    )


@pytest.mark.parametrize("link", [2, 13, 1000, 77, 147, 277, 289])
def test_a_link_type_is_named_as_tcpdump_names_it(dump: Dump, tmp_path: Path, link: int) -> None:
    """Those without a printer, and those that there are not."""
    path = tmp_path / "strange.pcap"
    path.write_bytes(capture(EVERY[:3], link))
    expected = theirs("-n", "-r", path)
    assert told(dump("-n", "-r", path, code=expected.returncode), "bunri dump") == told(expected, "tcpdump")


def test_no_file_is_told_as_tcpdump_does(dump: Dump) -> None:
    assert dump("-r", "/nowhere", code=1).stderr == "bunri dump: /nowhere: No such file or directory\n"


def test_written_records_are_the_packets_that_were_read(dump: Dump, file: Path, tmp_path: Path) -> None:
    """-w: what a filter lets through, byte for byte what tcpdump writes."""
    mine, other = tmp_path / "mine.pcap", tmp_path / "theirs.pcap"
    dump("-n", "-r", file, "-w", mine, "udp")
    theirs("-n", "-r", file, "-w", other, "udp")
    assert mine.read_bytes() == other.read_bytes()
    assert len(read(mine.read_bytes())) > 3


def test_print_writes_and_prints(dump: Dump, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    assert dump("-n", "-r", file, "-w", out, "--print").stdout == theirs("-n", "-r", file).stdout
    assert read(out.read_bytes()) == read(file.read_bytes())


@pytest.mark.parametrize("files", [(), ("-W", "2"), ("-W", "12")], ids=" ".join)
def test_c_rotates_as_tcpdump_does(dump: Dump, tmp_path: Path, files: tuple[str, ...]) -> None:
    source = tmp_path / "big.pcap"
    source.write_bytes(capture([udp4(40000, 50001, bytes(60000))] * 60))
    found: list[list[tuple[str, bytes]]] = []
    for name, run in (("mine", dump), ("theirs", theirs)):
        folder = tmp_path / name
        folder.mkdir()
        # Without -Z tcpdump becomes a user who may not write here.
        user = ("-Z", "root") if os.getuid() == 0 and name == "theirs" else ()
        run("-n", "-r", source, "-w", folder / "out", "-C", "1", *files, *user)
        found.append(sorted((each.name, each.read_bytes()) for each in folder.iterdir()))
    mine, expected = found
    assert [name for name, _ in mine] == [name for name, _ in expected]
    assert len(mine) > 1
    assert mine == expected


def test_one_process_that_confines_itself_prints_the_same(shell: Dump, file: Path) -> None:
    done = shell("--self-confine", "-n", "-r", file, "udp")
    assert done.stdout == theirs("-n", "-r", file, "udp").stdout


def test_one_process_answers_what_several_do(shell: Dump, file: Path, tmp_path: Path) -> None:
    for words in (["-d", "udp"], ["-L"], ["-c", "3"], ["-c", "2", "udp"], ["--count"]):
        assert shell("--self-confine", "-n", "-r", file, *words).stdout == shell("-n", "-r", file, *words).stdout != ""
    assert "not supported on Ethernet" in shell("--self-confine", "-n", "-r", file, "inbound", code=1).stderr
    short = tmp_path / "short.pcap"
    short.write_bytes(file.read_bytes()[:-3])
    done, expected = shell("--self-confine", "-n", "-r", short, code=1), theirs("-n", "-r", short)
    assert done.stdout == expected.stdout
    assert done.stderr.splitlines()[-1].removeprefix("bunri dump: ") == expected.stderr.splitlines()[-1].removeprefix(
        "tcpdump: "
    )


@pytest.mark.parametrize("mode", [[], ["--self-confine"]], ids=" ".join)
def test_a_pipe_is_printed_packet_by_packet_and_an_interrupt_ends_it_at_once(file: Path, mode: list[str]) -> None:
    packets = read(file.read_bytes())
    process = subprocess.Popen(
        [sys.executable, "-m", "bunri", "dump", "-n", "-t", "-l", "-r", "-", *mode],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    with process:
        try:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            process.stdin.write(file_header(1, 262144, nanoseconds=False))
            process.stdin.flush()
            assert process.stderr.readline().startswith(b"reading from file -")
            for packet in packets[:3]:
                process.stdin.write(record(packet))
                process.stdin.flush()
                assert process.stdout.readline().decode() == ours(capture([packet.data]), "-n", "-t")
            process.stdin.write(record(packets[3])[:-1])
            process.stdin.flush()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 0
            assert process.stderr.read() == b""
        finally:
            process.kill()


def test_what_kind_of_capture_it_is_may_be_told_late(shell: Dump) -> None:
    """A comment in front of the first interface of a pcapng file, longer than any pipe gives at once."""
    whole = FILES["pcapng, little"]
    comment = block("<", 0x0A0D0D0A, whole[8:24] + struct.pack("<HH", 1, 60000) + bytes(60000) + bytes(4))
    assert shell("-n", "-r", "-", data=comment + whole[28:]).stdout == shell("-n", "-r", "-", data=whole).stdout != ""


FULL = "No space left on device"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("-w /dev/null", 0, ""),
        ("-w /dev/full", 14, f"/dev/full: {FULL}"),
        ("-w - >/dev/full", 14, f"standard output: {FULL}"),
        ("-w - >/dev/null", 0, ""),
        (">/dev/full", 14, f"Unable to write output: {FULL}"),
        ("--count >/dev/full", 14, f"Unable to write output: {FULL}"),
        ("-d >/dev/full", 14, f"Unable to write output: {FULL}"),
        ("-l >/dev/full", 14, f"Unable to write output: {FULL}"),
        (">&-", 14, "Unable to write output: Bad file descriptor"),
        ("-w - >&-", 14, "standard output: Bad file descriptor"),
        ("-w /dev/null >&-", 0, ""),
        ("--self-confine >/dev/full", 14, f"Unable to write output: {FULL}"),
        ("--self-confine >&-", 14, "Unable to write output: Bad file descriptor"),
        ("2>&- | head -1 >/dev/null", 0, None),
        ("-w /tmp", 1, "/tmp: Is a directory"),
        ("-w /nowhere/out", 1, "/nowhere/out: No such file or directory"),
        ("-r /tmp", 1, "error reading dump file: Is a directory"),
    ],
)
def test_what_cannot_be_written_is_told_in_a_sentence(file: Path, arguments: str, code: int, said: str | None) -> None:
    for unbuffered in ("", "1"):
        done = subprocess.run(
            ["bash", "-c", f"exec {sys.executable} -m bunri dump -n -r {file} {arguments}"],
            capture_output=True, encoding="latin-1", env={**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}, check=False,
        )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if not line.startswith("reading from file")]
        assert (done.returncode, lines) == (code, [f"bunri dump: {said}"] if said else []), arguments


def test_whoever_reads_may_have_had_enough(tmp_path: Path) -> None:
    """As tcpdump: a sentence, and that exit status."""
    source = tmp_path / "big.pcap"
    source.write_bytes(capture([udp4(40000, 50001, bytes(40))] * 20000))
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m bunri dump -n -r {source} | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, encoding="latin-1", env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 14
    assert done.stderr.splitlines()[1:] == ["bunri dump: Unable to write output: Broken pipe"]


def test_a_reader_may_take_his_time(file: Path, tmp_path: Path) -> None:
    """What is written to a pipe waits for its reader."""
    source = tmp_path / "big.pcap"
    source.write_bytes(capture([udp4(40000, 50001, bytes(1000))] * 1000))
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m bunri dump -n -r {source} -w - | (sleep 5; cat)"],
        capture_output=True, env=ENVIRONMENT, check=True,
    )  # fmt: skip
    assert done.stdout == source.read_bytes()


def test_a_terminal_gets_printable_bytes_only(dump: Dump, tmp_path: Path) -> None:
    path = tmp_path / "escape.pcap"
    path.write_bytes(capture([four(6, tcp(40000, 50001, b"\x1b[2J\x1b]0;owned\x07 plain\r\n"))]))
    out = dump("-n", "-A", "-r", path).stdout
    assert "plain" in out
    assert "\x1b" not in out and "\x07" not in out


def test_it_says_what_it_is(dump: Dump) -> None:
    assert "tcpdump 4.99.3" in dump("--version").stdout
    assert dump("--help").stdout.startswith("Usage: bunri dump")


def test_the_readme_shows_what_is_printed(dump: Dump) -> None:
    page = (Path(__file__).parents[2] / "README.md").read_text()
    command, lines = re.search(r"^    \$ bunri dump (.*)\n((?:    .*\n)+)", page, re.MULTILINE).groups()  # type: ignore[union-attr]
    words = command.replace("src/", f"{Path(__file__).parents[2] / 'src'}/").split()
    assert dump(*words).stdout == textwrap.dedent(lines)


def test_a_long_file_has_two_decoders_where_there_are_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.pcap"
    path.write_bytes(bytes(LONG))
    for processors in (1, 2, 3, 8):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, many=processors: set(range(many)))
        with path.open("rb") as file:
            assert Stream(file.fileno()).is_long() is (processors > 2)
    path.write_bytes(bytes(LONG - 1))
    reading, writing = os.pipe()
    os.close(writing)
    with path.open("rb") as file, os.fdopen(reading, "rb") as pipe:
        assert not Stream(file.fileno()).is_long()
        assert not Stream(pipe.fileno()).is_long()
