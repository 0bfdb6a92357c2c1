"""Each rule of THREATS: the attack, done in a worker and refused; and the control, which shows that it works where the rule is missing."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import owned
import owned_same
import plain
import pytest

import bunri
from bunri.kernel import memfd
from bunri.process import program
from bunri.wire.frames import FrameKind, pack

KILLED = "SIGSYS"
ROOT = os.getuid() == 0


def attack(code: str) -> str:
    """What the code gets in a worker of its own: its result, the errno, or the death."""
    with owned.Owned.start() as worker:
        try:
            return worker.run_code(code)
        except bunri.WorkerDied as died:
            return signal.Signals(died.exit.signal).name if died.exit.signal else str(died)


def raw(message: bytes, *, wait: float = 0.0, worker_class: type[owned.Owned] = owned.Owned) -> str:
    """A worker that speaks the wire by hand: the death that follows."""
    code = f"os.write(3, {message!r}); time.sleep({wait}); result = 'alive'"
    with worker_class.start() as worker:
        with pytest.raises(bunri.WorkerDied) as caught, bunri.deadline(10):
            worker.run_code(code)
        assert isinstance(caught.value.__cause__, bunri.ProtocolError), caught.value
        return str(caught.value)


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """A client, the accepted end, and the port of another listener."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        with socket.create_connection(first.getsockname()) as client:
            accepted, _ = first.accept()
            with accepted:
                yield client, accepted, second.getsockname()[1]


# 1. Directories ------------------------------------------------------------------------------------------------------


def test_threat_01_attack() -> None:
    folder = os.open("/usr", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(bunri.UsageError, match="directory"):
            bunri.File(folder)
    finally:
        os.close(folder)
    assert attack("result = os.open('/../../etc/passwd', 0)") in ("EPERM", "ENOENT", "EACCES")
    assert attack("result = [n for n in range(64) if call('fchdir', n) == 'ok']") in ("[]", KILLED)


def test_threat_01_control() -> None:
    code = "d = os.open('/usr/lib', os.O_DIRECTORY); result = os.path.exists('/etc/passwd') and os.open('../../etc/passwd', 0, dir_fd=d) > 0"
    assert plain.run(code) == "True"


# 2. Handed sockets ---------------------------------------------------------------------------------------------------

_RECONNECT = """
address = (ctypes.c_char * 16).from_buffer_copy(struct.pack("=H14x", 0))
libc.connect(peer.fileno(), address, 16)
peer.connect(("127.0.0.1", PORT))
result = "connected elsewhere"
"""


def test_threat_02_attack(connected: tuple[socket.socket, socket.socket, int]) -> None:
    _, accepted, port = connected
    with owned.OwnedWithSocket.start(accepted) as worker:
        assert worker.run_code(_RECONNECT.replace("PORT", str(port))) == "EPERM"
        assert worker.run_code("peer.bind(('127.0.0.1', 0)); result = 'bound'") == "EPERM"
        assert worker.run_code("peer.listen(); result = 'listens'") == "EPERM"
        assert worker.run_code("socket.socket(); result = 'made'") == "EPERM"
        assert worker.run_code(f"peer.sendto(b'x', ('127.0.0.1', {port})); result = 'sent'") == "EPERM"
        assert worker.run_code("peer.send(b'x', socket.MSG_OOB); result = 'sent'") == "EPERM"
        assert worker.run_code("peer.sendall(b'fine'); result = 'sent'") == "sent"


def test_threat_02_control(connected: tuple[socket.socket, socket.socket, int]) -> None:
    _, accepted, port = connected
    assert owned.run(_RECONNECT.replace("PORT", str(port)), peer=accepted) == "connected elsewhere"


# 3. A worker belongs to one principal --------------------------------------------------------------------------------

_POISON = "os.environ['owned'] = 'by A'; result = 'done'"
_LOOK = "result = os.environ.get('owned')"


def test_threat_03_attack() -> None:
    with owned.Owned.pool(1) as pool:
        pool.run_code(_POISON)
        assert pool.run_code(_LOOK) == "None"


def test_threat_03_control() -> None:
    with owned.Hoarder.pool(1) as pool:
        pool.run_code(_POISON)
        assert pool.run_code(_LOOK) == "by A"


# 4. One uid separates nothing ----------------------------------------------------------------------------------------


def test_threat_04_attack() -> None:
    me = os.getpid()
    assert attack(f"os.kill({me}, 0); result = 'signalled'") in ("EPERM", "ESRCH")
    assert attack(f"result = call('prlimit64', {me}, 7, 0, 0)") == "EPERM"
    assert attack(f"result = call('setpriority', 0, {me}, 5)") == "EPERM"
    for name in ("ptrace", "process_vm_readv", "pidfd_getfd", "kcmp"):
        assert attack(f"result = call({name!r}, 16, {me}, 0, 0, 0)") in (KILLED, "EPERM")
    assert attack(f"result = call('pidfd_open', {me}, 0)") in (KILLED, "EPERM")


def test_threat_04_control() -> None:
    me = os.getpid()
    assert plain.run(f"os.kill({me}, 0); result = 'signalled'") == "signalled"
    assert plain.run(f"result = call('pidfd_open', {me}, 0)") == "ok"


# 5. No descriptor that was not passed --------------------------------------------------------------------------------

_OPEN = """
found = []
for n in range(4096):  # a test process has some hundred, for its zygotes and spare workers
    try:
        fcntl.fcntl(n, fcntl.F_GETFD)
        found.append(n)
    except OSError:
        pass
result = found
"""


def test_threat_05_attack(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        assert attack(_OPEN) == "[0, 1, 2, 3]"


def test_threat_05_control(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        assert str(file.fileno()) in plain.run(_OPEN, close_fds=False)


# 6. Looked at from outside -------------------------------------------------------------------------------------------


def test_threat_06_attack() -> None:
    import liar

    with pytest.raises(bunri.HostError, match="from outside"), liar.Liar.start() as worker:
        worker.uid()


def test_threat_06_control(monkeypatch: pytest.MonkeyPatch) -> None:
    import liar

    from bunri.confine import Look, Part
    from bunri.process import life

    if not program.current().host.reads_not_dumpable:
        pytest.skip("a worker that does not wait to be looked at is refused here before anybody looks")
    monkeypatch.setattr(life, "look", lambda pid, expected, part, sight: Look(Part.LATE, ()))
    with liar.Liar.start() as worker:
        worker.uid()  # nobody looked, so it runs, unconfined
        assert (Path("/proc") / str(worker.process.pid) / "status").read_text().count("Seccomp:\t2") <= 1


# 7. The zygote ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not ROOT, reason="only a root monitor has rights that a zygote could keep")
def test_threat_07_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owned.Zygote.start() as worker:
        uid, reads_shadow = worker.tell().split()
    assert uid != "0"
    assert reads_shadow == "False"
    os.chmod(tmp_path, 0o777)  # anybody may plant a module here
    from bunri.process import paths

    with pytest.raises(bunri.UsageError, match=str(tmp_path)):
        paths.refuse_writable_by_others((str(tmp_path),))


@pytest.mark.skipif(not ROOT, reason="only a root monitor has rights that a zygote could keep")
def test_threat_07_control(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("import os\nprint(os.getuid(), os.access('/etc/shadow', os.R_OK))\n")
    done = subprocess.run(
        [sys.executable, "-c", "import planted"], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["0", "True"]


# 8. One memory layout --------------------------------------------------------------------------------------------------


def test_threat_08_attack() -> None:
    code = "result = random.random()"
    assert attack(code) != attack(code)


def test_threat_08_crashes_end_in_a_fresh_layout() -> None:
    with owned.Owned.start() as worker:
        worker.run_code("result = 1")
    first = program.current()._roles["owned"]
    for _ in range(program.DEATHS):
        assert attack("ctypes.string_at(8)") == "SIGSEGV"
    attack("result = 1")
    assert program.current()._roles["owned"] is not first
    assert program.current().held_back("owned") > 0


def test_threat_08_crashes_of_one_layout_end_it_once() -> None:
    """However many workers it still has: their deaths hold nobody up twice."""
    workers = [owned.Owned.start() for _ in range(3 * program.DEATHS)]
    before = program.current()._back_off.get("owned", 0)
    for worker in workers:
        with pytest.raises(bunri.WorkerDied, match="SIGSEGV"):
            worker.run_code("ctypes.string_at(8)")
    assert program.current()._back_off["owned"] == before + 1


def test_threat_08_control() -> None:
    """In a process without threads, as templates are."""
    code = """
from bunri.kernel import clone
random.seed(1)
values = []
for _ in range(2):
    reader, writer = os.pipe()
    pid, pidfd = clone.clone_process()  # as templates do: Python's own fork would reseed
    if pid == 0:
        os.write(writer, struct.pack("d", random.random()))
        os._exit(0)
    os.waitpid(pid, 0)
    values.append(os.read(reader, 8))
result = (len(values[0]), values[0] == values[1])
"""
    assert plain.run(code) == "(8, True)"


# 9. Namespaces of their own --------------------------------------------------------------------------------------------


def test_threat_09_attack() -> None:
    for name in ("shmget", "msgget", "mq_open"):
        assert attack(f"result = call({name!r}, 0x6275, 4096, 0o1666)") in ("EPERM", KILLED)
    with owned.Owned.start() as one, owned.Owned.start() as two:
        for name in ("pid", "mnt", "ipc"):
            layer = one.process.report.layer(
                "pid namespace" if name == "pid" else "mount namespace" if name == "mnt" else "ipc namespace"
            )
            if layer.state is bunri.State.MISSING:
                continue
            links = []
            for worker in (one, two):
                try:
                    links.append(os.readlink(f"/proc/{worker.process.pid}/ns/{name}"))
                except PermissionError:
                    pytest.skip("this user may not read the namespaces of its own workers")
            assert links[0] != links[1]


def test_threat_09_control() -> None:
    key = 0x62000000 + os.getpid()  # tests that run beside these make their own
    made = plain.run(f"result = libc.shmget({key}, 4096, 0o1666)")
    try:
        assert int(made) >= 0
        assert plain.run(f"result = libc.shmget({key}, 4096, 0o666)") == made  # the neighbour has it
    finally:
        plain.run(f"libc.shmctl({made}, 0, 0); result = 1")


# 10. Limits survive deaths ---------------------------------------------------------------------------------------------


class Guarded(owned.Guarded):
    def guess(self, word: str) -> bool:
        return False

    def free(self, word: str) -> bool:
        return False


def test_threat_10_attack() -> None:
    guarded = Guarded()
    with owned.OwnedWithService.start(guarded) as worker:
        assert worker.guess(3) == 3
        with pytest.raises(bunri.WorkerDied, match="its limit is 3"):
            worker.guess(1)
    with owned.OwnedWithService.start(guarded) as again, pytest.raises(bunri.WorkerDied, match="its limit is 3"):
        again.guess(1)


def test_threat_10_control() -> None:
    with owned.OwnedWithService.start(Guarded()) as worker:
        assert worker.free(50) == 50


# 12. A read-only File is only that -------------------------------------------------------------------------------------

_MISUSE = {
    "fchmod": "os.fchmod(FD, 0o777); result = 'done'",
    "fchown": "os.fchown(FD, -1, -1); result = 'done'",
    "utimes": "os.utime(FD, (1, 1)); result = 'done'",
    "setxattr": "os.setxattr(FD, 'user.x', b'1'); result = 'done'",
    "flock": "fcntl.flock(FD, fcntl.LOCK_EX | fcntl.LOCK_NB); result = 'done'",
    "owner": "fcntl.fcntl(FD, fcntl.F_SETOWN, os.getpid()); result = 'done'",
    "write": "os.write(FD, b'x'); result = 'done'",
    "reopen": "os.open(f'/proc/self/fd/{FD}', os.O_RDWR); result = 'done'",
}


@pytest.mark.parametrize("name", list(_MISUSE))
def test_threat_12_attack(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    before = path.stat()
    with bunri.File.open(path) as file:
        os.lseek(file.fileno(), 3, os.SEEK_SET)
        with owned.OwnedWithFile.start(file) as worker:
            got = worker.run_code("FD = file.fileno()\n" + _MISUSE[name])
            worker.run_code("os.lseek(file.fileno(), 5, 0)")
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 3  # its offset is its own
    assert got in ("EPERM", "EBADF", "ENOENT", "EACCES"), got
    assert (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime) == (
        b"content",
        before.st_mode,
        before.st_mtime,
    )


def test_threat_12_control(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with bunri.File.open(path) as file:
        assert owned.run(f"FD = {file.fileno()}\n" + _MISUSE["fchmod"]) == "done"
        assert owned.run(f"FD = {file.fileno()}\n" + _MISUSE["reopen"]) == "done"
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


_ATTRIBUTES = """
got = []
for change in (
    lambda: os.fchmod(FD, 0o777),
    lambda: os.utime(FD, (1, 1)),
    lambda: call("utimensat", FD, b"", None, 0x1000) == "ok" or os.close(-1),
):
    try:
        change()
        got.append("done")
    except OSError:
        got.append("refused")
number = os.open(OWN + "/x", os.O_CREAT, 0o600)
os.chmod(OWN + "/x", 0o640)
os.utime(OWN + "/x", (1, 1))
result = " ".join(got)
"""


def test_threat_12_what_may_be_changed_is_named(tmp_path: Path) -> None:
    """One who may change files of a folder may not change others by their descriptors."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    before = path.stat()
    with bunri.File.open(path) as file, owned_same.OwnedAsSelf.start(file) as worker:
        assert worker.run_code("FD, OWN = file.fileno(), '/own'" + _ATTRIBUTES) == "refused refused refused"
    assert (path.stat().st_mode, path.stat().st_mtime) == (before.st_mode, before.st_mtime)


def test_threat_12_control_of_attributes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with bunri.File.open(path) as file:
        assert owned.run(f"FD, OWN = {file.fileno()}, {str(tmp_path)!r}" + _ATTRIBUTES) == "done done done"


# 13. Unix sockets ------------------------------------------------------------------------------------------------------

_DIAL = "s = socket.socket(socket.AF_UNIX); s.connect('PATH'); result = 'connected'"


def test_threat_13_attack() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        listener.listen()
        assert attack(_DIAL.replace("PATH", f"{folder}/s")) == "EPERM"
        assert attack("socket.socketpair(); result = 'made'") == "EPERM"


def test_threat_13_control() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        listener.listen()
        assert plain.run(_DIAL.replace("PATH", f"{folder}/s")) == "connected"


# 14. Write, then execute -----------------------------------------------------------------------------------------------

_RWX = "m = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7); result = 'mapped'"
_MPROTECT = "libc.mmap.restype = ctypes.c_void_p; p = libc.mmap(None, 4096, 3, 0x22, -1, 0); result = call('mprotect', ctypes.c_void_p(p), 4096, 5)"


def test_threat_14_attack() -> None:
    assert attack(_RWX) in ("EPERM", "EACCES")
    assert attack(_MPROTECT) in ("EPERM", "EACCES")
    assert attack("os.memfd_create('x'); result = 'made'") == "EPERM"
    assert attack("os.execv('/bin/true', ['true'])") in ("EPERM", "ENOENT")
    assert attack("result = call('execveat', 0, b'', 0, 0, 0x1000)") in ("EPERM", KILLED)
    assert attack("result = call('personality', 0x400000)") in ("EPERM", KILLED)


def test_threat_14_control() -> None:
    assert plain.run(_RWX) == "mapped"
    assert plain.run(_MPROTECT) == "ok"
    assert plain.run("os.memfd_create('x'); result = 'made'") == "made"


# 16. confine in a living program ---------------------------------------------------------------------------------------

_CONFINE = """
import sys, threading, time
sys.path[:0] = {path!r}
import bunri
{before}
try:
    bunri.confine(bunri.Policy(may_miss=[bunri.Promise.PROCESSES]))  # before Linux 6.12 nothing bounds its signals
except bunri.UsageError as fault:
    print("refused", fault)
    raise SystemExit
try:
    print("read", len(open("/etc/passwd").read()))
except OSError as fault:
    print("denied", fault.errno)
"""


def _confine(before: str) -> str:
    code = _CONFINE.format(path=sys.path, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    died = f"died of {signal.Signals(-done.returncode).name}" if done.returncode < 0 else ""
    return done.stdout + done.stderr + died


def test_threat_16_attack() -> None:
    assert "denied" in _confine("")
    told = _confine("threading.Thread(target=time.sleep, args=(50,), name='lurker', daemon=True).start()")
    assert "refused" in told
    assert "lurker" in told


def test_threat_16_control() -> None:
    """Landlock binds one thread: another one goes on reading."""
    if not landlock_here():
        pytest.skip("this kernel has no Landlock to show it with")
    code = """
import threading, os
go, done = threading.Event(), []
def other():
    go.wait()
    done.append(open("/etc/passwd").read(1))
t = threading.Thread(target=other); t.start()
from bunri.kernel import landlock, prctl
prctl.set_no_new_privs()
rules = landlock.create_ruleset(fs=1 << 2)
landlock.restrict_self(rules)
try:
    open("/etc/passwd"); print("open")
except OSError: print("closed")
go.set(); t.join(); print(len(done))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + code], capture_output=True, text=True
    )
    assert done.stdout.split() == ["closed", "1"], done.stderr


def landlock_here() -> bool:
    from bunri.kernel import landlock

    try:
        return landlock.abi() > 0
    except OSError:
        return False


# 18, 19. Descriptors from below ----------------------------------------------------------------------------------------


def test_threat_18_attack() -> None:
    code = "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=3); \ntry: socket.send_fds(s, [b'x'], [0]); result = 'sent'\nfinally: s.detach()"
    assert attack(code) == "EPERM"


def test_threat_18_control() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(theirs, [b"x"], [0])
        _, numbers, _, _ = socket.recv_fds(ours, 1, 4)
        assert len(numbers) == 1
        os.close(numbers[0])


@pytest.mark.parametrize("path", ["/proc/self/status", "/sys/kernel/uevent_seqnum", "/usr"])
def test_threat_19_attack(path: str) -> None:
    from bunri.channel.handles import IncomingHandles
    from bunri.wire.registry import HandleKind

    came = IncomingHandles([os.open(path, os.O_RDONLY)], lambda number, contract: None)
    with pytest.raises(bunri.ProtocolError):
        came.descriptor(0, HandleKind.FILE)
    came.close_unclaimed()


def test_threat_19_control(tmp_path: Path) -> None:
    from bunri.channel.handles import IncomingHandles
    from bunri.wire.registry import HandleKind

    (tmp_path / "x").write_text("x")
    came = IncomingHandles([os.open(tmp_path / "x", os.O_RDONLY)], lambda number, contract: None)
    came.descriptor(0, HandleKind.FILE).close()


# 20. The arena ---------------------------------------------------------------------------------------------------------


def test_threat_20_attack() -> None:
    number = memfd.arena("test", 1 << 16)
    try:
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(number, size)
    finally:
        os.close(number)
    beyond = pack(FrameKind.REPLY, b"\xa0", call=2, blobs=[(0, 0, 1 << 20)])  # type: ignore[list-item]
    assert "outside of the sender's half" in raw(beyond, worker_class=owned.OwnedWithArena)
    assert "where there is no arena" in raw(beyond)  # its calls move no large bytes: no memory is shared


def test_threat_20_control() -> None:
    number = os.memfd_create("test")
    try:
        os.ftruncate(number, 1 << 16)
        os.ftruncate(number, 0)
    finally:
        os.close(number)


# 21. A packet of nothing -----------------------------------------------------------------------------------------------


def test_threat_21_attack(connected: tuple[socket.socket, socket.socket, int]) -> None:
    _, accepted, _ = connected
    with owned.OwnedWithSocket.start(accepted) as worker:
        process = worker.process
        with pytest.raises(bunri.WorkerDied), bunri.deadline(10):
            worker.run_code("libc.send(3, b'', 0, 0); time.sleep(30)")
        assert process.wait().signal == signal.SIGKILL  # not only forgotten


def test_threat_21_control() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(b"")
        theirs.send(b"hi")
        assert ours.recv(10) == b""  # looks like the end
        assert ours.recv(10) == b"hi"  # and is none


# 22. Escaped children --------------------------------------------------------------------------------------------------


def test_threat_22_attack() -> None:
    assert attack("result = libc.prctl(1, 0, 0, 0, 0)") == "-1"  # PR_SET_PDEATHSIG
    assert attack("result = libc.prctl(4, 1, 0, 0, 0)") == "-1"  # PR_SET_DUMPABLE
    assert attack("result = libc.prctl(0x59616d61, -1, 0, 0, 0)") == "-1"  # PR_SET_PTRACER


def test_threat_22_a_killed_monitor_leaves_nobody(tmp_path: Path) -> None:
    code = f"""
import sys, time, os
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import owned
w = owned.Owned.start()
print(w.process.pid, w._bunri_target.template.pid, w._bunri_target.template.role.pid, flush=True)
time.sleep(60)
"""
    monitor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert monitor.stdout is not None
    pids = [int(word) for word in monitor.stdout.readline().split()]
    assert all(_alive(pid) for pid in pids)
    monitor.kill()
    monitor.wait()
    monitor.stdout.close()
    until = time.monotonic() + 10
    while any(_alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_threat_22_control() -> None:
    assert plain.run("result = libc.prctl(1, 0, 0, 0, 0)") == "0"


# 23. Blocking the monitor ----------------------------------------------------------------------------------------------


def test_threat_23_attack() -> None:
    with owned.Owned.start() as worker:
        begun = time.monotonic()
        with pytest.raises(bunri.DeadlineExceeded), bunri.deadline(0.3):
            worker.run_code("time.sleep(60)")
        assert time.monotonic() - begun < 10
    assert "calls at one time" in raw(pack(FrameKind.CALL, b"\x90", obj=1) * 3000)


def test_threat_23_control() -> None:
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)  # a monitor that waited here would wait for ever
    finally:
        os.close(reader)
        os.close(writer)


# 24, 29. Hostile messages, forged numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (pack(FrameKind.REPLY, b"\x01", call=2), "Expected `str`"),
        (pack(FrameKind.REPLY, b"\x91" * 60000, call=2), "Expected `str`"),
        (pack(FrameKind.REPLY, b"\xa1\x00", call=2), "NUL"),
        (pack(FrameKind.REPLY, b"\xa1\xff", call=2), "UTF-8"),
        (pack(FrameKind.REPLY, b"\xa0", call=77), "not out"),
        (pack(FrameKind.RAISED, b"\x00\xa9os.system", call=2), "does not declare"),
        (pack(FrameKind.ITEM, b"\xa0", call=2), "no stream"),
        (pack(FrameKind.START, b""), "START"),
        (pack(FrameKind.READY, b""), "READY"),
        (pack(FrameKind.FAILED, b"\x80"), "FAILED"),
        (b"\xff" * 20, "does not exist"),
        (b"\x04", "inside a header"),
    ],
)
def test_threat_24_attack(message: bytes, why: str) -> None:
    assert why.lower() in raw(message).lower()  # some of it are msgspec's words, which its versions spell differently


def test_threat_24_control() -> None:
    import msgspec

    assert msgspec.msgpack.decode(b"\x91" * 100 + b"\x01")  # an untyped decoder builds whatever it is sent


@pytest.mark.parametrize("number", [1, 7, 2**32 - 1])
def test_threat_29_attack(number: int) -> None:
    assert f"object {number} was never handed out" in raw(pack(FrameKind.CALL, b"\x90", obj=number))


def test_threat_29_control() -> None:
    guarded = Guarded()
    with owned.OwnedWithService.start(guarded) as worker:
        assert worker.free(1) == 1  # the number that was handed out is answered


# 25. Text ----------------------------------------------------------------------------------------------------------------

_HOSTILE = "\x1b]0;owned\x07\n\u202egnp\u2028\ud800\x9b31m"


def test_threat_25_attack(caplog: pytest.LogCaptureFixture) -> None:
    with owned.Owned.start() as worker:
        with pytest.raises(bunri.RemoteError) as caught:
            worker.run_code(f"raise ValueError({_HOSTILE!r})")
        worker.run_code("print('\\x1b[2J\\u202e'); os.write(2, b'\\x9b31m\\xff\\n')")
    shown = str(caught.value) + "".join(r.getMessage() for r in caplog.records)
    assert "ValueError" in shown
    assert not any(
        (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2028" or 0xD800 <= ord(c) < 0xE000
        for c in shown
    )


def test_threat_25_control() -> None:
    try:
        owned.run(f"raise ValueError({_HOSTILE!r})")
    except ValueError as fault:
        assert "\x1b" in str(fault)


# 28. A death leaves no core -------------------------------------------------------------------------------------------


def test_threat_28_attack() -> None:
    code = """
limit = (ctypes.c_uint64 * 2)()
call('prlimit64', 0, 4, 0, limit)
result = (limit[0], limit[1], libc.prctl(3, 0, 0, 0, 0), libc.prctl(4, 1, 0, 0, 0))
"""
    assert attack(code) == "(1, 1, 0, -1)"


def test_threat_28_control() -> None:
    assert plain.run("result = libc.prctl(4, 1, 0, 0, 0)") == "0"


# 31. CPU ---------------------------------------------------------------------------------------------------------------

_BURN = "t = time.monotonic()\nwhile time.monotonic() - t < 2: pass\nresult = 'burnt'"


def test_threat_31_attack() -> None:
    with owned.Owned.start_under(owned.Owned.policy.with_(cpu="200ms")) as worker:
        with pytest.raises(bunri.WorkerDied, match="CPU time"):
            worker.run_code("signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n" + _BURN)


def test_threat_31_control() -> None:
    assert plain.run(_BURN) == "burnt"


# 34. The monitor's own tables --------------------------------------------------------------------------------------------


def test_threat_34_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    from bunri.process import program, templates

    program.close()  # nor workers that stand ready since earlier tests
    monkeypatch.setattr(templates, "MOST_WORKERS", 2)
    with owned.Owned.start(), owned.Owned.start(), pytest.raises(bunri.UsageError, match="2 workers"):
        owned.Owned.start()


def test_threat_34_control() -> None:
    with owned.Owned.start(), owned.Owned.start(), owned.Owned.start() as third:
        assert third.run_code("result = 3") == "3"
