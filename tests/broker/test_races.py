"""What changes while the broker looks: the path in memory, a link, a folder. Never once is the wrong file opened.

BUNRI_RACES sets the number of tries; 100000 is the figure that is reported.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import brokered
import pytest

from bunri import User, Via, fs
from bunri.kernel import notify, prctl, seccomp
from bunri.seccomp import Action
from bunri.seccomp import compile as compile_filter
from bunri.seccomp import notify as notified

TRIES = int(os.environ.get("BUNRI_RACES", "4000"))
RENAME_EXCHANGE = 2

# The second thread changes the path without end; the first opens it, and reads what it got.
_FLIP = """
good, bad = GOOD.encode(), BAD.encode()
assert len(good) == len(bad)
path = ctypes.create_string_buffer(good)
stop = []
def flip():
    while not stop:
        ctypes.memmove(path, bad, len(bad))
        ctypes.memmove(path, good, len(good))
threading.stack_size(262144)
thread = threading.Thread(target=flip)
thread.start()
seen = {'granted': 0, 'secret': 0, 'refused': 0}
libc.open.restype = ctypes.c_int
for _ in range(TRIES):
    fd = libc.open(path, 0)
    if fd < 0:
        seen['refused'] += 1
        continue
    seen[os.read(fd, 100).decode().strip()] += 1
    os.close(fd)
stop.append(1)
thread.join()
result = [seen['granted'], seen['secret'], seen['refused']]
"""


def flipping(good: Path, bad: Path, tries: int) -> str:
    return _FLIP.replace("GOOD", repr(str(good))).replace("BAD", repr(str(bad))).replace("TRIES", str(tries))


@pytest.fixture
def twins(granted: Path) -> tuple[Path, Path]:
    """A granted file and a secret, with paths of one length."""
    other = granted.parent / "another"
    other.mkdir()
    (other / "file").write_text("secret\n")
    for path, mode in ((other, 0o755), (other / "file", 0o644)):
        os.chmod(path, mode)
    return granted / "file", other / "file"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_path_that_flips_in_memory_is_never_opened_as_what_it_became(twins: tuple[Path, Path]) -> None:
    good, bad = twins
    policy = brokered.Brokered.policy.with_(
        files=[fs.read(str(good.parent), via=Via.BROKER)], user=User.dynamic(), threads=1, cpu=None
    )
    left = TRIES
    got = [0, 0, 0]
    until = time.monotonic() + 60  # on a busy host the path may stand still for as long as all tries take
    with brokered.Brokered.start_under(policy) as worker:
        while left > 0 or (not (got[0] and got[2]) and time.monotonic() < until):
            some = min(max(left, 1000), 5000)
            found = worker.run_code(flipping(good, bad, some))
            got = [one + int(more) for one, more in zip(got, found.strip("[]").split(","), strict=True)]
            left -= some
    print(f"{TRIES} tries: {got[0]} granted, {got[1]} of the secret, {got[2]} refused")
    assert got[1] == 0
    assert got[0] > 0
    assert got[2] > 0  # the flipping was seen


@pytest.mark.slow
def test_control_where_the_call_goes_on_the_flip_gets_through(twins: tuple[Path, Path]) -> None:
    """The same against a supervisor that looks at the path and then lets the call go on."""
    good, bad = twins
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_watched(writer, flipping(good, bad, 4000))
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        listener = _take(pid, int(told.readline()))
        naive = threading.Thread(target=_look_and_go_on, args=(listener, pid, str(good).encode()))
        naive.start()
        found = told.read().decode()
    os.waitpid(pid, 0)
    naive.join()
    os.close(listener)
    assert int(found.strip("[]").split(",")[1]) > 0, found


def _be_watched(writer: int, code: str) -> None:
    try:
        prctl.set_no_new_privs()
        rules = [notified("open", "openat", reason="looked at")]
        filter_ = compile_filter(rules, arch=os.uname().machine, default=Action.ALLOW)
        code_ = filter_.to_bytes()
        listener = seccomp.set_filter(code_, seccomp.FLAG_NEW_LISTENER)
        os.write(writer, b"%d\n" % listener)
        os.write(writer, brokered.run(code).encode())
    finally:
        os._exit(0)


def _take(pid: int, number: int) -> int:
    pidfd = os.pidfd_open(pid)
    try:
        from bunri.kernel import pidfd as pidfds

        return pidfds.get_fd(pidfd, number)
    finally:
        os.close(pidfd)


def _look_and_go_on(listener: int, pid: int, granted: bytes) -> None:
    """What a broker must never do."""
    import select

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        while poll.poll()[0][1] & select.POLLIN:
            called = notify.receive(listener)
            if called is None:
                continue
            memory.seek(called.args[1])
            path = memory.read(len(granted))
            time.sleep(0.0001)  # a moment on a host with work to do
            answer = (0, 0, 1) if not path.startswith(b"/tmp/bunri-test") or path == granted else (0, -13, 0)
            try:
                fcntl.ioctl(listener, 0xC0182101, struct.pack("=QqiI", called.id, *answer))
            except FileNotFoundError:
                continue


@contextmanager
def exchanging(*pairs: tuple[Path, Path]) -> Generator[None]:
    """Others change the names in the granted folder without end, each pair in one step."""
    libc = ctypes.CDLL(None)
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            for one, other in pairs:
                libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("grant", [fs.read, fs.write])
def test_links_and_folders_that_change_places_never_lead_out(granted: Path, grant: object) -> None:
    """A file and a link to the secret, a folder and a link upwards, change places while the worker opens them."""
    (granted / "link").symlink_to("../secret")
    (granted / "way").mkdir()
    (granted / "way" / "file").write_text("granted\n")
    (granted / "up").symlink_to("..")
    (granted.parent / "file").write_text("secret\n")
    user = User.dynamic()
    if os.getuid() == 0:
        for path in (granted, *granted.rglob("*"), granted.parent / "file", granted.parent / "secret"):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        user = User.ids(65534, 65534)
    made = grant(str(granted), via=Via.BROKER)  # type: ignore[operator]
    policy = brokered.Brokered.policy.with_(files=[made], user=user, threads=0, cpu=None)
    code = f"""
seen = {{'granted': 0, 'secret': 0, 'refused': 0}}
for number in range({max(1, TRIES // 4)}):
    try:
        with open({str(granted)!r} + ('/file', '/way/file')[number % 2]) as file: seen[file.read().strip()] += 1
    except OSError: seen['refused'] += 1
result = [seen['granted'], seen['secret'], seen['refused']]
"""
    with (
        brokered.Brokered.start_under(policy) as worker,
        exchanging((granted / "file", granted / "link"), (granted / "way", granted / "up")),
    ):
        good = bad = refused = 0
        until = time.monotonic() + 60  # on a busy host the names may stand still for as long as all tries take
        while not (good and refused) and not bad and time.monotonic() < until:
            seen = map(int, worker.run_code(code).strip("[]").split(","))
            good, bad, refused = (sum(each) for each in zip((good, bad, refused), seen, strict=True))
    assert bad == 0
    assert good > 0
    assert refused > 0
