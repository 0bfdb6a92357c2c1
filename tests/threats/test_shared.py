"""What workers share with others: brokers, and what is counted by user. Each attack and its control."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import owned
import plain
import pytest

import bunri
from bunri import fs
from bunri.confine import detect
from bunri.policy import Via

ROOT = os.getuid() == 0
SECRET = "s3cret"


def attack(code: str, *files: fs.FileGrant) -> str:
    """What the code gets in a worker with these grants: its result, the errno, or the death."""
    policy = owned.OwnedWithPaths.policy.with_(files=files)
    with owned.OwnedWithPaths.start_under(policy) as worker:
        try:
            return worker.run_code(code)
        except bunri.WorkerDied as died:
            return signal.Signals(died.exit.signal).name if died.exit.signal else str(died)


needs_broker = pytest.mark.skipif(
    not detect().seccomp_addfd, reason="this kernel cannot answer a call with a descriptor"
)


@pytest.fixture
def traps() -> Iterator[Path]:
    """A folder of the subject's, with names in it that lead to what is not his, as he could have made them."""
    top = Path(tempfile.mkdtemp(prefix="bunri-"))
    os.chmod(top, 0o711)
    folder, secret = top / "granted", top / "secret"
    folder.mkdir()
    os.chmod(folder, 0o777)
    secret.write_text(SECRET)
    os.chmod(secret, 0o600)
    os.link(secret, folder / "hard")
    (folder / "link").symlink_to("../secret")
    (folder / "magic").symlink_to("/proc/self/root/etc/passwd")
    os.mkfifo(folder / "fifo", 0o666)
    try:
        yield folder
    finally:
        shutil.rmtree(top)


# 11. A broker is asked for what its subject may not have -------------------------------------------------------------

_TRY = """
got = []
for name in NAMES:
    try:
        number = os.open(FOLDER + "/" + name, FLAGS)
        if FLAGS & os.O_WRONLY:
            os.write(number, b"owned")
        got.append(name)
    except OSError:
        pass
result = " ".join(got)
"""


def _try(folder: Path, names: tuple[str, ...], flags: int) -> str:
    return f"NAMES, FOLDER, FLAGS = {names!r}, {str(folder)!r}, {flags}\n{_TRY}"


@needs_broker
def test_threat_11_attack(traps: Path) -> None:
    grant = fs.write(traps, via=Via.BROKER)
    ways_out = ("link", "magic", "fifo", "../secret", "..", ".", "/etc/passwd")
    assert attack(_try(traps, ways_out, os.O_RDONLY), grant) == ""
    assert attack(_try(traps, (*ways_out, "hard"), os.O_WRONLY), grant) == ""
    if ROOT:  # the broker is the subject, and the file is root's
        assert attack(_try(traps, ("hard",), os.O_RDONLY), grant) == ""
    assert (traps.parent / "secret").read_text() == SECRET


def test_threat_11_control(traps: Path) -> None:
    """The same names opened without such a broker, by whoever holds the rights."""
    assert plain.run(_try(traps, ("link", "magic", "../secret", "hard"), os.O_RDONLY)) == "link magic ../secret hard"
    assert plain.run(_try(traps, ("hard",), os.O_WRONLY)) == "hard"
    assert (traps.parent / "secret").read_text() == "owned" + SECRET[5:]


# 17. A broker is parked ----------------------------------------------------------------------------------------------

_NEVER = """
seen = {call("openat", -100, ctypes.c_void_p(8), 0) for _ in range(200)}
result = " ".join(sorted(seen))
"""


@needs_broker
def test_threat_17_attack(traps: Path) -> None:
    """A page that never comes is refused at once; what would hold it back is death; and a neighbour is served."""
    grant = fs.read(traps, via=Via.BROKER)
    assert attack("result = call('userfaultfd', 1)", grant) == "SIGSYS"
    assert attack(_NEVER, grant) == "EFAULT"
    (traps / "mine").write_text("served")
    os.chmod(traps / "mine", 0o644)
    policy = owned.OwnedWithPaths.policy.with_(files=[grant])
    with owned.OwnedWithPaths.start_under(policy) as flood, owned.OwnedWithPaths.start_under(policy) as neighbour:
        path = str(traps / "mine")
        asks = bunri.call(flood.run_code, f"while True:\n    os.access({path!r}, 4)")
        read = f"result = os.read(os.open({path!r}, 0), 9).decode()"
        assert [neighbour.run_code(read) for _ in range(20)] == ["served"] * 20
        os.kill(flood.process.pid, signal.SIGSTOP)  # in the middle of a call, perhaps
        assert [neighbour.run_code(read) for _ in range(20)] == ["served"] * 20
        asks.cancel()


def test_threat_17_control() -> None:
    got = plain.run("result = call('userfaultfd', 1)")  # 1: for faults of its own only, as everybody may
    if got == "EINVAL":
        pytest.skip("this kernel is older than UFFD_USER_MODE_ONLY")
    assert got == "ok"


# 30. Memory that no limit of a process counts ------------------------------------------------------------------------

_MEMORY = """
reader, writer = -1, -1
result = " ".join([
    call("memfd_create", b"x", 0),
    call("shmget", 0, ctypes.c_size_t(1 << 20), 0o1600),
    call("fcntl", PIPE, 1031, 1 << 20),
])
"""


def test_threat_30_attack() -> None:
    assert attack(_MEMORY.replace("PIPE", "1")) == "EPERM EPERM EPERM"
    grow = "x = bytearray(400_000_000); result = 'took it'"
    with owned.OwnedWithPaths.start_under(owned.OwnedWithPaths.policy.with_(files=[])) as worker:
        with pytest.raises(bunri.RemoteError, match="MemoryError"):
            worker.run_code(grow)


_HUGE = """
libc.mmap.restype = ctypes.c_void_p
ctypes.set_errno(0)
found = libc.mmap(None, 1 << 21, 3, 0x40022, -1, 0)  # MAP_HUGETLB, private and anonymous
result = errno.errorcode[ctypes.get_errno()] if found == ctypes.c_void_p(-1).value else "mapped"
"""


def test_threat_30_huge_pages_are_the_hosts() -> None:
    """Their pool is small and everybody's; a control group of memory does not count them."""
    assert attack(_HUGE) == "EPERM"


def test_threat_30_control_of_huge_pages() -> None:
    assert plain.run(_HUGE) in ("mapped", "ENOMEM")  # as many as the pool has, which is none on most hosts


def test_threat_30_control() -> None:
    code = _MEMORY.replace("reader, writer = -1, -1", "reader, writer = os.pipe()").replace("PIPE", "writer")
    assert plain.run(code + "\nlibc.shmctl(libc.shmget(0, 1, 0), 0, None)") == "ok ok ok"
    assert plain.run("x = bytearray(400_000_000); result = 'took it'") == "took it"


# 32. What the kernel counts by user ----------------------------------------------------------------------------------

_COUNTED = """
result = " ".join([
    call("inotify_init1", 0),
    call("mq_open", b"bunri", os.O_CREAT | os.O_RDWR, 0o600, None),
    call("rt_sigqueueinfo", os.getpid(), 17, (ctypes.c_char * 128)()),
    call("epoll_create1", 0),
    call("signalfd4", -1, (ctypes.c_char * 8)(), 8, 0),
])
"""


def test_threat_32_attack() -> None:
    assert attack(_COUNTED) == " ".join(["EPERM"] * 5)
    hoard = "made = 0\nwhile call('clone', 17, 0, 0, 0, 0) == 'ok': made += 1\nresult = made"
    policy = owned.OwnedWithPaths.policy.with_(files=[])
    with owned.OwnedWithPaths.start_under(policy) as hoarder:
        assert hoarder.run_code(hoard) == "0"
        with owned.OwnedWithPaths.start_under(policy) as neighbour:
            assert neighbour.run_code("result = 'lives'") == "lives"


def test_threat_32_control() -> None:
    found = plain.run(_COUNTED + "\nlibc.mq_unlink(b'bunri')").split()
    assert found[0] == found[3] == found[4] == "ok"


# 33. The disk --------------------------------------------------------------------------------------------------------

_FILL = """
written = 0
number = os.open(PLACE + "/file", os.O_CREAT | os.O_WRONLY, 0o600)
try:
    while written < 8 << 20:
        written += os.write(number, bytes(1 << 16))
except OSError as fault:
    pass
files = 0
try:
    while files < 3000:
        os.close(os.open(f"{PLACE}/{files}", os.O_CREAT | os.O_WRONLY, 0o600))
        files += 1
except OSError:
    pass
result = f"{written <= 1 << 20} {files < 1000}"
"""


def test_threat_33_attack() -> None:
    assert attack("PLACE = '/tmp'\n" + _FILL, fs.scratch("/tmp", "1M")) == "True True"


def test_threat_33_control(tmp_path: Path) -> None:
    assert plain.run(f"PLACE = {str(tmp_path)!r}\n" + _FILL) == "False False"
