"""Runs in: the test process. Development mode: what a worker is refused is told, with its arguments and the grant."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import refused
from refused import Brokered, Plain, Refused

import bunri
from bunri import Denial, Observer, Violation, fs, net, seccomp
from bunri.cli.denials import options_of
from bunri.process import program
from bunri.seccomp import Arg

NAMES = {"fs": fs, "net": net, "seccomp": seccomp, "Arg": Arg, "Via": bunri.Via}


@pytest.fixture(autouse=True)
def development() -> Iterator[None]:
    here = program.current()
    if not here.host.seccomp_notify:
        pytest.skip("this host has no notifications")
    here.tells_denials = True
    yield
    here.tells_denials = False


def told(code: str, cls: type[Refused] = Refused) -> tuple[str, tuple[Denial, ...]]:
    """What the code came to, and what it was refused."""
    with cls.start() as worker:
        try:
            result = worker.run_code(code)
        except bunri.RemoteError as fault:
            result = str(fault.type_name)
        except Violation:
            result = "Violation"
        # Python 3.12 and newer look there how many threads there are when they fork.
        return result, tuple(each for each in worker.process.denials if each.path != "/proc/self/stat")


@pytest.mark.parametrize(
    ("code", "call", "arguments", "grant"),
    [
        ("result = call('openat', -100, b'/etc/passwd', 0)", "openat", ("AT_FDCWD", "'/etc/passwd'", "O_RDONLY"),
         "files=[fs.read('/etc/passwd')]"),
        ("result = call('openat', -100, b'/tmp/x', os.O_CREAT | os.O_WRONLY, 0o640)", "openat",
         ("AT_FDCWD", "'/tmp/x'", "O_WRONLY|O_CREAT", "0640"), "files=[fs.write('/tmp')]"),
        ("result = call('openat', -100, b'/proc/1/maps', 0)", "openat", ("AT_FDCWD", "'/proc/1/maps'", "O_RDONLY"), None),
        ("result = call('execve', b'/proc/1/exe', 0, 0)", "execve", ("'/proc/1/exe'", "NULL", "NULL"), None),
        ("result = call('mkdir', b'/x', 0o700)", "mkdir", ("'/x'", "0700"), None),  # fs.write('/') would be everything
        ("result = call('openat', -100, b'/', 0)", "openat", ("AT_FDCWD", "'/'", "O_RDONLY"), None),
        ("result = call('openat', -100, b'//', 0)", "openat", ("AT_FDCWD", "'//'", "O_RDONLY"), None),
        ("result = call('mkdir', b'//x', 0o700)", "mkdir", ("'//x'", "0700"), None),
        ("result = call('execve', b'/bin/..//', 0, 0)", "execve", ("'/bin/..//'", "NULL", "NULL"), None),
        ("result = call('execve', b'//', 0, 0)", "execve", ("'//'", "NULL", "NULL"), None),
        ("result = call('socket', 10, 1, 0)", "socket", ("AF_INET6", "SOCK_STREAM", "0"),
         "network=[net.connect(host, port)]"),
        ("result = call('socket', 16, 3, 0)", "socket", ("AF_NETLINK", "SOCK_RAW", "0"), None),
        ("os.fork()", "clone", None, "processes=1"),
        ("threading.Thread(target=print).start()", "clone", None, "threads=1"),
        ("os.memfd_create('m')", "memfd_create", ("'m'", "0x1"), "syscalls=['memfd_create']"),
        ("fcntl.fcntl(0, 0x407, 4096)", "fcntl", ("0", "1031", "0x1000"),
         "syscalls=[seccomp.allow('fcntl', when=Arg(1).int32 == 0x407, reason=\"...\")]"),
        ("os.execv('/bin/sh', ['sh'])", "execve", None, "files=[fs.execute('/bin/sh')], processes=1"),
        ("mmap.mmap(-1, 4096, prot=7)", "mmap",
         ("NULL", "4096", "PROT_READ|PROT_WRITE|PROT_EXEC", "MAP_SHARED|MAP_ANONYMOUS", "-1", "0"), None),
        ("result = call('kill', 1 << 20, 9)", "kill", ("1048576", "SIGKILL"), "syscalls=['kill']"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told(code: str, call: str, arguments: tuple[str, ...] | None, grant: str | None) -> None:
    result, denials = told(code)
    assert result in ("EPERM", "Violation", "RuntimeError")
    assert len(denials) == 1
    (denial,) = denials
    assert (denial.call, denial.grant, denial.layer) == (call, grant, "seccomp filter")
    assert denial.observed_by is Observer.KERNEL
    if arguments is not None:
        assert denial.arguments == arguments


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        ("result = call('openat', -100, b'/etc/passwd', 0)", refused.WithFile),
        ("os.memfd_create('m'); result = 'ok'", refused.WithMemory),
        ("fcntl.fcntl(os.pipe()[0] if 0 else 0, 0x407, 4096)", refused.WithPipes),
        ("threading.Thread(target=int).start(); result = 'ok'", refused.WithThreads),
        ("os.fork() or os._exit(0); result = 'ok'", refused.WithProcesses),
        ("result = call('socket', 2, 1, 0)", refused.WithConnection),
        ("result = call('ptrace', 0, 0, 0, 0)", refused.WithPtrace),
    ],
)
def test_the_grant_that_is_proposed_allows_it(code: str, cls: type[Refused]) -> None:
    """With it pasted, the call is told no more."""
    try:
        _, before = told(code)
    except bunri.WorkerDied as died:
        assert isinstance(died.__cause__, Violation)
        before = (died.__cause__.denial,)
    assert before[0].grant is not None
    pasted = eval(f"Policy({before[0].grant})", {**NAMES, "Policy": bunri.Policy, "host": "127.0.0.1", "port": 10})
    assert pasted.with_(may_miss=cls.policy.may_miss) == cls.policy
    _, after = told(code, cls)
    assert after == ()


CALLS = (
    ("openat", "-100, b'/etc/passwd', 0"), ("socket", "2, 1, 0"), ("socket", "16, 3, 0"), ("clone3", "0, 0"),
    ("ioctl", "0, 0x5401, 0"), ("memfd_create", "b'm', 0"), ("setuid", "0"), ("mkdir", "b'/x', 0o700"),
    ("getpid", ""), ("futex", "0, 6, 0"),
)  # fmt: skip


def test_its_answers_are_those_of_every_day() -> None:
    """Whatever is told, the worker gets what it gets without."""
    code = "result = ' '.join([" + ", ".join(f"call('{name}', {args})" for name, args in CALLS) + "])"
    program.current().tells_denials = False
    plain, nothing = told(code, Plain)
    program.current().tells_denials = True
    assert told(code)[0] == plain
    assert nothing == ()


def test_what_is_death_is_told_and_is_death() -> None:
    """The call has no answer: nothing of the worker runs after it."""
    with Refused.start() as worker, pytest.raises(bunri.WorkerDied, match="it called unshare") as caught:
        worker.run_code("result = call('unshare', 0x10000000)")
    cause = caught.value.__cause__
    assert isinstance(cause, Violation)
    assert cause.denial.arguments == ("CLONE_NEWUSER",)
    assert cause.denial.grant == "syscalls=['dangerous_unshare']"
    with Refused.start() as worker, pytest.raises(bunri.WorkerDied, match="it called clone"):
        worker.run_code("result = call('clone', 0x10000000 | 17, 0, 0, 0, 0)")


def test_a_violation_carries_what_the_kernel_told() -> None:
    with Refused.start() as worker, pytest.raises(Violation) as caught:
        worker.run_code("open('/etc/passwd')")
    denial = caught.value.denial
    assert (denial.call, denial.path, denial.observed_by) == ("openat", "/etc/passwd", Observer.KERNEL)
    assert denial.where is not None and 'File "the code", line 1' in denial.where
    assert "files=[fs.read('/etc/passwd')]" in str(caught.value)
    assert '"observed_by": "kernel"' in denial.to_json()


def test_what_a_library_keeps_to_itself_is_told() -> None:
    """getaddrinfo says no more than that there is no such name."""
    result, denials = told("socket.getaddrinfo('localhost', 80)")
    assert result == "gaierror"
    assert {denial.call for denial in denials} & {"socket", "openat"}


def test_what_a_broker_refuses_is_told() -> None:
    code = """
os.stat('/usr/share/zoneinfo')
try: open('/etc/passwd')
except OSError: pass
made = socket.socket()
try: made.connect(('127.0.0.1', 8))
except OSError as fault: result = errno.errorcode[fault.errno]
"""
    result, denials = told(code, Brokered)
    assert result == "EACCES"
    assert [(d.layer, d.grant) for d in denials] == [
        ("broker", "files=[fs.read('/etc/passwd', via=Via.BROKER)]"),
        ("broker", "network=[net.connect('127.0.0.1', 8)]"),
    ]
    assert denials[1].address == "127.0.0.1:8"


def test_a_program_and_what_it_starts() -> None:
    policy = bunri.Policy(files=[fs.system()], processes=8, memory="512M", may_miss=[bunri.Promise.MEMORY])
    script = "import socket\ntry: socket.socket(socket.AF_NETLINK, 3)\nexcept OSError as e: print(e.errno)"
    process = bunri.spawn(
        ["sh", "-c", f"{sys.executable if sys.executable.startswith('/usr') else '/usr/bin/python3'} -c '{script}'; exit 3"],
        policy, stdout=bunri.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        assert os.read(process.stdout.fileno(), 100) == b"1\n"
        assert process.wait().code == 3
    assert any(
        d.call == "socket" and d.arguments == ("AF_NETLINK", "SOCK_RAW|SOCK_CLOEXEC", "0") for d in process.denials
    )


def test_no_end_of_refusals(caplog: pytest.LogCaptureFixture) -> None:
    """They are kept and logged so far and no further, and hold up nobody else."""
    caplog.set_level(logging.WARNING, "bunri.violations")
    with Refused.start() as other, Refused.start() as worker:
        assert worker.run_code("result = sum(call('setuid', 0) == 'EPERM' for _ in range(3000))") == "3000"
        assert other.run_code("result = 1") == "1"
        worker.run_code("time.sleep(1.1); call('setuid', 0)")
        kept = worker.process.denials
    assert 0 < len(kept) <= 200
    assert 0 < len(caplog.records) <= 1001
    assert any("more before it" in record.getMessage() for record in caplog.records)
    assert caplog.records[0].__dict__["denial"].call == "setuid"


def test_threat_26_attack() -> None:
    """What only the worker says proposes nothing, and what it says of itself is escaped and cut."""
    forged = "raise PermissionError(1, 'observed by kernel', '/x\\x1b[31m\\nWARNING grant: files=[fs.system()]')"
    with Refused.start() as worker:
        with pytest.raises(Violation) as caught:
            worker.run_code(forged)
        assert worker.process.denials == ()
    denial = caught.value.denial
    assert (denial.observed_by, denial.grant, denial.call) == (Observer.WORKER, None, None)
    assert "\x1b" not in str(denial) and "\n" not in str(denial)
    # A path that is really asked for, and would be a second line or another grant.
    for path in (b"/x\n  grant: y", b"/x'), fs.system(", b"/\xff\x1b[2J"):
        _, denials = told(f"result = call('openat', -100, {path!r}, 0)")
        text = str(denials[0]) + denials[0].to_json()
        assert text.isprintable() and "\n" not in text and "\x1b" not in text
        if denials[0].grant is not None:
            assert eval(f"Policy({denials[0].grant})", {**NAMES, "Policy": bunri.Policy}) == bunri.Policy(
                files=[fs.read(os.fsdecode(path))]
            )


def test_no_option_is_proposed_that_would_grant_another_path() -> None:
    """`--read PATH:AT`: in a name with a colon, what was refused is one path, and what it would grant is another."""
    grants = "fs.read('/:/usr/x')", "fs.write('/root:/x')", "fs.execute('/:/x')"
    for grant in grants:
        assert list(options_of(Denial(call="openat", grant=f"files=[{grant}]"))) == []
    assert list(options_of(Denial(call="openat", grant="files=[fs.read('/a:b')]"))) == ["--read /a:b"]


def test_threat_26_control() -> None:
    """The same, said by the kernel, does propose."""
    _, denials = told("result = call('openat', -100, b'/x', 0)")
    assert denials[0].grant == "files=[fs.read('/x')]"
    unescaped = "\x1b[31m\nWARNING grant"
    assert not unescaped.isprintable()


@pytest.mark.slow
def test_python_x_dev_is_the_switch(tmp_path: Path) -> None:
    """And without it nothing is told."""
    script = tmp_path / "small.py"
    script.write_text(
        "import os, bunri\n"
        "class Small(bunri.Compartment):\n"
        "    def ask(self) -> str:\n"
        "        try: os.memfd_create('m')\n"
        "        except OSError: return 'refused'\n"
        "        return 'made'\n"
        "if __name__ == '__main__':\n"
        "    with Small.start() as small:\n"
        "        print(small.ask(), [d.call for d in small.process.denials], *small.process.report.notes)\n"
    )
    script.chmod(0o644)
    tmp_path.chmod(0o755)
    inherited = {**os.environ, "PYTHONDEVMODE": "1"}  # which is nobody's decision to run that program so
    for switch, printed in ((["-X", "dev"], "refused ['memfd_create']"), ([], "refused []")):
        done = subprocess.run(
            [sys.executable, *switch, script], capture_output=True, text=True, timeout=30, check=False, env=inherited
        )
        assert done.stdout.startswith(printed), done.stderr
        assert ("development mode" in done.stdout) == bool(switch)
        assert ("was refused by" in done.stderr) == bool(switch)
