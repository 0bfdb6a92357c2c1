"""Runs in: the test process; every step is done to a forked child. Each property has the control that shows the action
works without the step."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import ORDINARY, Died, answer_descriptor, be, become_ordinary, errno_of, in_child

from bunri.confine import Context, StepFailed, carry_out
from bunri.kernel import capability, keyring, landlock, prctl, procfs, seccomp
from bunri.plan import steps as s

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[os.uname().machine]
GETPPID = {"x86_64": 110, "aarch64": 173}[os.uname().machine]


def after(*steps: s.AnyStep, do: Callable[[], Any], who: str = "ordinary user", context: Context | None = None) -> Any:
    """What `do` answers in a child that is `who` and has carried `steps` out."""

    def child() -> Any:
        be(who)
        carry_out(steps, context or Context())
        return do()

    return in_child(child)


def failure_of(*steps: s.AnyStep, who: str = "ordinary user", context: Context | None = None) -> tuple[str, int]:
    """Step and errno of the StepFailed that carrying `steps` out raises."""

    def child() -> tuple[str, int] | None:
        be(who)
        try:
            carry_out(steps, context or Context())
        except StepFailed as failed:
            return failed.step, failed.errno
        return None

    found = in_child(child)
    assert found is not None, "nothing failed"
    return found


def instruction(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("HBBI", code, jt, jf, k)


def filter_on(number: int, action: int) -> bytes:
    """A filter: `action` for one system call, ALLOW for all others."""
    load, equal, ret = 0x20, 0x15, 0x06
    return b"".join(
        (
            instruction(load, 0),
            instruction(equal, number, 0, 1),
            instruction(ret, action),
            instruction(ret, seccomp.RET_ALLOW),
        )
    )


def need_root() -> None:
    if os.getuid() != 0:
        pytest.skip("the tests run as an ordinary user")


def need_landlock(abi: int) -> None:
    try:
        found = landlock.abi()
    except OSError as error:
        pytest.skip(f"this kernel has no Landlock ({error})")
    if found < abi:
        pytest.skip(f"this kernel has Landlock ABI {found}; ABI {abi} is needed")


# identity


def test_after_set_ids_nothing_leads_back_to_root() -> None:
    need_root()
    step = s.SetIds(uid=ORDINARY, gid=ORDINARY)

    def look() -> Any:
        back = [errno_of(call, 0) for call in (os.setuid, os.seteuid, os.setgid, os.setegid)]
        return os.getresuid(), os.getresgid(), os.getgroups(), back, errno_of(os.setgroups, [0])

    control = after(do=lambda: errno_of(os.setuid, 0), who="root")
    uids, gids, groups, back, again = after(step, do=look, who="root")
    assert control == 0
    assert (uids, gids, groups) == ((ORDINARY,) * 3, (ORDINARY,) * 3, [])
    assert back == [errno.EPERM] * 4
    assert again == errno.EPERM


def test_ids_of_the_request_are_taken_where_the_plan_leaves_them_open() -> None:
    need_root()
    found = after(s.SetIds(), do=os.getresuid, who="root", context=Context(uid=61_201, gid=61_201))
    assert found == (61_201,) * 3


def test_groups_of_the_request_are_taken_where_the_plan_says_so() -> None:
    need_root()
    context = Context(uid=61_201, gid=61_201, groups=(61_202, 61_203))
    assert after(s.SetIds(groups_of_request=True), do=os.getgroups, who="root", context=context) == [61_202, 61_203]
    assert after(s.SetIds(), do=os.getgroups, who="root", context=context) == []


def test_ids_that_nobody_gave_are_a_failure() -> None:
    assert failure_of(s.SetIds()) == ("set_ids", errno.EINVAL)


def test_an_ordinary_user_cannot_become_another() -> None:
    assert failure_of(s.SetIds(uid=61_202, gid=61_202, groups=None)) == ("set_ids", errno.EPERM)


@pytest.mark.parametrize("securebits", [(), (s.Securebits(),)], ids=["plain", "with securebits locked"])
def test_all_capabilities_are_zero_also_where_the_uid_change_leaves_them(securebits: tuple[s.Securebits, ...]) -> None:
    need_root()
    change = s.SetIds(uid=ORDINARY, gid=ORDINARY)

    def look() -> Any:
        return tuple(capability.get()), capability.bounding(), errno_of(os.setuid, 0)

    if securebits:  # the trap: without SetCapabilities they stay
        (effective, _, _), _, _ = after(*securebits, change, do=look, who="root")
        assert effective != 0
    steps = (s.DropBounding(), *securebits, change, s.SetCapabilities())
    assert after(*steps, do=look, who="root") == ((0, 0, 0), 0, errno.EPERM)


def test_capabilities_that_are_kept_are_exactly_those() -> None:
    need_root()
    kept = capability.NAMES.index("NET_BIND_SERVICE")
    steps = (
        s.DropBounding(keep=(kept,)),
        s.Securebits(),
        s.SetIds(uid=ORDINARY, gid=ORDINARY),
        s.SetCapabilities(keep=(kept,)),
    )

    def look() -> Any:
        return tuple(capability.get()), capability.bounding()

    mask = 1 << kept
    assert after(*steps, do=look, who="root") == ((mask, mask, mask), mask)


def test_capabilities_that_are_not_there_cannot_be_kept() -> None:
    assert failure_of(s.SetCapabilities(keep=(capability.SYS_ADMIN,))) == ("set_capabilities", errno.EPERM)


def test_securebits_stay_locked() -> None:
    need_root()

    def look() -> Any:
        return prctl.securebits(), errno_of(prctl.set_securebits, 0)

    assert after(s.Securebits(), do=look, who="root") == (0b11101111, errno.EPERM)


# always


def test_no_new_privs_stays() -> None:
    assert after(do=prctl.no_new_privs) is False
    assert after(s.NoNewPrivs(), do=prctl.no_new_privs) is True


def test_after_mdwe_no_memory_is_both_writable_and_executable() -> None:
    def map_it() -> int:
        try:
            mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
        except OSError as error:
            return error.errno or -1
        return 0

    def gain() -> int:
        area = mmap.mmap(-1, 4096)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mprotect(ctypes.c_void_p(address), 4096, mmap.PROT_READ | mmap.PROT_EXEC)
        return ctypes.get_errno() if failed else 0

    if in_child(errno_of, prctl.set_mdwe):
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert after(do=lambda: (map_it(), gain())) == (0, 0)
    assert after(s.Mdwe(), do=lambda: (map_it(), gain())) == (errno.EACCES, errno.EACCES)


def test_limits_hold_and_cannot_be_raised() -> None:
    step = s.Limits(values={"NOFILE": 20, "CORE": 1, "FSIZE": 4096})

    def look() -> Any:
        return (
            resource.getrlimit(resource.RLIMIT_NOFILE),
            resource.getrlimit(resource.RLIMIT_CORE),
            errno_of(lambda: [os.dup(0) for _ in range(30)]),
        )

    assert after(do=look)[2] == 0
    assert after(step, do=look) == ((20, 20), (1, 1), errno.EMFILE)


def test_memory_is_counted_above_the_image() -> None:
    def take() -> bool:
        try:
            return bool(bytearray(200 << 20))
        except MemoryError:
            return False

    assert after(do=take) is True
    assert after(s.Limits(values={}, above_image=64 << 20), do=take) is False
    assert after(s.Limits(values={}, above_image=400 << 20), do=take) is True


def test_the_size_of_the_image_can_be_told() -> None:
    found = after(
        s.Limits(values={}, above_image=1 << 30),
        do=lambda: resource.getrlimit(resource.RLIMIT_AS),
        context=Context(image=1 << 30),
    )
    assert found == (2 << 30, 2 << 30)


def test_a_limit_that_does_not_exist_is_a_failure() -> None:
    assert failure_of(s.Limits(values={"NOPE": 1})) == ("limits", errno.EINVAL)


def test_the_killer_of_the_memoryless_takes_us_first() -> None:
    assert after(s.OomScore(score=500), do=lambda: int(Path("/proc/self/oom_score_adj").read_text())) == 500


def test_the_oom_score_is_set_also_after_proc_is_gone(who: str) -> None:
    steps = s.Unshare(namespaces=("mnt",)), s.NewRoot(mounts=()), s.OomScore(score=500), s.CloseDescriptors()
    assert after(*steps, do=lambda: os.listdir("/"), who=who, context=Context(keep=tuple(range(500)))) == []


def test_the_session_is_new() -> None:
    session = os.getsid(0)
    assert after(do=lambda: os.getsid(0)) == session
    assert after(s.NewSession(), do=lambda: os.getsid(0) == os.getpid()) is True


def test_the_keyring_is_fresh() -> None:
    try:
        before = in_child(keyring.join_session)
    except AssertionError:
        pytest.skip("this host refuses keyctl")
    assert before > 0

    def look() -> Any:
        carried = keyring.join_session()
        return carried, in_child(lambda: keyring.session_id()), after(s.Keyring(), do=keyring.session_id)

    carried, inherited, fresh = in_child(look)
    assert inherited == carried
    assert fresh != carried


def test_not_dumpable_hides_the_process_from_its_own_user() -> None:
    def look() -> Any:
        child_ready, told = os.pipe()
        end, ended = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ended)
            carry_out([s.NotDumpable()], Context())
            os.write(told, b"r")
            os.read(end, 1)
            os._exit(0)
        os.read(child_ready, 1)
        refused = errno_of(os.readlink, f"/proc/{pid}/ns/mnt")
        os.close(ended)
        os.waitpid(pid, 0)
        return refused

    def control() -> Any:
        become_ordinary()
        return errno_of(os.readlink, "/proc/self/ns/mnt"), look()

    assert in_child(control) == (0, errno.EACCES)


def test_descriptors_that_are_not_kept_are_closed() -> None:
    def look(steps: tuple[s.AnyStep, ...]) -> list[int]:
        numbers = [os.dup(0) for _ in range(3)]
        carry_out(steps, Context(keep=(0, 1, 2, numbers[1], answer_descriptor())))
        return [errno_of(os.fstat, number) for number in numbers]

    assert in_child(look, ()) == [0, 0, 0]
    assert in_child(look, (s.CloseDescriptors(),)) == [errno.EBADF, 0, errno.EBADF]


def test_the_surroundings_are_exactly_those_of_the_plan() -> None:
    def look() -> Any:
        return os.umask(0), os.getcwd(), dict(os.environ)

    step = s.Surroundings(environment={"LANG": "C.UTF-8"})
    assert after(step, do=look) == (0o077, "/", {"LANG": "C.UTF-8"})


def test_the_host_name_is_that_of_the_namespace(who: str) -> None:
    steps = s.Unshare(namespaces=("uts",)), s.Hostname(name="inside")
    assert after(*steps, do=socket.gethostname, who=who) == "inside"
    assert socket.gethostname() != "inside"


@pytest.mark.parametrize("name", ["mnt", "net", "ipc", "uts", "cgroup"])
def test_a_namespace_is_left(who: str, name: str) -> None:
    before = os.readlink(f"/proc/self/ns/{name}")
    assert after(s.Unshare(namespaces=(name,)), do=lambda: os.readlink(f"/proc/self/ns/{name}"), who=who) != before


def test_mounts_made_after_unshare_stay_inside(who: str, folder: Path) -> None:
    from bunri.kernel import mount

    def look() -> Any:
        mount.mount("x", str(folder), "tmpfs", 0, "size=4k")
        (folder / "inside").touch()
        return os.listdir(folder)

    assert after(s.Unshare(namespaces=("mnt",)), do=look, who=who) == ["inside"]
    assert os.listdir(folder) == []


def test_a_namespace_that_does_not_exist_is_a_failure() -> None:
    assert failure_of(s.Unshare(namespaces=("moon",))) == ("unshare", errno.EINVAL)


# files and signals by Landlock

READ = landlock.FS_READ_FILE | landlock.FS_READ_DIR


def test_after_landlock_a_file_cannot_be_read_that_could_before(folder: Path) -> None:
    need_landlock(1)
    (folder / "granted").mkdir()
    (folder / "granted/file").write_text("yes")
    (folder / "other").write_text("no")

    def look() -> Any:
        return [errno_of(os.open, folder / name, os.O_RDONLY) for name in ("granted/file", "other")]

    step = s.Landlock(abi=1, handled_fs=READ, paths=((str(folder / "granted"), READ),))
    assert after(do=look) == [0, 0]
    assert after(s.NoNewPrivs(), step, do=look) == [0, errno.EACCES]


def test_a_landlock_rule_on_a_single_file_is_possible(folder: Path) -> None:
    need_landlock(1)
    (folder / "file").write_text("yes")
    step = s.Landlock(abi=1, handled_fs=READ, paths=((str(folder / "file"), READ),))
    assert after(s.NoNewPrivs(), step, do=(folder / "file").read_text) == "yes"


def test_landlock_refuses_tcp_but_for_the_granted_port() -> None:
    need_landlock(4)
    with socket.create_server(("127.0.0.1", 0)) as granted, socket.create_server(("127.0.0.1", 0)) as other:
        ports = granted.getsockname()[1], other.getsockname()[1]

        def look() -> Any:
            return [errno_of(socket.socket().connect, ("127.0.0.1", port)) for port in ports]

        net = landlock.NET_CONNECT_TCP | landlock.NET_BIND_TCP
        step = s.Landlock(abi=4, handled_net=net, ports=((ports[0], landlock.NET_CONNECT_TCP),))
        assert after(do=look) == [0, 0]
        assert after(s.NoNewPrivs(), step, do=look) == [0, errno.EACCES]


def test_landlock_scopes_keep_signals_in() -> None:
    need_landlock(6)
    parent = os.getpid()

    def look() -> Any:
        return errno_of(os.kill, parent, 0), errno_of(os.kill, os.getpid(), 0)

    def as_we_are(*steps: s.AnyStep) -> Any:
        carry_out(steps, Context())
        return look()

    step = s.Landlock(abi=6, scoped=landlock.SCOPE_SIGNAL)
    assert in_child(as_we_are) == (0, 0)
    assert in_child(as_we_are, s.NoNewPrivs(), step) == (errno.EPERM, 0)


def test_a_landlock_abi_that_the_kernel_lacks_is_a_failure() -> None:
    need_landlock(1)
    assert failure_of(s.Landlock(abi=1000, handled_fs=READ)) == ("landlock", errno.EOPNOTSUPP)


def test_a_right_that_the_abi_lacks_is_a_failure() -> None:
    need_landlock(1)
    step = s.Landlock(abi=1, handled_fs=READ | landlock.FS_TRUNCATE)
    assert failure_of(s.NoNewPrivs(), step) == ("landlock", errno.EINVAL)


def test_landlock_without_no_new_privs_is_refused() -> None:
    need_landlock(1)
    assert failure_of(s.Landlock(abi=1, handled_fs=READ)) == ("landlock", errno.EPERM)


# syscalls


def test_the_filter_answers_as_it_says() -> None:
    step = s.Filter(program=filter_on(GETPPID, seccomp.RET_ERRNO | errno.EPERM))
    assert after(do=os.getppid) > 0
    assert after(s.NoNewPrivs(), step, do=os.getppid) == -errno.EPERM


def test_the_filter_kills_as_it_says() -> None:
    step = s.Filter(program=filter_on(GETPPID, seccomp.RET_KILL_PROCESS))
    assert after(s.NoNewPrivs(), step, do=os.getppid) == Died(signal.SIGSYS)


def test_the_listener_is_handed_on_and_closed() -> None:
    if not seccomp.action_available(seccomp.RET_USER_NOTIF):
        pytest.skip("this kernel has no seccomp notification")
    seen: list[int] = []

    def look() -> Any:
        from bunri.kernel import descriptors

        context = Context(on_listener=lambda fd: seen.append(fd) or kinds.append(descriptors.kind_of(fd)))  # type: ignore[func-returns-value]
        kinds: list[str] = []
        become_ordinary()
        program = filter_on(GETPPID, seccomp.RET_USER_NOTIF)
        carry_out([s.NoNewPrivs(), s.Filter(program=program, listener=True)], context)
        return kinds, errno_of(os.fstat, seen[0]), os.getppid()  # nobody listens any more: ENOSYS

    assert in_child(look) == (["seccomp notify"], errno.EBADF, -errno.ENOSYS)


def test_a_listener_that_nobody_takes_is_a_failure() -> None:
    step = s.Filter(program=filter_on(GETPPID, seccomp.RET_USER_NOTIF), listener=True)
    assert failure_of(s.NoNewPrivs(), step) == ("filter", errno.EINVAL)


@pytest.mark.parametrize("program", [b"", b"\0" * 7, b"\0" * 8 * 4097, instruction(0x15, 0)])
def test_a_program_that_is_none_is_a_failure(program: bytes) -> None:
    assert failure_of(s.NoNewPrivs(), s.Filter(program=program)) == ("filter", errno.EINVAL)


def test_strict_mode_leaves_read_write_and_exit() -> None:
    assert after(s.StrictMode(), do=os.getppid) == Died(signal.SIGKILL)


# the parent


def test_the_child_dies_with_its_parent() -> None:
    def parent() -> Any:
        here = os.getpid()
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            carry_out([s.ParentDeath()], Context(parent=here))
            os.write(told, b"r")
            signal.pause()
        os.read(ready, 1)
        return pid

    try:
        directory = procfs.open_process(in_child(parent))
    except FileNotFoundError:
        return  # it is gone already
    try:
        for _ in range(1000):
            try:
                if procfs.stat_fields(directory)[0] == "Z":
                    break
            except OSError:
                break
            os.sched_yield()
        else:
            pytest.fail("the orphan lives")
    finally:
        os.close(directory)


@pytest.mark.parametrize("context", [Context(parent=1 << 22), Context(parent_alive=lambda: False)])
def test_a_parent_that_died_too_early_is_noticed(context: Context) -> None:
    assert failure_of(s.ParentDeath(), context=context) == ("parent_death", errno.ESRCH)


def test_a_parent_that_cannot_be_looked_at_is_a_failure() -> None:
    assert failure_of(s.ParentDeath()) == ("parent_death", errno.EINVAL)


# the rest


def test_chroot_to_the_empty_folder_leaves_nothing() -> None:
    need_root()

    def look() -> Any:
        return os.listdir("/"), errno_of(os.stat, "/../etc"), errno_of(os.mkdir, "/new")

    steps = s.Chroot(path=s.EMPTY_DIRECTORY), s.SetIds(uid=ORDINARY, gid=ORDINARY), s.SetCapabilities()
    assert after(*steps, do=look, who="root") == ([], errno.ENOENT, errno.EACCES)


def test_chroot_is_refused_where_the_empty_folder_is_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    monkeypatch.setattr(s, "EMPTY_DIRECTORY", str(folder))
    folder.chmod(0o777)
    assert failure_of(s.Chroot(path=str(folder)), who="root") == ("chroot", errno.EPERM)
    folder.chmod(0o755)
    (folder / "file").touch()
    assert failure_of(s.Chroot(path=str(folder)), who="root") == ("chroot", errno.EPERM)


def test_chroot_to_a_grant_leaves_what_is_in_it(folder: Path) -> None:
    need_root()
    (folder / "file").touch()
    steps = s.Chroot(path=str(folder)), s.SetIds(uid=ORDINARY, gid=ORDINARY), s.SetCapabilities()
    assert after(*steps, do=lambda: os.listdir("/.."), who="root") == ["file"]


def test_an_optional_path_may_be_missing_for_landlock(folder: Path) -> None:
    need_landlock(1)
    missing = str(folder / "missing")
    step = s.Landlock(abi=1, handled_fs=READ, paths=((missing, READ),))
    assert failure_of(s.NoNewPrivs(), step) == ("landlock", errno.ENOENT)
    step = s.Landlock(abi=1, handled_fs=READ, paths=((missing, READ),), optional=(missing,))
    assert after(s.NoNewPrivs(), step, do=lambda: errno_of(os.listdir, folder)) == errno.EACCES


def test_at_the_checkpoint_the_process_can_be_looked_at() -> None:
    need_root()

    def child() -> Any:
        steps = s.SetIds(uid=ORDINARY, gid=ORDINARY), s.Checkpoint(), s.NotDumpable()
        before: list[int] = []
        carry_out(steps, Context(checkpoint=lambda: before.append(prctl.dumpable())))
        return before, prctl.dumpable()

    assert in_child(child) == ([1], 0)


def test_a_checkpoint_that_nobody_attends_is_a_failure() -> None:
    assert failure_of(s.Checkpoint()) == ("checkpoint", errno.EINVAL)


def test_every_step_has_its_function() -> None:
    from typing import get_args

    from bunri.confine import carry

    assert set(carry._DO) == set(get_args(s.AnyStep))


def test_nothing_after_a_failed_step_is_done() -> None:
    def child() -> Any:
        try:
            carry_out([s.Unshare(namespaces=("moon",)), s.NoNewPrivs()], Context())
        except StepFailed:
            return prctl.no_new_privs()

    assert in_child(child) is False
