"""Runs in: the user's shell. The options of tcpdump, as values."""

from __future__ import annotations

import getopt
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from bunri.apps.dump.messages import Style

_SHORT = "aAbB:c:C:dDeE:fF:gG:hHi:Ij:JKlLm:M:nNOpqQ:r:s:StT:uUvV:w:W:xXy:Yz:Z:#"
_LONG = [
    "buffer-size=", "count", "debug", "direction=", "dont-verify-checksums", "help", "immediate-mode", "interface=",
    "linktype=", "list-data-link-types", "list-interfaces", "list-time-stamp-types", "micro", "monitor-mode", "nano",
    "no-optimize", "no-promiscuous-mode", "number", "packet-buffered", "absolute-tcp-sequence-numbers", "print",
    "quarantine=", "relinquish-privileges=", "self-confine", "snapshot-length=", "time-stamp-precision=",
    "time-stamp-type=", "version",
]  # fmt: skip
_SAME = {
    "--buffer-size": "-B", "--direction": "-Q", "--dont-verify-checksums": "-K", "--help": "-h", "--interface": "-i",
    "--linktype": "-y", "--list-data-link-types": "-L", "--list-interfaces": "-D", "--monitor-mode": "-I",
    "--no-optimize": "-O", "--no-promiscuous-mode": "-p", "--number": "-#", "--packet-buffered": "-U",
    "--absolute-tcp-sequence-numbers": "-S", "--relinquish-privileges": "-Z", "--snapshot-length": "-s",
    "--list-time-stamp-types": "-J", "--time-stamp-type": "-j",
}  # fmt: skip
_REFUSED = {
    "-E": "decryption of IPsec would bring keys into the decoder",
    "-M": "the shared secret of TCP's MD5 option would be brought into the decoder",
    "-z": "a command would be started on files that a stranger filled; run it yourself when the file is done",
    "-I": "monitor mode is not supported",
    "-J": "time stamp types are not supported: the kernel's own is used",
    "-j": "time stamp types are not supported: the kernel's own is used",
    "-m": "MIB modules are not supported: there is no SNMP printer here",
    "-V": "a list of files is not supported: name each with -r",
    "-f": "-f needs the network of this host in the decoder; use -n",
    "-a": "there is no such option any more",
    "-g": "there is no such option any more",
    "-H": "draft 802.11s mesh frames are not supported",
    "-b": "there is no BGP printer here",
    "-Y": "libpcap's debugging output is not supported",
}
_TYPES = ("domain", "tftp", "vxlan")


class BadOption(Exception):
    """A sentence on how the command was called."""


@dataclass
class Options:
    """What was asked for."""

    style: Style = field(default_factory=Style)
    interface: str = ""
    read: str = ""
    write: str = ""
    expression: str = ""
    most: int = -1  # -c
    count: bool = False
    listing: int = 0  # -d
    optimize: bool = True
    line_buffered: bool = False
    packet_buffered: bool = False
    prints: bool = False
    promiscuous: bool = True
    direction: str = ""
    snap: int = 262144
    buffer: int = 2 << 20
    link: str = ""
    rotate_size: int = 0
    rotate_seconds: int = 0
    files: int = 0
    user: str = ""
    immediate: bool = False
    quarantine: str = ""
    self_confine: bool = False
    action: str = ""  # "help", "version", "interfaces", "links"


def parse(arguments: Sequence[str]) -> Options:
    """Options and expression. BadOption with a sentence."""
    try:
        given, rest = getopt.gnu_getopt(list(arguments), _SHORT, _LONG)
    except getopt.GetoptError as fault:
        raise BadOption(f"{fault.msg}. `bunri dump --help` lists the options") from None
    made = Options()
    style: dict[str, object] = {}
    levels = {
        "-v": "verbose", "-q": "quiet", "-n": "numeric", "-t": "time", "-x": "hexadecimal", "-X": "hex_ascii", "-A": "ascii",
    }  # fmt: skip
    switches = {"-e": "link", "-N": "no_domains", "-S": "absolute", "-K": "unchecked", "-#": "number"}
    expression_file = ""
    for name, value in given:
        name = _SAME.get(name, name)
        if name in _REFUSED:
            raise BadOption(f"{name} is not supported: {_REFUSED[name]}")
        if name in levels:
            style[levels[name]] = int(str(style.get(levels[name], 0))) + 1
        elif name in switches:
            style[switches[name]] = True
        elif name == "-T":
            if value not in _TYPES:
                raise BadOption(f"unknown packet type `{bunri_printable(value)}'. Supported here: {', '.join(_TYPES)}")
            style["type"] = value
        elif name == "--nano" or (name == "--time-stamp-precision" and value == "nano"):
            style["nanoseconds"] = True
        elif name == "--time-stamp-precision" and value != "micro":
            raise BadOption(f"unable to parse time stamp precision {value!r}: write micro or nano")
        elif name == "-F":
            expression_file = value
        else:
            _one(made, name, value)
    if int(str(style.get("time", 0))) > 5:
        raise BadOption("only -t, -tt, -ttt, -tttt, and -ttttt are supported")
    made.style = Style(**style)  # type: ignore[arg-type]
    made.expression = _expression(expression_file) if expression_file else " ".join(rest)
    _check(made)
    return made


def bunri_printable(text: str) -> str:
    """A word of the command line in a message."""
    return text.encode("ascii", "backslashreplace").decode()[:60]


def _one(made: Options, name: str, value: str) -> None:
    """An option that is one field."""
    if name in ("-D", "-L", "-h", "--version"):
        made.action = {"-D": "interfaces", "-L": "links", "-h": "help", "--version": "version"}[name]
    elif name in ("-i", "-r", "-w", "-y", "-Z", "--quarantine"):
        field_name = {"-i": "interface", "-r": "read", "-w": "write", "-y": "link", "-Z": "user"}.get(
            name, "quarantine"
        )
        setattr(made, field_name, value)
    elif name == "-c":
        made.most = _number(value, "packet count", least=1)
    elif name == "-s":
        made.snap = _number(value, "snaplen", least=0, most=262144) or 262144
    elif name == "-B":
        made.buffer = _number(value, "packet buffer size", least=1, most=1 << 20) << 10
    elif name == "-C":
        made.rotate_size = _size(value)
    elif name == "-G":
        made.rotate_seconds = _number(value, "number of seconds", least=0)
    elif name == "-W":
        made.files = _number(value, "number of output files", least=1)
    elif name == "-d":
        made.listing += 1
    elif name == "-Q":
        if value not in ("in", "out", "inout"):
            raise BadOption(f"unknown capture direction `{bunri_printable(value)}'")
        made.direction = "" if value == "inout" else value
    else:
        switch = {
            "--count": "count", "-l": "line_buffered", "-U": "packet_buffered", "--print": "prints",
            "--immediate-mode": "immediate", "--self-confine": "self_confine",
        }.get(name)  # fmt: skip
        if switch is not None:
            setattr(made, switch, True)
        elif name == "-O":
            made.optimize = False
        elif name == "-p":
            made.promiscuous = False


def _number(value: str, what: str, *, least: int, most: int = 1 << 31) -> int:
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        raise BadOption(f"invalid {what} {bunri_printable(value)}")
    return int(value)


def _size(value: str) -> int:
    """-C: millions of bytes, or with a suffix of 1024s."""
    scale = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(value[-1:].lower())
    if scale is None:
        return _number(value, "file size", least=1) * 1_000_000
    return _number(value[:-1], "file size", least=1) * scale


def _expression(path: str) -> str:
    """-F: each line ends where a # stands."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return "\n".join(line.partition("#")[0] for line in file.read(1 << 20).splitlines())


def _check(made: Options) -> None:
    if made.read and made.interface:
        made.interface = ""
    if (made.rotate_size or made.rotate_seconds) and (not made.write or made.write == "-"):
        raise BadOption("-C and -G rotate the file that -w names; name one")
    if made.files and not (made.rotate_size or made.rotate_seconds):
        raise BadOption("-W counts the files that -C or -G make; give one of them")
    if made.rotate_seconds and os.fspath(made.write).count("%") == 0 and not made.rotate_size and not made.files:
        raise BadOption(
            "with -G the name of the file needs a time format, as out-%H%M%S.pcap: each file would overwrite the last"
        )
    if made.self_confine and (made.write or not made.style.numeric):
        raise BadOption("--self-confine prints, and asks nobody for names: add -n, leave -w out")
