"""Runs in: the test process; every root is entered by a forked child."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import be, errno_of, in_child

from bunri.confine import Context, StepFailed, carry_out
from bunri.kernel import clone, mount
from bunri.plan.steps import Mount, MountInRoot, NewRoot, SetIds, Unshare

UNSHARE = Unshare(namespaces=("mnt",))


def enter(*mounts: Mount, context: Context | None = None) -> None:
    carry_out([UNSHARE, NewRoot(mounts=mounts)], context or Context())


def bind(source: Path | str, at: str, **rights: bool) -> Mount:
    return Mount(kind="bind", at=at, source=str(source), **rights)


def inside(who: str, function: Callable[..., Any], *mounts: Mount, context: Context | None = None) -> Any:
    """What `function` answers in a child that is `who` and has entered a root with `mounts`."""

    def child() -> Any:
        be(who)
        enter(*mounts, context=context)
        return function()

    return in_child(child)


@pytest.fixture
def granted(folder: Path) -> Path:
    """A folder with a file, a program and a folder to write in."""
    (folder / "file").write_text("content")
    (folder / "below").mkdir()
    (folder / "program").write_text("#!/bin/sh\nexit 0\n")
    (folder / "program").chmod(0o755)
    (folder / "file").chmod(0o666)
    folder.chmod(0o777)
    return folder


def test_only_the_granted_paths_exist(who: str, granted: Path) -> None:
    def look() -> Any:
        return sorted(os.listdir("/")), os.listdir("/data/deep"), errno_of(os.stat, "/etc/passwd")

    assert os.stat("/etc/passwd")
    names, below, error = inside(who, look, bind(granted, "/data/deep"), Mount(kind="link", at="/short", source="data"))
    assert names == ["data", "short"]
    assert sorted(below) == ["below", "file", "program"]
    assert error == errno.ENOENT


def test_the_root_cannot_be_left_by_its_top(who: str, granted: Path) -> None:
    def look() -> Any:
        up = os.open("/data/../../../..", os.O_RDONLY)
        os.fchdir(up)
        os.chdir("../../..")
        return os.listdir("."), os.getcwd()

    assert inside(who, look, bind(granted, "/data")) == (["data"], "/")


def test_a_directory_descriptor_kept_from_before_would_lead_out(who: str, granted: Path) -> None:
    """The control to the test above: it shows that the look would find the old tree."""

    def look() -> Any:
        be(who)
        kept = os.open("/usr", os.O_RDONLY)
        enter(bind(granted, "/data"))
        os.fchdir(kept)
        return "etc" in os.listdir("..")

    assert in_child(look)


def test_what_is_granted_for_reading_cannot_be_written(who: str, granted: Path) -> None:
    def look() -> Any:
        return (
            Path("/data/file").read_text(),
            errno_of(os.open, "/data/file", os.O_WRONLY),
            errno_of(os.mkdir, "/data/new"),
            errno_of(os.mkdir, "/new"),
        )

    assert inside(who, look, bind(granted, "/data")) == ("content", errno.EROFS, errno.EROFS, errno.EROFS)


def test_what_is_granted_for_writing_can_be_written_but_not_executed(who: str, granted: Path) -> None:
    def look() -> Any:
        Path("/data/file").write_text("new")
        return errno_of(os.execv, "/data/program", ["program"])

    assert inside(who, look, bind(granted, "/data", writable=True)) == errno.EACCES
    assert (granted / "file").read_text() == "new"


def test_execution_is_a_grant_of_its_own(who: str, granted: Path) -> None:
    def look() -> Any:
        return errno_of(os.execv, "/data/program", ["program"])

    assert inside(who, look, bind(granted, "/data")) == errno.EACCES
    # The interpreter named in its first line does not exist in that root: the kernel got that far.
    assert inside(who, look, bind(granted, "/data", executable=True)) == errno.ENOENT


def test_a_mount_below_a_granted_folder_is_read_only_too(who: str, granted: Path) -> None:
    def child() -> Any:
        be(who)
        clone.unshare(clone.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.REC | mount.PRIVATE)
        mount.mount("below", str(granted / "below"), "tmpfs", 0, "size=4k")
        before = errno_of(os.mkdir, granted / "below/before")
        clone.unshare(clone.CLONE_NEWNS)
        enter(bind(granted, "/data"))
        return before, os.listdir("/data/below"), errno_of(os.mkdir, "/data/below/after")

    assert in_child(child) == (0, ["before"], errno.EROFS)


def test_without_mount_setattr_it_is_done_by_remounting(
    who: str, granted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSYS, "mount_setattr: Function not implemented")

    def child() -> Any:
        be(who)
        clone.unshare(clone.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.REC | mount.PRIVATE)
        mount.mount("below", str(granted / "below"), "tmpfs", mount.NOATIME, "size=4k")
        enter(bind(granted, "/data"), bind(granted, "/writable", writable=True), Mount(kind="device", at="/dev/null"))
        Path("/dev/null").write_text("gone")
        Path("/writable/file").write_text("new")
        return errno_of(os.mkdir, "/data/below/after"), errno_of(os.mkdir, "/data/new"), errno_of(os.mkdir, "/new")

    monkeypatch.setattr(mount, "set_attributes", missing)
    assert in_child(child) == (errno.EROFS,) * 3


def test_a_handed_mount_serves_where_the_path_cannot_be_reached(who: str, granted: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a detached mount outside a user namespace")
    tree = mount.clone_tree(str(granted))
    secret = granted / "secret"
    secret.mkdir(mode=0o700)
    (secret / "name").write_text("reached")
    below = mount.clone_tree(str(secret))
    try:
        context = Context(mounts={"/data": tree, "/secret": below})
        look = inside(who, lambda: os.listdir("/data"), bind("/no/such", "/data"), context=context)
        assert "file" in look
    finally:
        os.close(tree)
        os.close(below)


def test_a_folder_can_be_the_root_itself(who: str, granted: Path) -> None:
    def look() -> Any:
        Path("/file").write_text("new")
        return sorted(os.listdir("/")), os.listdir("/..") == os.listdir("/"), errno_of(os.stat, "/etc")

    names, same, error = inside(who, look, bind(granted, "/", writable=True))
    assert (names, same, error) == (["below", "file", "program"], True, errno.ENOENT)
    assert (granted / "file").read_text() == "new"


def test_no_mount_point_is_made_in_a_granted_folder(who: str, granted: Path) -> None:
    def child() -> Any:
        be(who)
        try:
            enter(bind(granted, "/data", writable=True), bind("/usr", "/data/new"))
        except StepFailed as failed:
            return failed.errno

    assert in_child(child) == errno.ENOENT
    assert not (granted / "new").exists()
    over = bind(granted, "/data", writable=True), bind("/usr", "/data/below")
    assert "bin" in inside(who, lambda: os.listdir("/data/below"), *over)


def test_an_optional_mount_may_be_missing(who: str, granted: Path) -> None:
    mounts = bind(granted, "/data"), Mount(kind="bind", at="/no", source="/no/such", optional=True)
    assert inside(who, lambda: os.listdir("/"), *mounts) == ["data"]


def test_an_empty_directory_waits_for_a_mount_of_the_worker(who: str) -> None:
    def look() -> Any:
        scratch = Mount(kind="tmpfs", at="/tmp", writable=True, size=4096, inodes=4)
        before = errno_of(os.mkdir, "/tmp/x")
        carry_out([MountInRoot(mounts=(scratch,))], Context())
        return before, errno_of(os.mkdir, "/tmp/x")

    assert inside(who, look, Mount(kind="directory", at="/tmp")) == (errno.EROFS, 0)


def test_a_symbolic_link_in_a_granted_folder_is_no_mount_point(who: str, granted: Path) -> None:
    (granted / "trap").symlink_to("/etc")

    def child() -> Any:
        be(who)
        try:
            enter(bind(granted, "/", writable=True), bind(granted / "below", "/trap"))
        except StepFailed as failed:
            return failed.step, failed.errno
        return None

    assert in_child(child) in (("new_root", errno.ENOTDIR), ("new_root", errno.ELOOP))


def test_a_tmpfs_has_its_bounds(who: str) -> None:
    def look() -> Any:
        def fill() -> None:
            for number in range(20):
                Path(f"/scratch/{number}").touch()

        large = errno_of(Path("/scratch/large").write_bytes, bytes(100_000))
        return large, errno_of(fill), os.stat("/scratch").st_mode & 0o777

    scratch = Mount(kind="tmpfs", at="/scratch", writable=True, size=65536, inodes=8)
    assert inside(who, look, scratch) == (errno.ENOSPC, errno.ENOSPC, 0o700)


def test_a_tmpfs_without_bounds_is_refused(who: str) -> None:
    def child() -> Any:
        be(who)
        try:
            enter(Mount(kind="tmpfs", at="/scratch", writable=True))
        except StepFailed as failed:
            return failed.errno

    assert in_child(child) == errno.EINVAL


def test_devices_work_and_are_only_devices(who: str, granted: Path) -> None:
    def look() -> Any:
        Path("/dev/null").write_text("gone")
        return Path("/dev/zero").open("rb").read(2)

    devices = Mount(kind="device", at="/dev/null"), Mount(kind="device", at="/dev/zero", source="/dev/zero")
    assert inside(who, look, *devices) == b"\0\0"

    def wrong() -> Any:
        be(who)
        try:
            enter(Mount(kind="device", at="/dev/x", source=str(granted / "file")))
        except StepFailed as failed:
            return failed.errno

    assert in_child(wrong) == errno.ENODEV


def test_the_root_of_the_parent_is_never_taken(who: str) -> None:
    def child() -> Any:
        be(who)
        try:
            carry_out([NewRoot(mounts=())], Context())
        except StepFailed as failed:
            return failed.errno

    assert in_child(child) == errno.EPERM


def test_a_path_that_does_not_exist_fails_and_names_itself(who: str) -> None:
    def child() -> Any:
        be(who)
        try:
            enter(bind("/no/such/path", "/data"))
        except StepFailed as failed:
            return failed.errno, str(failed)

    number, text = in_child(child)
    assert number == errno.ENOENT
    assert "/no/such/path" in text


@pytest.mark.parametrize("at", ["relative", "/a/../b", "/./a"])
def test_a_place_with_dots_is_refused(who: str, at: str) -> None:
    def child() -> Any:
        be(who)
        try:
            enter(Mount(kind="tmpfs", at=at, size=4096, inodes=4))
        except StepFailed as failed:
            return failed.errno

    assert in_child(child) == errno.EINVAL


def test_a_worker_gets_scratch_of_its_own_in_the_templates_root(who: str) -> None:
    point = Mount(kind="tmpfs", at="/scratch", size=4096, inodes=2)
    scratch = Mount(kind="tmpfs", at="/scratch", writable=True, size=1 << 20, inodes=10)
    uid = 61_200 if who == "root" else 0

    def worker() -> Any:
        clone.unshare(clone.CLONE_NEWNS)
        carry_out(
            [MountInRoot(mounts=(scratch,)), SetIds(uid=uid, gid=uid, groups=() if who == "root" else None)], Context()
        )
        Path("/scratch/file").write_text("mine")
        info = os.stat("/scratch")
        return info.st_uid, info.st_mode & 0o777, os.listdir("/scratch")

    def template() -> Any:
        be(who)
        enter(point)
        first = in_child(worker)
        return first, in_child(worker), errno_of(os.mkdir, "/scratch/x")

    one = (uid, 0o700, ["file"])
    assert in_child(template) == (one, one, errno.EROFS)


def test_mount_points_can_be_passed_whatever_the_umask(who: str, granted: Path) -> None:
    def child() -> Any:
        be(who)
        os.umask(0o077)
        enter(bind(granted, "/a/b"))
        return os.stat("/a").st_mode & 0o777, os.umask(0)

    assert in_child(child) == (0o755, 0o077)


def test_a_fresh_proc_shows_the_pid_namespace_only() -> None:
    if os.getuid() != 0:
        pytest.skip("the tests run as an ordinary user")

    def child() -> Any:
        pid, pidfd = clone.clone_process(clone.CLONE_NEWPID | clone.CLONE_NEWNS)
        if pid == 0:
            code = 1
            try:
                mount.mount(None, "/", None, mount.REC | mount.PRIVATE)
                carry_out([NewRoot(mounts=(Mount(kind="proc", at="/proc"),))], Context())
                code = 0 if [n for n in os.listdir("/proc") if n.isdigit()] == ["1"] else 2
            finally:
                os._exit(code)
        os.close(pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_child(child) == 0
