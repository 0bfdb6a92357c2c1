"""What a policy grants works, and nothing beside it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grants
import pytest

import bunri
from bunri import fs


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that a worker of another user can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        inner = Path(folder) / "home"
        inner.mkdir()
        if os.getuid() == 0:
            os.chown(inner, 65534, 65534)
        yield inner


def test_a_granted_folder_can_be_read_and_nothing_else_exists() -> None:
    with grants.Reader.start() as worker:
        assert worker.read("/usr/share/zoneinfo/UTC") == os.path.getsize("/usr/share/zoneinfo/UTC")
        assert worker.listed("/") == ["scratch", "usr"]
        with pytest.raises(bunri.PeerError):
            worker.read("/etc/passwd")
        with pytest.raises(bunri.PeerError):
            worker.read("/usr/share/zoneinfo/../../../etc/passwd")


def test_what_is_granted_to_read_cannot_be_written() -> None:
    with grants.Reader.start() as worker, pytest.raises(bunri.Violation):
        worker.write("/usr/share/zoneinfo/new", 1)


def test_a_scratch_is_bounded_and_each_workers_own() -> None:
    with grants.Reader.start() as one, grants.Reader.start() as two:
        assert one.write("/scratch/x", 1000) == 1000
        assert two.listed("/scratch") == []
        with pytest.raises(bunri.RemoteError, match="No space left"):
            one.write("/scratch/y", 10 << 20)


def test_holes_are_filled_at_the_start(home: Path) -> None:
    root = os.getuid() == 0
    user = bunri.User.ids(65534, 65534) if root else bunri.User.same()
    policy = grants.Home.policy.with_(user=user, files=[fs.write(str(home), at="/")])
    with grants.Home.start_under(policy) as worker:
        assert worker.write("/new", 10) == 10
        assert worker.listed("/") == ["new"]
        if root:
            assert worker.uid() == 65534
    assert (home / "new").stat().st_uid == (65534 if root else os.getuid())


def test_a_file_can_be_moved_between_granted_folders(home: Path) -> None:
    """Landlock refuses that in each of its domains that does not allow it, and a worker stands in two."""
    user = bunri.User.ids(65534, 65534) if os.getuid() == 0 else bunri.User.same()
    policy = grants.Home.policy.with_(user=user, files=[fs.write(str(home), at="/")])
    with grants.Home.start_under(policy) as worker:
        worker.write("/new", 10)
        worker.move("/new", "/inner/newer")
        assert worker.listed("/inner") == ["newer"]


def test_an_open_hole_is_refused() -> None:
    with pytest.raises(bunri.UsageError, match="start_under"):
        grants.Home.start()


def test_a_wider_policy_is_refused() -> None:
    with pytest.raises(bunri.UsageError, match="wider"):
        grants.Reader.start_under(bunri.Policy(files=[fs.read("/")]))


def test_a_grant_of_what_does_not_exist_is_refused_each_time() -> None:
    """A template that could not even be asked for answers nobody: the second start must not wait for it."""
    policy = grants.Home.policy.with_(user=bunri.User.same(), files=[fs.read("/nowhere/at/all")])
    for _ in range(2):
        with pytest.raises(bunri.HostError, match="/nowhere/at/all"), grants.Home.start_under(policy):
            pass  # said at once, or by the template


def test_fs_python_lets_a_module_be_imported_late() -> None:
    with grants.Lazy.start() as worker:
        assert worker.late() == "wave"


def test_a_worker_that_only_computes_does() -> None:
    with grants.Computes.start() as worker:
        assert worker.twice(21) == 42


def test_a_granted_thread_runs() -> None:
    with grants.Threads.start() as worker:
        assert worker.count() == 1


def test_all_threads_that_are_granted_can_live_at_once() -> None:
    """What the C library would reserve for each (a heap of 64 MiB, a stack of 8) would be all its memory soon."""
    with grants.ManyThreads.start() as worker:
        assert worker.at_once(48) == 48
        assert worker.at_once(60) >= 48  # where the uid is its own, no more


def test_a_folder_that_took_anothers_place_is_the_one_granted(home: Path) -> None:
    """Workers of one policy share a template, which binds what stood there when it was made."""
    user = bunri.User.ids(65534, 65534) if os.getuid() == 0 else bunri.User.same()
    policy = grants.Home.policy.with_(user=user, files=[fs.read(str(home), at="/")])
    (home / "old").touch()
    with grants.Home.start_under(policy) as before:
        assert before.listed("/") == ["old"]
        home.rename(home.with_name("away"))
        home.mkdir()
        (home / "new").touch()
        for _ in range(4):  # no spare of the old template either
            with grants.Home.start_under(policy) as after:
                assert after.listed("/") == ["new"]
        assert before.listed("/") == ["old"]


def test_a_place_that_is_not_there_is_named_with_its_remedy(home: Path) -> None:
    """A scratch in a folder that is the root itself: there nobody makes its place."""
    home.chmod(0o755)
    user = bunri.User.ids(65534, 65534) if os.getuid() == 0 else bunri.User.same()
    policy = grants.Home.policy.with_(user=user, files=[fs.read(str(home), at="/"), fs.scratch("/tmp", "1M")])
    with (
        pytest.raises(bunri.HostError, match=r"place 'tmp' does not exist.*make its place there"),
        grants.Home.start_under(policy),
    ):
        pass
    (home / "tmp").mkdir()
    with grants.Home.start_under(policy) as worker:
        assert worker.write("/tmp/x", 10) == 10
