"""A `Directory` gives files beneath it, and nothing else; also to a worker that checks nothing of what it sends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest
import served

import bunri
from bunri import Access, Directory, User

ROOT = os.getuid() == 0


@pytest.fixture(params=["honest", "lying"])
def client(request: pytest.FixtureRequest) -> str:
    """Whether the worker's own library still looks at what goes out."""
    return str(request.param)


def refused(folder: Path, name: str, mode: str = "rb", *, access: Access = Access.WRITE, client: str = "lying") -> str:
    """What a worker gets for that name: the exception, or "opened"."""
    with served.Uses.start(Directory.at(folder, access)) as worker:
        if client == "lying":
            worker.lie()
        return bunri.call(worker.refused, name, mode).result()


def test_files_beneath_are_read_and_listed(granted: Path, client: str) -> None:
    (granted / "again").symlink_to("file")
    with served.Uses.start(Directory.at(granted)) as worker:
        if client == "lying":
            worker.lie()
        assert bunri.call(worker.read, "file").result() == b"granted\n"
        assert bunri.call(worker.read, "inner/file").result() == b"inner\n"
        assert bunri.call(worker.list).result() == ["again", "file", "inner"]


@pytest.mark.parametrize(
    "name",
    ["../secret", "inner/../../secret", "/etc/passwd", "", ".", "inner", "absent", "link", "inner/link", "fifo", "hole",
     "./.././secret", "file/", "file/x", "x" * 300],
)  # fmt: skip
def test_no_name_leads_elsewhere(granted: Path, name: str, client: str) -> None:
    (granted / "link").symlink_to("../secret")
    (granted / "inner" / "link").symlink_to("/etc/passwd")
    (granted / "hole").symlink_to("/proc/self/environ")
    os.mkfifo(granted / "fifo")
    os.chmod(granted / "fifo", 0o666)
    for mode in ("rb", "r+b"):
        assert refused(granted, name, mode, client=client).endswith("Error")


def test_a_name_with_a_nul_ends_or_refuses_the_one_who_sends_it(granted: Path) -> None:
    with served.Uses.start(Directory.at(granted)) as worker:
        worker.lie()
        with pytest.raises(bunri.WorkerDied):
            bunri.call(worker.refused_raw, b"file\0x").result()


def test_reading_is_not_writing(granted: Path, client: str) -> None:
    for mode in ("wb", "ab", "xb", "r+b"):
        assert refused(granted, "file", mode, access=Access.READ, client=client) == "PermissionError"
        assert refused(granted, "new", mode, access=Access.READ, client=client) == "PermissionError"
    assert sorted(os.listdir(granted)) == ["file", "inner"]


def test_an_unknown_mode_is_refused(granted: Path, client: str) -> None:
    assert refused(granted, "file", "rw+!", client=client) == "OSError"


def test_files_are_made_and_changed(granted: Path, client: str) -> None:
    with served.Uses.start(Directory.at(granted, Access.READ | Access.WRITE)) as worker:
        if client == "lying":
            worker.lie()
        assert bunri.call(worker.write, "new", b"one", "xb").result() == 3
        assert bunri.call(worker.write, "new", b"two", "ab").result() == 3
        assert bunri.call(worker.refused, "new", "xb").result() == "FileExistsError"
    assert (granted / "new").read_bytes() == b"onetwo"
    assert (granted / "new").stat().st_mode & 0o777 == 0o600


def test_a_second_name_of_a_file_is_not_written(granted: Path, client: str) -> None:
    os.link(granted.parent / "secret", granted / "harmless")
    assert refused(granted, "harmless", "r+b", client=client) == "PermissionError"
    assert refused(granted, "harmless", "wb", client=client) == "PermissionError"
    assert (granted / "harmless").read_text() == "secret\n"


def test_the_file_is_opened_by_the_owner_of_the_directory_not_by_root(granted: Path) -> None:
    if not ROOT:
        pytest.skip("only root can give a directory away")
    os.chown(granted, 65534, 65534)
    (granted / "roots").write_text("of root\n")
    os.chmod(granted / "roots", 0o600)
    assert refused(granted, "roots") == "PermissionError"
    with served.Uses.start(Directory.at(granted, Access.WRITE)) as worker:
        bunri.call(worker.write, "mine", b"x").result()
    assert (granted / "mine").stat().st_uid == 65534


def test_another_subject_can_be_named(granted: Path) -> None:
    if not ROOT:
        pytest.skip("only root can act as somebody else")
    os.chmod(granted / "file", 0o600)
    with served.Uses.start(Directory.at(granted, user=User.ids(65534, 65534))) as worker:
        assert bunri.call(worker.refused, "file").result() == "PermissionError"
    assert refused(granted, "file", access=Access.READ) == "opened"  # the owner's


def test_another_ones_file_in_the_directory_is_not_written(granted: Path) -> None:
    if not ROOT:
        pytest.skip("only root can give a file away")
    os.chown(granted / "file", 65534, 65534)
    os.chmod(granted / "file", 0o666)
    assert refused(granted, "file", "r+b") == "PermissionError"


def test_a_name_that_is_swapped_meanwhile_never_leads_out(granted: Path) -> None:
    """A link to the secret and the file change places all the time: what is opened is the file or nothing."""
    (granted / "link").symlink_to("../secret")
    os.mkdir(granted / "way")
    (granted / "way" / "file").write_text("granted\n")
    os.chmod(granted / "way", 0o755)
    (granted / "ways").symlink_to("..")
    (granted.parent / "file").write_text("secret\n")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            _exchange(granted / "file", granted / "link")
            _exchange(granted / "way", granted / "ways")

    swapper = threading.Thread(target=swap)
    seen: set[bytes] = set()
    with served.Uses.start(Directory.at(granted)) as worker:
        swapper.start()
        try:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                for name in ("file", "way/file"):
                    try:
                        seen.add(bunri.call(worker.read, name).result())
                    except bunri.PeerError as fault:
                        assert "OSError" in str(fault) or "Error" in str(fault)
                        seen.add(b"refused")
        finally:
            stop.set()
            swapper.join()
    assert seen == {b"granted\n", b"refused"}


def _exchange(one: Path, other: Path) -> None:
    import ctypes

    libc = ctypes.CDLL(None)
    libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)  # RENAME_EXCHANGE


def test_a_directory_that_is_not_there_is_said_at_the_first_use(granted: Path) -> None:
    assert refused(granted / "absent", "x").endswith("Error")


def test_a_directory_serves_on_a_loop_and_many_at_once(granted: Path) -> None:
    async def run() -> list[bytes]:
        folder = Directory.at(granted)
        async with served.Uses.start(folder) as one, served.Uses.start(folder) as other:
            calls = [bunri.call(w.read, "file") for _ in range(50) for w in (one, other)]
            return [await call for call in calls]

    assert asyncio.run(run()) == [b"granted\n"] * 100


def test_a_directory_can_be_used_in_the_monitor_too(granted: Path) -> None:
    async def run() -> bytes:
        with (await Directory.at(granted).open("file")).as_file() as file:
            return file.read()

    assert asyncio.run(run()) == b"granted\n"
