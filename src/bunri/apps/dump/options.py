"""Runs in: the user's shell. The options of tcpdump, as values."""

from __future__ import annotations

import errno
import getopt
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bunri.apps.dump.capture import MOST_CAPTURED
from bunri.apps.dump.linktypes import number_of
from bunri.apps.dump.messages import Style

_MOST_EXPRESSION = 1 << 20

_SHORT = "aAbB:c:C:dDeE:fF:G:hHi:Ij:JKlLm:M:nNOpqQ:r:s:StT:uUvV:w:W:xXy:Yz:Z:#"
_LONG = [
    "buffer-size=", "count", "direction=", "dont-verify-checksums", "help", "immediate-mode", "interface=",
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
    "-Y": "libpcap's debugging output is not supported",
}
_WITHOUT_EFFECT = frozenset({"-a", "-b", "-H", "-u"})  # they change lines of printers that are not here
_TYPES = ("domain", "tftp", "vxlan")
_OTHER_TYPES = (
    "aodv", "carp", "cnfp", "lmp", "pgm", "pgm_zmtp1", "ptp", "radius", "resp", "rpc", "rtcp", "rtp", "snmp", "someip",
    "vat", "wb", "zmtp1",
)  # fmt: skip


class BadOption(Exception):
    """A sentence on how the command was called. `usage`: what can be called is to be shown."""

    def __init__(self, said: str, *, usage: bool = False) -> None:
        super().__init__(said)
        self.usage = usage


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
    snap: int = MOST_CAPTURED
    buffer: int = 2 << 20
    link: str = ""
    rotate_size: int = 0
    rotate_seconds: int = 0
    files: int = 0
    user: str | None = None
    owner: tuple[int, int] | None = None  # of the files that -w makes
    immediate: bool = False
    quarantine: str = ""
    self_confine: bool = False
    lists_links: bool = False  # -L
    action: str = ""  # "help", "version", "interfaces"


def parse(arguments: Sequence[str]) -> Options:
    """Options and expression. BadOption with a sentence."""
    try:
        given, rest = getopt.gnu_getopt(list(arguments), _SHORT, _LONG)
    except getopt.GetoptError as fault:
        raise BadOption(fault.msg, usage=True) from None
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
        elif name in ("-h", "--version"):
            return replace(made, action={"-h": "help", "--version": "version"}[name])
        elif name == "-T":
            style["type"] = _type(value)
        elif name in ("--nano", "--micro", "--time-stamp-precision"):
            precision = value or name.removeprefix("--")
            if precision not in ("micro", "nano"):
                raise BadOption("unsupported time stamp precision")
            style["nanoseconds"] = precision == "nano"
        elif name == "-F":
            expression_file = value
        else:
            _one(made, name, value)
    if made.action:
        return made
    if int(str(style.get("time", 0))) > 5:
        raise BadOption("only -t, -tt, -ttt, -tttt and -ttttt are supported")
    made.style = Style(**style)  # type: ignore[arg-type]
    made.expression = _expression(expression_file) if expression_file else " ".join(rest)
    _check(made)
    return made


def bunri_printable(text: str) -> str:
    """A word of the command line in a message."""
    return text.encode("ascii", "backslashreplace").decode()[:60]


def _type(value: str) -> str:
    """-T."""
    wanted = value.lower()
    if wanted in _OTHER_TYPES:
        raise BadOption(f"-T {wanted} is not supported: there is no printer of it here")
    if wanted not in _TYPES:
        raise BadOption(f"unknown packet type `{bunri_printable(value)}'")
    return wanted


def _one(made: Options, name: str, value: str) -> None:
    """An option that is one field."""
    if name == "-D":
        made.action = "interfaces"
    elif name in ("-i", "-r", "-w"):
        if not value:
            raise BadOption(f": {'No such device exists' if name == '-i' else 'No such file or directory'}")
        setattr(made, {"-i": "interface", "-r": "read", "-w": "write"}[name], value)
    elif name == "-y":
        if number_of(value) is None:
            raise BadOption(f"invalid data link type {bunri_printable(value)}")
        made.link = value
    elif name in ("-Z", "--quarantine"):
        setattr(made, {"-Z": "user", "--quarantine": "quarantine"}[name], value)
    elif name == "-c":
        made.most = _number(value, "packet count", least=1)
    elif name == "-s":
        made.snap = _snap(value)
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
        direction = value.lower()
        if direction not in ("in", "out", "inout"):
            raise BadOption(f"unknown capture direction `{bunri_printable(value)}'")
        made.direction = "" if direction == "inout" else direction
    elif name == "-O":
        made.optimize = False
    elif name == "-p":
        made.promiscuous = False
    elif name not in _WITHOUT_EFFECT:
        switch = {
            "--count": "count", "-l": "line_buffered", "-U": "packet_buffered", "--print": "prints", "-L": "lists_links",
            "--immediate-mode": "immediate", "--self-confine": "self_confine",
        }[name]  # fmt: skip
        setattr(made, switch, True)


def _snap(value: str) -> int:
    """-s: in any of C's bases; 0 is the most there is."""
    digits = value.strip().removeprefix("+")
    digits = f"0o{digits}" if re.fullmatch("0[0-7]+", digits) else digits
    try:
        snap = int(digits, 0)
    except ValueError:
        snap = -1
    if not 0 <= snap <= MOST_CAPTURED:
        raise BadOption(f"invalid snaplen {bunri_printable(value)} (must be >= 0 and <= {MOST_CAPTURED})")
    return snap or MOST_CAPTURED


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
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_EXPRESSION + 1)
    except OSError as fault:
        asked = f"read {path}" if fault.errno == errno.EISDIR else f"can't open {path}"
        raise BadOption(f"{bunri_printable(asked)}: {fault.strerror}") from None
    if len(text) > _MOST_EXPRESSION:
        raise BadOption(f"{bunri_printable(path)} is too large")
    if b"\0" in text:
        raise BadOption(
            f"{bunri_printable(path)}: there is a NUL in the expression, behind which none of it would be read"
        )
    return os.fsdecode(re.sub(rb"#[^\n]*", b"", text))


def _check(made: Options) -> None:
    if made.write == "-" and (made.rotate_size or made.rotate_seconds):
        raise BadOption("-C and -G rotate the file that -w names; name one")
    if made.self_confine and (made.write or not made.style.numeric):
        raise BadOption("--self-confine prints, and asks nobody for names: add -n, leave -w out")
