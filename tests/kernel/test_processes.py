"""Runs in: the test process and its children. clone, pidfd, procfs, prctl, capability, ids, rlimit."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import ORDINARY, Died, be, errno_of, in_child, skip_unless

from bunri.kernel import _call, capability, clone, ids, pidfd, prctl, procfs, rlimit


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


CLONES: tuple[Callable[[], tuple[int, int]], ...] = (
    clone.by_clone3,
    clone.by_clone,
    clone.by_fork,
    clone.clone_process,
)


@pytest.mark.parametrize("make", CLONES, ids=lambda make: make.__name__)
def test_a_child_runs_python_and_its_pidfd_names_it(make: Callable[[], tuple[int, int]]) -> None:
    def parent() -> Any:
        pid, fd = make()
        if pid == 0:
            # Allocation, imports, files and threads' locks must work without the interpreter's fork hooks.
            import json

            good = fd == -1 and json.loads(json.dumps([1])) == [1] and Path("/proc/self/stat").read_text() != ""
            os._exit(7 if good else 8)
        inheritable = os.get_inheritable(fd)
        info = pidfd.wait(fd)
        return pid == info.si_pid if info else None, info.si_status if info else None, inheritable

    assert in_child(parent) == (True, 7, False)


def test_the_childs_thread_id_is_its_own_also_for_the_c_library() -> None:
    def parent() -> int:
        pid, _ = clone.clone_process()
        if pid == 0:
            import ctypes

            address = prctl.tid_address()
            os._exit(7 if ctypes.c_int.from_address(address).value == os.getpid() else 8)
        return reap(pid)

    try:
        prctl.tid_address()
    except OSError:
        pytest.skip("this kernel does not tell where the thread id is kept")
    assert in_child(parent) == 7


def test_all_namespaces_come_with_one_call() -> None:
    skip_unless("root of a user namespace")
    flags = clone.flags_of(("user", "pid", "mnt", "ipc", "uts", "cgroup", "net", "time"))
    names = ("user", "pid", "mnt", "ipc", "uts", "cgroup", "net", "time")

    def parent() -> Any:
        be("ordinary user")
        own = {name: os.readlink(f"/proc/self/ns/{name}") for name in names}
        wait, go = os.pipe()
        pid, fd = clone.clone_process(flags)
        if pid == 0:
            os.read(wait, 1)
            os._exit(7 if os.getpid() == 1 else 8)
        directory = procfs.open_process(pid)
        same = [name for name in names if procfs.namespace(directory, name) == own[name]]
        os.write(go, b"g")
        os.close(fd)
        return same, reap(pid)

    assert in_child(parent) == ([], 7)


def test_clone_has_no_time_namespace() -> None:
    assert errno_of(clone.by_clone, clone.CLONE_NEWTIME) == errno.EINVAL


def test_where_clone3_is_hidden_clone_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(flags: int = 0) -> tuple[int, int]:
        raise OSError(errno.ENOSYS, "clone3: Function not implemented")

    monkeypatch.setattr(clone, "by_clone3", hidden)

    def parent() -> int:
        pid, _ = clone.clone_process()
        if pid == 0:
            os._exit(7)
        return reap(pid)

    assert in_child(parent) == 7


def test_a_namespace_that_does_not_exist_is_no_flag() -> None:
    with pytest.raises(KeyError):
        clone.flags_of(("moon",))


def test_a_failing_call_is_named_with_its_errno() -> None:
    with pytest.raises(OSError, match="pidfd_open: No such process") as caught:
        pidfd.open_(1 << 22)
    assert caught.value.errno == errno.ESRCH


def test_numbers_of_both_architectures_have_the_same_names() -> None:
    assert _call._X86_64.keys() == _call._AARCH64.keys()


def test_the_numbers_are_those_of_the_syscall_tables() -> None:
    """The tables of bunri.seccomp are generated from a maintained package; these here are typed by hand."""
    tables = {"x86_64": _call._X86_64, "aarch64": _call._AARCH64}
    for arch, own in tables.items():
        module = __import__(f"bunri.seccomp._tables_{arch}", fromlist=["x"])
        found = next(v for v in vars(module).values() if isinstance(v, dict) and "openat" in v)
        wrong = {name: number for name, number in {**_call._COMMON, **own}.items() if found[name] != number}
        assert wrong == {}


def test_a_signal_by_pidfd_kills_and_the_status_is_told() -> None:
    pid, fd = clone.clone_process()
    if pid == 0:
        signal.pause()
        os._exit(1)
    assert pidfd.wait(fd, os.WEXITED | os.WNOHANG) is None
    pidfd.send_signal(fd, signal.SIGKILL)
    info = pidfd.wait(fd)
    assert info is not None
    assert info.si_status == signal.SIGKILL
    assert errno_of(pidfd.send_signal, fd, 0) == errno.ESRCH
    os.close(fd)


def test_pidfd_info_tells_who_it_is() -> None:
    fd = pidfd.open_(os.getpid())
    try:
        info = pidfd.info(fd)
    except OSError as error:
        pytest.skip(f"this kernel has no PIDFD_GET_INFO ({error})")
    finally:
        os.close(fd)
    assert (info.pid, info.ppid, info.uid, info.gid) == (os.getpid(), os.getppid(), os.getuid(), os.getgid())


def test_a_descriptor_of_another_process_can_be_fetched() -> None:
    reader, writer = os.pipe()
    pid, fd = clone.clone_process()
    if pid == 0:
        signal.pause()
        os._exit(1)
    copy = pidfd.get_fd(fd, reader)
    os.write(writer, b"x")
    assert os.read(copy, 1) == b"x"
    pidfd.send_signal(fd, signal.SIGKILL)
    reap(pid)
    for number in (copy, fd, reader, writer):
        os.close(number)


# /proc


@pytest.fixture
def own() -> Any:
    directory = procfs.open_process("self")
    yield directory
    os.close(directory)


def test_the_status_file_is_read_right(own: int) -> None:
    status = procfs.status(own)
    assert status.parent == os.getppid()
    assert status.uids == (*os.getresuid(), os.geteuid())
    assert status.gids == (*os.getresgid(), os.getegid())
    assert sorted(status.groups) == sorted(os.getgroups())
    assert (status.effective, status.permitted, status.inheritable) == tuple(capability.get())
    assert status.bounding == capability.bounding()
    assert status.no_new_privs is prctl.no_new_privs()
    assert status.threads == len(procfs.threads(own))


def test_a_name_in_the_status_file_cannot_forge_its_lines() -> None:
    def child() -> Any:
        prctl.set_name("x\nUid:\t0\t0")
        directory = procfs.open_process("self")
        return procfs.status(directory).uids == (*os.getresuid(), os.geteuid()), prctl.name()

    assert in_child(child) == (True, "x\nUid:\t0\t0")


def test_a_status_file_that_lacks_a_line_is_an_error() -> None:
    with pytest.raises(ValueError, match="lacks"):
        procfs.parse_status(b"Name:\tx\n")


def test_limits_are_read_right(own: int) -> None:
    found = procfs.limits(own)
    assert found == {name: rlimit.get(name) for name in rlimit.NUMBERS}


def test_limits_of_another_process_are_set() -> None:
    pid, fd = clone.clone_process()
    if pid == 0:
        signal.pause()
        os._exit(1)
    rlimit.set_("NOFILE", 17, 18, pid)
    assert rlimit.get("NOFILE", pid) == (17, 18)
    assert rlimit.get("NOFILE") != (17, 18)
    pidfd.send_signal(fd, signal.SIGKILL)
    reap(pid)
    os.close(fd)


@pytest.mark.parametrize(("soft", "hard", "code"), [(5, 4, errno.EINVAL), (0, 1 << 50, errno.EPERM)])
def test_a_limit_that_the_kernel_refuses_is_an_os_error(soft: int, hard: int, code: int) -> None:
    def child() -> int:
        be("ordinary user")
        return errno_of(rlimit.set_, "NOFILE", soft, hard)

    assert in_child(child) == code


def test_mounts_are_read_right(own: int) -> None:
    entries = procfs.mounts(own)
    assert any(entry.at == "/" for entry in entries)
    assert next(entry.kind for entry in entries if entry.at == "/proc") == "proc"


def test_blanks_in_a_mount_point_are_read_right() -> None:
    line = rb"36 35 98:0 /mnt1\040x /mnt2\011y rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    (entry,) = procfs.parse_mounts(line)
    assert (entry.root, entry.at, entry.kind) == ("/mnt1 x", "/mnt2\ty", "ext3")
    assert entry.options == {"rw", "noatime"}
    assert procfs.parse_mounts(line.replace(b"36 35 98:0", b"47 46 0:99")) == (entry,)


def test_files_longer_than_the_buffer_are_read_whole(own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = procfs.read(own, "limits")
    monkeypatch.setattr(procfs, "_SIZE", 10)
    assert procfs.read(own, "limits") == whole


@pytest.mark.parametrize("name", sorted(procfs._IN_ONE_PIECE))
def test_these_files_come_in_one_piece(own: int, name: str) -> None:
    """So that they are not read to an end that is known."""
    fd = os.open(name, os.O_RDONLY, dir_fd=own)
    try:
        assert len(os.read(fd, procfs._SIZE)) < procfs._SIZE
        assert os.read(fd, procfs._SIZE) == b""
    finally:
        os.close(fd)


def test_the_rest_of_proc_is_read(own: int) -> None:
    assert procfs.stat_fields(own)[0] == "R"
    assert procfs.stat_fields(own)[1] == str(os.getppid())
    assert procfs.image_size(own) > 1 << 20
    assert procfs.memory(own)["Pss"] > 0
    assert procfs.descriptor_flags(own, 0) >= 0


def test_descriptors_are_counted() -> None:
    """In a child: in the test process spare workers of other tests come and go."""

    def counts() -> tuple[int, int]:
        directory = procfs.open_process("self")
        return procfs.descriptor_count(directory), len(os.listdir("/proc/self/fd")) - 1

    count, listed = in_child(counts)
    assert count in (0, listed)


def test_a_directory_of_a_process_never_names_another() -> None:
    pid, fd = clone.clone_process()
    if pid == 0:
        signal.pause()
        os._exit(1)
    directory = procfs.open_process(pid)
    pidfd.send_signal(fd, signal.SIGKILL)
    reap(pid)
    with pytest.raises(OSError, match="No such"):
        procfs.read(directory, "status")
    os.close(directory)
    os.close(fd)


def test_the_processor_time_of_another_process_is_read() -> None:
    def burn() -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    ready, told = os.pipe()
    pid, fd = clone.clone_process()
    if pid == 0:
        burn()
        os.write(told, b"r")
        signal.pause()
        os._exit(1)
    os.read(ready, 1)
    assert 40_000_000 < procfs.cpu_time_ns(pid) < 5_000_000_000
    pidfd.send_signal(fd, signal.SIGKILL)
    reap(pid)
    assert errno_of(procfs.cpu_time_ns, pid) in (errno.EINVAL, errno.ESRCH)
    for number in (fd, ready, told):
        os.close(number)


# prctl, capabilities, ids


def test_the_parent_death_signal_is_set_and_read() -> None:
    def child() -> int:
        prctl.set_parent_death_signal(signal.SIGUSR1)
        return prctl.parent_death_signal()

    assert in_child(child) == signal.SIGUSR1


def test_a_change_of_uid_disarms_the_parent_death_signal() -> None:
    """Why the step comes last: the control to its place in the plan."""
    skip_unless("root")

    def child() -> int:
        prctl.set_parent_death_signal(signal.SIGKILL)
        ids.set_gids(ORDINARY, ORDINARY, ORDINARY)
        ids.set_uids(ORDINARY, ORDINARY, ORDINARY)
        return prctl.parent_death_signal()

    assert in_child(child) == 0


def test_ambient_capabilities_are_raised_and_cleared() -> None:
    skip_unless("root")

    def child() -> Any:
        sets = capability.get()
        capability.set_(sets._replace(inheritable=sets.permitted))
        prctl.raise_ambient(capability.SETUID)
        before = prctl.in_ambient_set(capability.SETUID)
        prctl.clear_ambient()
        return before, prctl.in_ambient_set(capability.SETUID)

    assert in_child(child) == (True, False)


def test_capability_names_are_in_the_kernels_order() -> None:
    assert capability.NAMES[capability.SYS_ADMIN] == "SYS_ADMIN"
    assert capability.NAMES[capability.SYS_PTRACE] == "SYS_PTRACE"
    assert len(capability.NAMES) == 41
    assert capability.last() >= 36
    assert capability.numbers_of(capability.mask_of((0, 5, 40))) == (0, 5, 40)


def test_groups_are_set() -> None:
    skip_unless("root")

    def child() -> list[int]:
        ids.set_groups((70_001, 70_002))
        return os.getgroups()

    assert in_child(child) == [70_001, 70_002]


def test_a_child_that_is_killed_is_told_so_by_the_helper() -> None:
    """One test proves that the tests can fail."""
    assert in_child(os.kill, 0, 0) is None
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGKILL)) == Died(signal.SIGKILL)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        in_child(lambda: 1 / 0)
