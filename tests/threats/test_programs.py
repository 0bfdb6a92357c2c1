"""Programs, whose filter is a broad one: what they must not do with what they were given. Each attack, and its control: the same
program without bunri."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import owned
import pytest

import bunri
from bunri import User, fs, net
from bunri.confine import detect

# The system's own: the interpreter of a virtual environment may lie where nothing is granted.
PYTHON = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if os.access(path, os.X_OK)), "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="the attacks are programs in Python, and there is none in /usr")

_TRY = """
import ctypes, errno, fcntl, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what):
    try:
        return "ok" if what() != -1 else errno.errorcode[ctypes.get_errno()]
    except OSError as fault:
        return errno.errorcode[fault.errno]
"""


def confined(
    code: str,
    *files: fs.FileGrant,
    stdin: int | None = None,
    syscalls: tuple[str, ...] = (),
    network: Sequence[net.NetGrant] = (),
) -> str:
    """What the program prints under the policy that `bunri run` has, as the very user who starts it."""
    policy = bunri.Policy(
        files=[fs.system(), *files],
        network=network,
        user=User.same(),
        processes=4,
        syscalls=syscalls,
        may_miss=[bunri.Promise.MEMORY],
    )
    reader, writer = os.pipe()
    with os.fdopen(reader) as told:
        try:
            process = bunri.spawn([PYTHON, "-c", _TRY + code], policy, stdin=stdin, stdout=writer, stderr=writer)
        finally:
            os.close(writer)
        found = told.read().strip()
        process.wait()
    return found


def plain(code: str, *, stdin: int | None = None) -> str:
    """The control."""
    done = subprocess.run(
        [PYTHON, "-c", _TRY + code], stdin=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip() + done.stderr.strip()


# 2. Ways to make a socket without socket() ---------------------------------------------------------------------------

_PAIRS = """
kinds = [(socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_RAW), (30, socket.SOCK_STREAM)]
print([attempt(lambda: libc.syscall(NUMBER, family, kind | socket.SOCK_CLOEXEC, 0, (ctypes.c_int * 2)())) for family, kind in kinds])
""".replace("NUMBER", str(owned.NUMBERS["socketpair"]))  # 30: AF_TIPC, which speaks to other machines


def test_threat_02_pairs_are_streams() -> None:
    assert confined(_PAIRS) == "['EPERM', 'EPERM', 'EPERM']"
    assert confined(_PAIRS, syscalls=("@stdio",)) == "['EPERM', 'EPERM', 'EPERM']"
    fine = "socket.socketpair(); socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); print('made')"
    assert confined(fine) == "made"


def test_threat_02_control_of_pairs() -> None:
    assert plain(_PAIRS).startswith("['ok', 'ok',")  # whether there is TIPC is the host's affair


# TCP's fast open: a send that connects. What was granted is one port, and the socket is of the broker's network.

_FAST = """
def fast(send):
    with socket.socket() as s:
        return send(s) and None
for send in (
    lambda s: s.sendto(b"from inside", 0x20000000, ("127.0.0.1", PORT)),
    lambda s: s.sendmsg([b"from inside"], [], 0x20000000, ("127.0.0.1", PORT)),
):
    print(attempt(lambda: fast(send)))
"""
FAST_HERE = pytest.mark.skipif(
    not int(Path("/proc/sys/net/ipv4/tcp_fastopen").read_text()) & 1, reason="net.ipv4.tcp_fastopen is off"
)


@FAST_HERE
@pytest.mark.skipif(not detect().seccomp_addfd, reason="this kernel cannot answer a call with a descriptor")
@pytest.mark.parametrize("syscalls", [(), ("sendto", "sendmsg"), ("@stdio",)], ids=["", "granted", "group"])
def test_threat_02_no_send_connects(syscalls: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as granted, socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.5)
        port: int = other.getsockname()[1]
        grant = net.connect("127.0.0.1", granted.getsockname()[1])
        assert confined(_FAST.replace("PORT", str(port)), network=[grant], syscalls=syscalls) == "EPERM\nEPERM"
        with pytest.raises(TimeoutError):
            other.accept()


@FAST_HERE
def test_threat_02_control_of_sends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert plain(_FAST.replace("PORT", str(other.getsockname()[1]))) == "ok\nok"
        for _ in range(2):
            peer, _ = other.accept()
            with peer:
                assert peer.recv(100) == b"from inside"


# A socket of the host's network tells of its interfaces.

_INTERFACES = """
with socket.socket() as s:
    print(attempt(lambda: fcntl.ioctl(s, 0x8933, struct.pack("16s16x", b"lo")) and None))
"""


@pytest.mark.skipif(not detect().seccomp_addfd, reason="this kernel cannot answer a call with a descriptor")
def test_threat_02_a_brokered_socket_tells_of_no_interface() -> None:
    assert confined(_INTERFACES, network=[net.connect("127.0.0.1", 9)]) == "EPERM"


def test_threat_02_control_of_interfaces() -> None:
    assert plain(_INTERFACES) == "ok"


# 13. Unix sockets that lie in what may be read -----------------------------------------------------------------------


@pytest.fixture
def daemon() -> Iterator[tuple[Path, socket.socket]]:
    """A folder, and in it the socket of something that listens: of a log, say."""
    folder = Path(tempfile.mkdtemp(prefix="bunri-"))
    os.chmod(folder, 0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "log"))
        os.chmod(folder / "log", 0o777)
        listener.setblocking(False)
        yield folder, listener
    shutil.rmtree(folder)


_SEND = """
try:
    ours, _ = socket.socketpair(socket.AF_UNIX, KIND)
    ours.sendto(b"from inside", "FOLDER/log")
    ours.sendmsg([b"from inside"], [], 0, "FOLDER/log")
except OSError as fault:
    print(errno.errorcode[fault.errno])
"""


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_STREAM", "SOCK_SEQPACKET"])
def test_threat_13_a_pair_does_not_reach_a_daemon(kind: str, daemon: tuple[Path, socket.socket]) -> None:
    folder, listener = daemon
    confined(_SEND.replace("KIND", f"socket.{kind}").replace("FOLDER", str(folder)), fs.read(folder))
    with pytest.raises(BlockingIOError):
        listener.recv(100)


def test_threat_13_control_of_pairs(daemon: tuple[Path, socket.socket]) -> None:
    folder, listener = daemon
    assert plain(_SEND.replace("KIND", "socket.SOCK_DGRAM").replace("FOLDER", str(folder))) == ""
    assert listener.recv(100) == b"from inside"


# 12. A stream that is there to be read -------------------------------------------------------------------------------

_CHANGES = """
print([attempt(what) for what in (
    lambda: os.fchmod(0, 0o777),
    lambda: os.utime(0, (1, 1)),
    lambda: libc.utimensat(0, b"", None, 0x1000),
    lambda: os.setxattr(0, b"user.owned", b"x"),
    lambda: fcntl.ioctl(0, 0x40086602, struct.pack("l", 0x80)),
    lambda: fcntl.fcntl(0, fcntl.F_SETLEASE, fcntl.F_RDLCK),
    lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid()),
    lambda: fcntl.fcntl(os.open("/usr", os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_CREATE),
)])
"""


@pytest.fixture
def mine() -> Iterator[Path]:
    """A file of the user who starts the program."""
    folder = Path(tempfile.mkdtemp(prefix="bunri-", dir="/var/tmp"))
    path = folder / "file"
    path.write_text("content")
    path.chmod(0o600)
    yield path
    shutil.rmtree(folder)


def test_threat_12_a_stream_is_read_and_no_more(mine: Path) -> None:
    before = mine.stat()
    with mine.open("rb") as file:
        assert confined(_CHANGES, stdin=file.fileno()) == str(["EPERM"] * 8)
    after = mine.stat()
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)


def test_threat_12_control_of_streams(mine: Path) -> None:
    with mine.open("rb") as file:
        found = plain(_CHANGES, stdin=file.fileno()).strip("[]").split(", ")
    assert found[:3] == ["'ok'"] * 3
    assert found[5:] == ["'ok'"] * 3  # attributes are not on every file system
    assert mine.stat().st_mode & 0o777 == 0o777


# 15. Kernel code that no ordinary program asks for -------------------------------------------------------------------

_ODD = """
ours, theirs = socket.socketpair()
print([attempt(what) for what in (
    lambda: os.pipe2(0o200),
    lambda: ours.send(b"x", socket.MSG_OOB),
    lambda: ours.sendmsg([b"x"], [], socket.MSG_OOB),
    lambda: theirs.recv(1, socket.MSG_OOB),
    lambda: fcntl.ioctl(0, 0x5423, struct.pack("i", 0)),
    lambda: fcntl.ioctl(ours, 0x8901, struct.pack("i", os.getpid())) and None,
)])
"""


def test_threat_15_line_disciplines_watch_queues_and_urgent_bytes() -> None:
    assert confined(_ODD) == str(["EPERM"] * 6)


def test_threat_15_control_of_odd_calls() -> None:
    ours, theirs = os.openpty()
    try:
        found = plain(_ODD, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert found in (str(["ok"] * 6), str(["ENOPKG", *["ok"] * 5]))  # not every kernel has watch queues
