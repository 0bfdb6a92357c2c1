"""Runs in: the test process. What a worker's filter answers, call by call, and that two filters together are one."""

from __future__ import annotations

import errno

import pytest

from bunri.errors import Promise
from bunri.plan import Needs, allow, hosts, plan
from bunri.plan.means import Means
from bunri.plan.needs import PythonPaths
from bunri.plan.steps import Filter
from bunri.policy import Policy, fs
from bunri.seccomp import Action, Kind, Program, group

ALLOW, KILL = Action.ALLOW, Action.KILL
REFUSED, ABSENT = Action.errno(errno.EPERM), Action.errno(errno.ENOSYS)
PYTHON = PythonPaths(("/usr/lib/python3.11",))

NOTHING = Needs()
SOCKETS = Needs(stream_sockets=True)
LOOP = Needs(asynchronous=True)
HANDLES_DOWN, HANDLES_UP = Needs(receives_descriptors=True), Needs(sends_descriptors=True)
DEFAULT = Policy()
READS = Policy(files=[fs.read("/usr/share")])
WRITES = Policy(files=[fs.write("/srv/x")])
FORKS = Policy(threads=2, processes=2, may_miss=[Promise.MEMORY])

CLONE_NEWUSER, CLONE_PARENT, A_THREAD = 0x10000000, 0x8000, 0x100 | 0x800 | 0x10000
HIGH = 1 << 32

TABLE = [
    (DEFAULT, NOTHING, "read", (3, 1, 1), ALLOW),
    (DEFAULT, NOTHING, "write", (3, 1, 1), ALLOW),
    (DEFAULT, NOTHING, "exit_group", (0,), ALLOW),
    (DEFAULT, NOTHING, "getcwd", (1, 1), ALLOW),
    (DEFAULT, NOTHING, "chdir", (1,), REFUSED),
    # THREATS 2
    (DEFAULT, NOTHING, "socket", (1, 1, 0), REFUSED),
    (DEFAULT, NOTHING, "sendto", (4, 1, 1, 0, 0, 0), REFUSED),
    *[(DEFAULT, SOCKETS, name, (4, 1, 16), REFUSED) for name in ("connect", "bind", "listen", "accept4")],
    (DEFAULT, SOCKETS, "sendto", (4, 1, 1, 0x4000, 0, 0), ALLOW),
    (DEFAULT, SOCKETS, "sendto", (4, 1, 1, 0, 0x7F0000000000, 16), REFUSED),
    (DEFAULT, SOCKETS, "sendto", (4, 1, 1, 1, 0, 0), REFUSED),
    (DEFAULT, SOCKETS, "setsockopt", (4, 6, 1), ALLOW),
    (DEFAULT, SOCKETS, "setsockopt", (4, 1, 13), REFUSED),
    (DEFAULT, SOCKETS, "sendmsg", (4, 1, 0), REFUSED),
    (DEFAULT, HANDLES_UP, "sendmsg", (3, 1, 0x4000), ALLOW),
    (DEFAULT, HANDLES_UP, "sendmmsg", (3, 1, 1, 0), REFUSED),
    (DEFAULT, HANDLES_DOWN, "recvmsg", (3, 1, 0x40000000), ALLOW),
    (DEFAULT, HANDLES_DOWN, "sendmsg", (3, 1, 0), REFUSED),
    # THREATS 4
    *[(DEFAULT, NOTHING, name, (2,), KILL) for name in ("ptrace", "process_vm_readv", "pidfd_getfd", "kcmp")],
    (DEFAULT, NOTHING, "kill", (2, 9), REFUSED),
    (DEFAULT, NOTHING, "kill", (0xFFFFFFFF, 9), REFUSED),
    (DEFAULT, NOTHING, "prlimit64", (2, 7), REFUSED),
    (DEFAULT, NOTHING, "prlimit64", (HIGH, 7), ALLOW),
    (DEFAULT, NOTHING, "setpriority", (0, 0, 0), REFUSED),
    # THREATS 12
    *[(DEFAULT, Needs(files=True), name, (4,), REFUSED) for name in ("fchmod", "fchown", "flock", "fsetxattr")],
    (DEFAULT, Needs(files=True), "fcntl", (4, 8, 1), REFUSED),
    (DEFAULT, Needs(files=True), "lseek", (4, 0, 0), ALLOW),
    # THREATS 14
    (DEFAULT, NOTHING, "mmap", (0, 4096, 3), ALLOW),
    (DEFAULT, NOTHING, "mmap", (0, 4096, 5), REFUSED),
    (DEFAULT, NOTHING, "mprotect", (0, 4096, 5), REFUSED),
    (Policy(files=[fs.python()]), NOTHING, "mmap", (0, 4096, 5), ALLOW),
    (DEFAULT, NOTHING, "execve", (1, 1, 1), REFUSED),
    # THREATS 15
    (DEFAULT, NOTHING, "clone3", (1, 88), ABSENT),
    (Policy(threads=1), NOTHING, "clone", (CLONE_NEWUSER | 17,), KILL),
    (FORKS, NOTHING, "clone", (CLONE_PARENT | 17,), KILL),
    (Policy(threads=1), NOTHING, "clone", (A_THREAD,), ALLOW),
    (DEFAULT, NOTHING, "clone", (A_THREAD,), REFUSED),
    *[(DEFAULT, NOTHING, n, (1,), KILL) for n in ("bpf", "io_uring_setup", "unshare", "setns", "mount", "keyctl")],
    *[(READS, LOOP, n, (1,), KILL) for n in ("seccomp", "userfaultfd", "open_by_handle_at", "perf_event_open")],
    (DEFAULT, NOTHING, 99999, (), ABSENT),
    # THREATS 22: PDEATHSIG DUMPABLE SECCOMP MM PTRACER
    *[(DEFAULT, NOTHING, "prctl", (n, 0), REFUSED) for n in (1, 4, 22, 35, 0x59616D61)],
    (DEFAULT, NOTHING, "prctl", (15, 1), ALLOW),
    # THREATS 30
    *[(WRITES, NOTHING, n, (1, 1), REFUSED) for n in ("memfd_create", "shmget", "shmat", "mq_open")],
    (WRITES, NOTHING, "fcntl", (4, 1031, 1 << 20), REFUSED),
    # Files, terminals, the loop
    (DEFAULT, NOTHING, "openat", (0xFFFFFF9C, 1, 0), REFUSED),
    (READS, NOTHING, "openat", (0xFFFFFF9C, 1, 0), ALLOW),
    (READS, NOTHING, "openat", (0xFFFFFF9C, 1, 0o101), REFUSED),
    (WRITES, NOTHING, "openat", (0xFFFFFF9C, 1, 0o101), ALLOW),
    *[(READS, NOTHING, n, (1, 1, 1, 1), Action.errno(errno.EOPNOTSUPP)) for n in ("lgetxattr", "listxattr")],
    (Policy(files=READS.files, syscalls=["listxattr"]), NOTHING, "listxattr", (1, 1, 1), ALLOW),
    (WRITES, NOTHING, "setxattr", (1, 1, 1, 1, 0), REFUSED),
    (DEFAULT, NOTHING, "newfstatat", (3, 1, 1, 0x1000), ALLOW),
    (DEFAULT, NOTHING, "newfstatat", (3, 1, 1, 0), REFUSED),
    (DEFAULT, NOTHING, "ioctl", (1, 0x5401), Action.errno(errno.ENOTTY)),
    (DEFAULT, NOTHING, "ioctl", (1, 0x5412), REFUSED),
    (DEFAULT, NOTHING, "epoll_wait", (4,), REFUSED),
    (DEFAULT, LOOP, "epoll_wait", (4,), ALLOW),
    (Policy.compute(), NOTHING, "read", (3, 1, 1), ALLOW),
    (Policy.compute(), NOTHING, "mmap", (0, 4096, 3), Action.errno(errno.ENOMEM)),
    (Policy.compute(), NOTHING, "ptrace", (0,), KILL),
]


def _means(policy: Policy, needs: Needs) -> Means:
    return Means(policy.settled(), hosts.ROOT, needs, None, False)


def _worker_sees(policy: Policy, needs: Needs, call: str | int, args: tuple[int, ...]) -> Action:
    """What the two filters of a real plan answer together: the kernel obeys the strictest."""
    made = plan(policy, hosts.ROOT, needs, python=PYTHON)
    filters = [Program.from_bytes(s.program) for s in (*made.template, *made.worker) if isinstance(s, Filter)]
    assert len(filters) == 2
    return max((f.decide("x86_64", call, args) for f in filters), key=lambda a: _STRICTNESS.index(a.kind))


_STRICTNESS = [Kind.ALLOW, Kind.LOG, Kind.NOTIFY, Kind.ERRNO, Kind.TRAP, Kind.KILL_THREAD, Kind.KILL]


@pytest.mark.parametrize(("policy", "needs", "call", "args", "answer"), TABLE)
def test_a_worker_is_answered_as_the_table_says(
    policy: Policy, needs: Needs, call: str | int, args: tuple[int, ...], answer: Action
) -> None:
    padded = (*args, *(0,) * (6 - len(args)))
    assert _worker_sees(policy, needs, call, padded) == answer


@pytest.mark.parametrize("policy", [DEFAULT, READS, WRITES, FORKS, Policy(files=[fs.python()])])
@pytest.mark.parametrize("needs", [NOTHING, LOOP, Needs(stream_sockets=True, files=True, receives_descriptors=True)])
def test_template_and_top_up_together_are_the_workers_list(policy: Policy, needs: Needs) -> None:
    whole = allow.worker_program(_means(policy, needs))
    made = plan(policy, hosts.ROOT, needs, python=PYTHON)
    filters = [Program.from_bytes(s.program) for s in (*made.template, *made.worker) if isinstance(s, Filter)]
    values = (0, 1, 4, 22, 24, 38, 41, 47, 0x1000, 0x5401, CLONE_NEWUSER, (1 << 64) - 1)
    for call in group("@known"):
        for value in values:
            args = (value,) * 6
            wanted = whole.decide("x86_64", call, args)
            answers = [f.decide("x86_64", call, args) for f in filters]
            assert max(answers, key=lambda a: _STRICTNESS.index(a.kind)) == wanted, (call, hex(value))


@pytest.mark.parametrize("arch", ["i386", "aarch64"])
def test_another_architecture_dies_under_both_filters(arch: str) -> None:
    made = plan(DEFAULT, hosts.ROOT, NOTHING, python=PYTHON)
    for step in (*made.template, *made.worker):
        if isinstance(step, Filter):
            assert Program.from_bytes(step.program).decide(arch, 1, (0,) * 6) == KILL
