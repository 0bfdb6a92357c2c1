"""Libraries that know nothing of bunri open, look and change through the broker, in a worker that is granted nothing itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import brokered
import pytest

import bunri
from bunri import User, Via, fs

ROOT = os.getuid() == 0


def policy(*grants: fs.FileGrant, user: User | None = None, threads: int = 0) -> bunri.Policy:
    """`user`: by default whoever owns what the tests make, without being root."""
    return brokered.Brokered.policy.with_(files=grants, user=user or User.dynamic(), threads=threads, cpu="30s")


def read(path: Path | str, **more: object) -> fs.FileGrant:
    return fs.read(str(path), via=Via.BROKER, **more)  # type: ignore[arg-type]


def write(path: Path | str) -> fs.FileGrant:
    return fs.write(str(path), via=Via.BROKER)


@pytest.fixture
def owned(granted: Path) -> tuple[Path, User]:
    """The folder, and a user who owns it: for root somebody else than root."""
    if not ROOT:
        return granted, User.same()
    for path in (granted, *granted.rglob("*")):
        os.chown(path, 65534, 65534)
    return granted, User.ids(65534, 65534)


def test_the_worker_itself_is_granted_nothing(granted: Path) -> None:
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        assert worker.read(f"{granted}/file") == b"granted\n"
        directory = f"/proc/{worker.process.pid}/root"
        if ROOT:
            assert os.listdir(directory) == []
        report = worker.process.report
        assert {layer.name for layer in report.layers if layer.name.startswith("broker") and layer.observed_by} == {
            "broker of files"
        }


def test_pillow_reads_a_picture(granted: Path) -> None:
    (granted / "picture.png").write_bytes(brokered.a_picture())
    (granted.parent / "other.png").write_bytes(brokered.a_picture())
    for path in (granted / "picture.png", granted.parent / "other.png"):
        os.chmod(path, 0o644)
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        assert worker.picture(f"{granted}/picture.png") == (64, 48)
        with pytest.raises(bunri.PeerError, match="No such file"):
            worker.picture(f"{granted.parent}/other.png")


def test_sqlite_reads_a_database(granted: Path) -> None:
    with sqlite3.connect(granted / "words.db") as made:
        made.execute("create table words (word text)")
        made.executemany("insert into words values (?)", [("two",), ("one",)])
    made.close()
    os.chmod(granted / "words.db", 0o644)
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        assert worker.rows(f"file:{granted}/words.db?mode=ro&immutable=1") == ["one", "two"]


def test_a_single_file_is_granted_and_stands_elsewhere(granted: Path) -> None:
    with brokered.Brokered.start_under(policy(read(granted / "file", at="/etc/motd"))) as worker:
        assert worker.read("/etc/motd") == b"granted\n"
        assert worker.read("etc/motd") == b"granted\n"
        for path in (f"{granted}/file", "/etc/passwd", "/etc", "/etc/motd/x"):
            with pytest.raises(bunri.PeerError):
                worker.read(path)


def test_the_stat_family_answers_as_ever(granted: Path) -> None:
    (granted / "link").symlink_to("file")
    (granted / "out").symlink_to("../secret")
    here = os.stat(granted / "file")
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        where = f"P = {str(granted)!r}\n"
        assert worker.run_code(
            f"{where}s = os.stat(P + '/file'); result = s.st_ino, s.st_size, s.st_mode, s.st_mtime_ns"
        ) == str((here.st_ino, here.st_size, here.st_mode, here.st_mtime_ns))
        assert (
            worker.run_code(f"{where}result = os.path.exists(P + '/no'), os.path.isdir(P), os.path.isdir('/tmp')")
            == "(False, True, True)"
        )
        assert (
            worker.run_code(f"{where}result = os.access(P + '/file', 4), os.access(P + '/file', 2)") == "(True, False)"
        )
        assert (
            worker.run_code(f"{where}result = os.readlink(P + '/link'), os.path.islink(P + '/link')")
            == "('file', True)"
        )
        assert worker.run_code(f"{where}result = os.path.realpath(P + '/link') == P + '/file'") == "True"
        assert worker.run_code(f"{where}result = open(P + '/link').read()") == "granted\n"
        assert worker.run_code(f"{where}result = os.fstat(os.open(P + '/file', 0)).st_size") == "8"
        assert worker.run_code(f"{where}os.stat(P + '/out')") == "EACCES"
        assert worker.run_code(f"{where}result = os.lstat(P + '/out').st_size") == str(len("../secret"))
        assert worker.run_code(f"{where}os.listdir(P)") == "EACCES"
        assert worker.run_code("os.stat('/etc/passwd')") == "ENOENT"
        buffer = "b = ctypes.create_string_buffer(256)\n"
        statx = "call(332, -100, P.encode() + b'/file', 0, 0x7ff, b), struct.unpack_from('Q', b, 40)[0]"
        assert worker.run_code(f"{where}{buffer}result = {statx}") == "('ok', 8)"


def test_openat2_of_the_worker_cannot_ask_for_more(granted: Path) -> None:
    (granted / "out").symlink_to("../secret")
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        code = f"""
P = {str(granted)!r}.encode()
def how(flags, mode=0, resolve=0, more=b''): return struct.pack('QQQ', flags, mode, resolve) + more
def ask(path, data, size=None): return call(437, -100, path, data, len(data) if size is None else size)
result = [ask(P + b'/file', how(0)), ask(P + b'/out', how(0)), ask(P + b'/file', how(1)), ask(P + b'/file', how(0, 0, 8)),
          ask(P + b'/file', how(0), 8), ask(P + b'/file', how(0, more=b'x' * 8)), ask(P, how(0o200000)), ask(P, how(0o10000000))]
"""
        assert worker.run_code(code) == str(["ok", "EACCES", "EACCES", "EINVAL", "EINVAL", "E2BIG", "EACCES", "EACCES"])


def test_files_are_made_changed_moved_and_removed(owned: tuple[Path, User]) -> None:
    folder, user = owned
    with brokered.Brokered.start_under(policy(write(folder), user=user)) as worker:
        where = f"P = {str(folder)!r}\n"
        assert worker.write(f"{folder}/new", b"one") == 3
        assert worker.write(f"{folder}/new", b"two", "ab") == 3
        code = "os.mkdir(P + '/d'); os.rename(P + '/new', P + '/d/moved'); os.unlink(P + '/file'); result = 'done'"
        assert worker.run_code(where + code) == "done"
        assert worker.run_code(f"{where}os.rmdir(P + '/d')") == "ENOTEMPTY"
        assert worker.run_code(f"{where}os.rename(P + '/d/moved', '/tmp/moved-by-bunri-test')") == "ENOENT"
        assert worker.run_code(f"{where}os.unlink(P + '/../secret')") == "ENOENT"
        assert worker.run_code(f"{where}os.rmdir(P)") == "EBUSY"
    assert (folder / "d" / "moved").read_bytes() == b"onetwo"
    assert (folder / "d" / "moved").stat().st_uid == folder.stat().st_uid
    assert sorted(os.listdir(folder)) == ["d", "inner"]


def test_what_is_granted_to_read_is_not_changed(owned: tuple[Path, User]) -> None:
    folder, user = owned
    with brokered.Brokered.start_under(policy(read(folder), user=user)) as worker:
        for mode in ("wb", "ab", "r+b", "xb"):
            with pytest.raises(bunri.PeerError):
                worker.write(f"{folder}/file", b"x", mode)
        for code in ("os.unlink(P)", "os.rename(P, P + 'x')", "os.mkdir(P + 'x')", "os.truncate(P, 0)", "os.chmod(P, 0)",
                     "os.utime(P)", "os.link(P, P + 'x')", "os.symlink(P, P + 'x')"):  # fmt: skip
            assert worker.run_code(f"P = {str(folder)!r} + '/file'\n{code}") in ("EPERM", "EACCES")
    assert (folder / "file").read_bytes() == b"granted\n"


def test_the_broker_is_the_subject(owned: tuple[Path, User]) -> None:
    """What the worker's user may not read, its broker does not: it is that user, and not root."""
    if not ROOT:
        pytest.skip("only root's workers are somebody else")
    folder, user = owned
    os.chmod(folder / "file", 0o600)
    os.chown(folder / "file", 0, 0)
    with brokered.Brokered.start_under(policy(read(folder), user=user)) as worker:
        with pytest.raises(bunri.PeerError, match="Permission"):
            worker.read(f"{folder}/file")


def test_no_node_is_opened_but_a_regular_file(granted: Path) -> None:
    os.mkfifo(granted / "fifo")
    shutil.copymode(granted / "file", granted / "fifo")
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        for name in ("fifo", "inner", "."):
            with pytest.raises(bunri.PeerError):
                worker.read(f"{granted}/{name}")


@pytest.mark.parametrize("pointer", ["0", "1", "-1", "1 << 47", "1 << 63", "(1 << 64) - 8"])
def test_a_path_that_is_no_path_is_refused(granted: Path, pointer: str) -> None:
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        assert worker.run_code(f"result = call(257, -100, ctypes.c_void_p({pointer}), 0, 0)") == "EFAULT"
        assert worker.run_code("result = call(257, -100, b'x' * 5000, 0, 0)") == "ENAMETOOLONG"
        assert (
            worker.run_code(f"result = call(262, -100, {str(granted)!r}.encode(), ctypes.c_void_p({pointer}), 0)")
            == "EFAULT"
        )
        assert worker.read(f"{granted}/file") == b"granted\n"


def test_a_path_that_ends_with_its_page_is_read(granted: Path) -> None:
    code = f"""
import mmap
path = {str(granted)!r}.encode() + b'/file\\0'
room = mmap.mmap(-1, 8192)
at = ctypes.addressof(ctypes.c_char.from_buffer(room))
libc.munmap(ctypes.c_void_p(at + 4096), 4096)
ctypes.memmove(at + 4096 - len(path), path, len(path))
result = call(257, -100, ctypes.c_void_p(at + 4096 - len(path)), 0, 0)
os._exit(0) if result != 'ok' else None
"""
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        assert worker.run_code(code) == "ok"


def test_a_worker_has_no_more_descriptors_than_its_policy_says(granted: Path) -> None:
    with brokered.Brokered.start_under(policy(read(granted))) as worker:
        code = f"""
P = {str(granted)!r} + '/file'
kept = []
try:
    while True: kept.append(os.open(P, 0))
except OSError as e: result = e.errno
for k in kept: os.close(k)
"""
        assert worker.run_code(code) == "24"
        assert worker.read(f"{granted}/file") == b"granted\n"


def test_many_threads_are_served(granted: Path) -> None:
    code = f"""
P = {str(granted)!r} + '/file'
def work():
    for _ in range(200): done.append(open(P).read())
done = []
threading.stack_size(262144)
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
result = len(done), set(done)
"""
    with brokered.Brokered.start_under(policy(read(granted), threads=8)) as worker:
        assert worker.run_code(code) == "(1600, {'granted\\n'})"


def test_many_workers_at_once(granted: Path) -> None:
    with (
        brokered.Brokered.start_under(policy(read(granted))) as one,
        brokered.Brokered.start_under(policy(read(granted))) as two,
    ):
        got: list[bytes] = []
        threads = [threading.Thread(target=lambda w=w: got.append(w.read(f"{granted}/file"))) for w in (one, two) * 10]  # type: ignore[misc]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == [b"granted\n"] * 20
