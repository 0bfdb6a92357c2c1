"""Runs in: the test process and its children. Descriptors, memfd, sockets, openat2, Landlock's tables, seccomp's
answers."""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from forked import errno_of, in_child

from bunri.kernel import clone, descriptors, landlock, memfd, paths, pidfd, seccomp, sockets


def test_each_kind_of_descriptor_is_told(folder: Path) -> None:
    (folder / "file").touch()
    a, b = socket.socketpair()
    reader, writer = os.pipe()
    poll = select.epoll()
    table = {
        "file": os.open(folder / "file", os.O_RDONLY),
        "directory": os.open(folder, os.O_RDONLY),
        "socket": a.fileno(),
        "pipe": reader,
        "eventfd": os.eventfd(0),
        "eventpoll": poll.fileno(),
        "device": os.open("/dev/null", os.O_RDWR),
        "namespace": os.open("/proc/self/ns/uts", os.O_RDONLY),
        "pidfd": pidfd.open_(os.getpid()),
    }
    try:
        assert {kind: descriptors.kind_of(number) for kind, number in table.items()} == {kind: kind for kind in table}
    finally:
        for kind, number in table.items():
            if kind not in ("socket", "eventpoll"):
                os.close(number)
        os.close(writer)
        poll.close()
        a.close()
        b.close()


@pytest.mark.parametrize(
    ("flags", "access"), [(os.O_RDONLY, "r"), (os.O_WRONLY, "w"), (os.O_RDWR, "rw"), (os.O_PATH, "path")]
)
def test_the_access_mode_is_told(folder: Path, flags: int, access: str) -> None:
    (folder / "file").touch()
    number = os.open(folder / "file", flags)
    assert descriptors.access_of(number) == access
    os.close(number)


def test_the_file_system_is_told() -> None:
    number = os.open("/proc/self/status", os.O_RDONLY)
    assert descriptors.filesystem_magic(number) == descriptors.PROC_MAGIC
    os.close(number)


def test_closing_all_but_some_leaves_those(monkeypatch: pytest.MonkeyPatch) -> None:
    def child() -> Any:
        from forked import answer_descriptor

        numbers = [os.dup(0) for _ in range(5)]
        descriptors.close_all_but((0, 1, 2, numbers[0], numbers[3], answer_descriptor()))
        return [errno_of(os.fstat, number) == 0 for number in numbers]

    kept = [True, False, False, True, False]
    assert in_child(child) == kept

    def hidden(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "close_range: Function not implemented")

    monkeypatch.setattr(descriptors, "close_range", hidden)
    assert in_child(child) == kept


def test_an_arena_can_neither_shrink_nor_grow_nor_be_unsealed() -> None:
    fd = memfd.arena("test", 8192)
    try:
        assert memfd.seals(fd) & memfd.FIXED_SIZE == memfd.FIXED_SIZE
        assert errno_of(os.ftruncate, fd, 0) == errno.EPERM
        assert errno_of(os.ftruncate, fd, 1 << 20) == errno.EPERM
        assert errno_of(memfd.add_seals, fd, memfd.SEAL_WRITE) == errno.EPERM
        assert not os.get_inheritable(fd)
        with mmap.mmap(fd, 8192) as area:
            area[0] = 1
    finally:
        os.close(fd)


def test_without_seals_an_arena_can_be_pulled_away() -> None:
    """The control: what the seals are for."""
    fd = memfd.create("test", memfd.CLOEXEC)
    os.ftruncate(fd, 8192)
    assert errno_of(os.ftruncate, fd, 0) == 0
    os.close(fd)


def test_an_arena_is_never_executable() -> None:
    fd = memfd.arena("test", 4096)
    try:
        if memfd.seals(fd) & memfd.SEAL_EXEC == 0:
            pytest.skip("this kernel has no MFD_NOEXEC_SEAL")
        assert errno_of(os.fchmod, fd, 0o777) == errno.EPERM
    finally:
        os.close(fd)


def test_an_old_kernel_gets_an_arena_without_the_execution_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    create = memfd.create

    def old(name: str, flags: int) -> int:
        if flags & memfd.NOEXEC_SEAL:
            raise OSError(errno.EINVAL, "memfd_create: Invalid argument")
        return create(name, flags)

    monkeypatch.setattr(memfd, "create", old)
    fd = memfd.arena("test", 4096)
    assert memfd.seals(fd) & memfd.FIXED_SIZE == memfd.FIXED_SIZE
    os.close(fd)


def test_descriptors_travel_and_arrive_close_on_exec() -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    with a, b:
        sockets.send(a, b"two", (reader, writer))
        received = sockets.receive(b, 100, 2)
        assert received.data == b"two"
        assert len(received.fds) == 2
        assert not any(os.get_inheritable(fd) for fd in received.fds)
        os.write(received.fds[1], b"x")
        assert os.read(received.fds[0], 1) == b"x"
        sockets.close_all((*received.fds, reader, writer))


def test_descriptors_that_nobody_expects_are_closed_by_the_kernel() -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        before = descriptors.open_numbers()
        sockets.send(a, b"x", (0, 0, 0))
        received = sockets.receive(b, 100)
        assert received.fds == ()
        assert received.flags & socket.MSG_CTRUNC
        assert descriptors.open_numbers() == before


def test_more_descriptors_than_expected_are_never_leaked() -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        before = descriptors.open_numbers()
        for most in (1, 2, 3):
            sockets.send(a, b"x", (0,) * 8)
            received = sockets.receive(b, 100, most)
            assert most <= len(received.fds) <= most + 1
            assert received.flags & socket.MSG_CTRUNC
            sockets.close_all(received.fds)
        assert descriptors.open_numbers() == before


def test_the_peer_is_known() -> None:
    a, b = socket.socketpair()
    with a, b:
        assert sockets.peer(a) == (os.getpid(), os.getuid(), os.getgid())


def test_openat2_does_not_leave_the_folder(folder: Path) -> None:
    (folder / "file").write_text("x")
    (folder / "out").symlink_to("/etc/passwd")
    top = os.open(folder, os.O_PATH)
    try:
        fd = paths.openat2("file", os.O_RDONLY, dirfd=top, resolve=paths.BENEATH)
        assert not os.get_inheritable(fd)
        os.close(fd)
        for path in ("../..", "/etc/passwd", "out"):
            assert (
                errno_of(lambda path=path: paths.openat2(path, os.O_RDONLY, dirfd=top, resolve=paths.BENEATH))
                == errno.EXDEV
            )
        answer = errno_of(lambda: paths.openat2("out", os.O_RDONLY, dirfd=top, resolve=paths.NO_SYMLINKS))
        assert answer == errno.ELOOP
    finally:
        os.close(top)


def test_landlock_rights_grow_with_the_abi() -> None:
    rights = [landlock.known(landlock.FS_SINCE, abi) for abi in range(9)]
    assert rights[0] == 0
    assert rights[1] == 0x1FFF
    assert rights[2] == 0x3FFF
    assert rights[3] == rights[4] == 0x7FFF
    assert rights[5] == rights[8] == 0xFFFF
    assert landlock.known(landlock.NET_SINCE, 3) == 0
    assert landlock.known(landlock.NET_SINCE, 4) == 3
    assert landlock.known(landlock.SCOPES_SINCE, 5) == 0
    assert landlock.known(landlock.SCOPES_SINCE, 6) == 3


def test_landlock_takes_exactly_the_rights_of_its_abi() -> None:
    try:
        abi = landlock.abi()
    except OSError as error:
        pytest.skip(f"this kernel has no Landlock ({error})")
    known = {
        "fs": landlock.known(landlock.FS_SINCE, abi),
        "net": landlock.known(landlock.NET_SINCE, abi),
        "scoped": landlock.known(landlock.SCOPES_SINCE, abi),
    }
    os.close(landlock.create_ruleset(**known))
    assert errno_of(lambda: landlock.create_ruleset(fs=1 << 60)) == errno.EINVAL


def test_seccomp_tells_what_it_knows() -> None:
    assert seccomp.action_available(seccomp.RET_KILL_PROCESS)
    assert not seccomp.action_available(0x12340000)
    assert seccomp.notification_sizes()[2] == 64
    assert in_child(seccomp.mode) in (0, 2)


@pytest.mark.parametrize("program", [b"", b"\0" * 9])
def test_a_filter_that_is_no_program_never_reaches_the_kernel(program: bytes) -> None:
    assert errno_of(seccomp.set_filter, program) == errno.EINVAL


def test_every_namespace_has_its_flag() -> None:
    assert set(clone.FLAGS) == {"mnt", "cgroup", "uts", "ipc", "user", "pid", "net", "time"}
