"""Runs in: the test process. Notations of other programs, in and out: what they say is decided, what they cannot is listed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_policies import MAKERS, Stated, arguments, examples, policies

from bunri.errors import UsageError
from bunri.seccomp import (
    ATTACK_SHAPED,
    Action,
    Arg,
    Imported,
    Kind,
    allow,
    compile,
    deny,
    from_minijail,
    from_oci,
    from_systemd,
    from_trace,
    group,
    is_known,
    kill,
    syscalls_of,
    to_systemd,
)

pytestmark = pytest.mark.slow

EPERM, ENOSYS, EACCES = Action.errno(1), Action.errno(38), Action.errno(13)
ARCH = "x86_64"


# systemd


def test_a_systemd_list_is_read_as_systemd_does() -> None:
    unit = """
        [Service]
        SystemCallArchitectures=native
        SystemCallFilter=@basic-io openat connect:EACCES \\
            ptrace
        # SystemCallFilter=mount
        SystemCallFilter=~openat getpid:kill
        SystemCallErrorNumber=EPERM
        MemoryDenyWriteExecute=yes
    """
    it = from_systemd(unit)
    program = it.compile()
    decided = {
        call: program.decide(ARCH, call)
        for call in ("read", "openat", "connect", "ptrace", "getpid", "mount", "execve")
    }
    assert decided == {"read": Action.ALLOW, "openat": EPERM, "connect": EACCES, "ptrace": Action.ALLOW,
                       "getpid": Action.KILL, "mount": EPERM, "execve": Action.ALLOW}  # fmt: skip
    assert any("MemoryDenyWriteExecute" in line for line in it.left_out)


def test_a_systemd_list_that_refuses_allows_the_rest() -> None:
    program = from_systemd("SystemCallFilter=~@mount chroot:ENOSYS\nSystemCallFilter=pivot_root\n").compile()
    decided = {call: program.decide(ARCH, call) for call in ("read", "mount", "chroot", "pivot_root")}
    assert decided == {"read": Action.ALLOW, "mount": Action.KILL, "chroot": ENOSYS, "pivot_root": Action.ALLOW}


def test_systemds_own_sets_are_ours() -> None:
    """What this machine's systemd prints for a set holds every call of ours, and lacks none that our tables know."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for name in ("@basic-io", "@mount", "@network-io", "@signal", "@swap", "@timer"):
        done = subprocess.run(
            ["systemd-analyze", "--no-pager", "syscall-filter", name], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"systemd-analyze syscall-filter: {done.stderr.strip()}")
        theirs = {
            line.strip() for line in done.stdout.split("\n") if line.startswith("    ") and is_known(line.strip())
        }
        missing = theirs - set(group(name))
        assert not missing, (name, missing)


@settings(max_examples=examples(40), deadline=None)
@given(policies(("lseek", "dup3", "getppid", "execve"), args=(3, 4), makers=MAKERS), st.sampled_from((EPERM, Action.KILL, Action.ALLOW)),
       st.lists(arguments, min_size=3, max_size=6))  # fmt: skip
def test_what_goes_out_to_systemd_comes_back_no_weaker(
    stated: list[Stated], default: Action, calls: list[tuple[int, ...]]
) -> None:
    try:
        program = compile([one.rule for one in stated], default=default)
        out = to_systemd(program)
    except UsageError:
        assume(False)
        return
    back = from_systemd(out.text).compile()
    listed = " ".join(out.left_out)
    for call in syscalls_of(ARCH):
        for args in calls:
            wanted, got = program.decide(ARCH, call, args), back.decide(ARCH, call, args)
            if wanted == got:
                continue
            assert f"{call}: " in listed or (f"{wanted} here" in listed), (call, args, wanted, got, out)
            if got == Action.ALLOW:
                assert wanted.kind in (Kind.ALLOW, Kind.LOG), (call, args, wanted, out.text)


def test_what_systemd_cannot_say_is_listed() -> None:
    out = to_systemd(compile([allow("lseek", when=Arg(2) == 0, reason="x"), allow("read", reason="x")]))
    assert "SystemCallErrorNumber=EPERM" in out.text
    assert any(line.startswith("lseek: ") for line in out.left_out)
    assert any("newer" in line for line in out.left_out)
    assert "execve" in out.text.split("=~")[1], "systemd's @default must be taken away"


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        ("[Service]\nExecStart=/bin/true\n", "no SystemCallFilter"),
        ("SystemCallFilter=@basicio", "@basic-io"),
        ("\nSystemCallFilter=read:EPRM", "line 2"),
        ("SystemCallFilter=read\nSystemCallFilter=\n", "no SystemCallFilter"),
    ],
)
def test_what_systemd_would_not_take_is_refused_with_its_line(unit: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        from_systemd(unit)


def test_an_unknown_name_is_listed_as_systemd_warns() -> None:
    assert any("reed" in line for line in from_systemd("SystemCallFilter=read reed").left_out)


# minijail


def test_a_minijail_policy_decides_as_its_manual_says() -> None:
    it = from_minijail(
        """
        # a comment
        read: 1
        write: allow
        close: return EACCES
        socket: arg0 == AF_UNIX || arg0 == AF_INET && arg1 == SOCK_STREAM; return EPERM
        mmap: arg2 in ~PROT_EXEC
        lseek: arg2 & 0x6
        fcntl: arg1 == F_GETFL || arg1 == (1|2)
        umask: arg0 <= 0777
        getpid: kill
        """
    )
    program = it.compile()
    table = {
        ("read", ()): Action.ALLOW, ("write", ()): Action.ALLOW, ("close", ()): EACCES, ("getpid", ()): Action.KILL,
        ("socket", (1, 5)): Action.ALLOW, ("socket", (2, 1)): Action.ALLOW, ("socket", (2, 2)): EPERM,
        ("mmap", (0, 0, 3)): Action.ALLOW, ("mmap", (0, 0, 5)): Action.KILL,
        ("lseek", (0, 0, 2)): Action.ALLOW, ("lseek", (0, 0, 1)): Action.KILL, ("lseek", (0, 0, 4)): Action.ALLOW,
        ("fcntl", (0, 3)): Action.ALLOW, ("fcntl", (0, 4)): Action.KILL,
        ("umask", (511,)): Action.ALLOW, ("umask", (512,)): Action.KILL, ("openat", ()): Action.KILL,
    }  # fmt: skip
    assert {key: program.decide(ARCH, *key) for key in table} == table
    assert not it.left_out


def test_minijails_default_and_what_cannot_be_carried_over() -> None:
    it = from_minijail("@default return EPERM\n@frequency x\nopenat: arg1 == 5\nreed: 1\nlseek: arg0 < 0\n")
    assert it.compile().decide(ARCH, "openat", (0, 5)) == EPERM
    assert it.compile().decide(ARCH, "lseek") == EPERM
    said = "\n".join(it.left_out)
    assert all(word in said for word in ("@frequency", "pointer", "reed", "never holds"))


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("read", "line 1"),
        ("\nread: maybe", "line 2"),
        ("read: 1\nread: 1", "line 1 already"),
        ("@include /etc/x", "@include"),
        ("socket: arg0 == AF_UNIXX", "AF_UNIXX"),
        ("socket: arg6 == 1", "arg6"),
        ("socket: arg0 == (1", "')'"),
        ("read: return 5000", "line 1"),
        ("lseek: arg0 == 0x1ffffffffffffffff", "64-bit"),
    ],
)
def test_what_is_no_minijail_policy_is_refused_with_its_line(policy: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        from_minijail(policy)


def test_a_name_may_be_given_its_number() -> None:
    program = from_minijail("ioctl: arg1 == MY_IOCTL", constants={"MY_IOCTL": 77}).compile()
    assert program.decide(ARCH, "ioctl", (0, 77)) == Action.ALLOW


# traces

LINES = """\
execve("/bin/cat", ["cat"], 0x7ffd /* 5 vars */) = 0
[pid  4242] 10:20:30.123456 openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = 3
4243  read(3,  <unfinished ...>
4243  <... read resumed>"x", 4096)      = 1
     0.012 ( 0.004 ms): cat/4244 fstat(fd: 3, statbuf: 0x7ffc)                            = 0
     0.020 (         ): cat/4244 lseek(fd: 3 ...
     0.030 ( 1.2 ms): cat/4244  ... [continued]: lseek())                                 = 0
clone(child_stack=0x7f, flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM) = 4245
ptrace(PTRACE_TRACEME) = 0
--- SIGCHLD {si_signo=SIGCHLD} ---
+++ exited with 0 +++
nobody knows what this is
"""


def test_a_trace_becomes_a_draft_and_never_allows_an_attack() -> None:
    it = from_trace(LINES)
    program = it.compile()
    for call in ("execve", "openat", "read", "fstat", "lseek"):
        assert program.decide(ARCH, call) == Action.ALLOW, call
    assert program.decide(ARCH, "ptrace") == Action.KILL
    assert program.decide(ARCH, "clone", (0x10900,)) == Action.ALLOW
    assert program.decide(ARCH, "clone", (0x10000000,)) == Action.KILL
    assert program.decide(ARCH, "connect") == EPERM
    said = "\n".join(it.left_out)
    assert "ptrace was seen 1 times" in said
    assert "line 12 is no system call" in said
    assert said.count("is no system call") == 1


SUMMARIES = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 55.00    0.000110           5        22           mmap
 45.00    0.000090           9        10         2 openat
------ ----------- ----------- --------- --------- ----------------
100.00    0.000200           6        32         2 total
   read               9      0     1.234     0.001     0.137     0.500     20.00%
"""


def test_summaries_are_read_too() -> None:
    it = from_trace(SUMMARIES)
    assert not it.left_out
    allowed = {call for call in syscalls_of(ARCH) if it.compile().decide(ARCH, call) == Action.ALLOW}
    assert allowed == {"mmap", "openat", "read"}


def test_what_strace_prints_here_is_understood() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    for options in (["-f"], ["-f", "-tt"], ["-c"], ["-f", "-r"]):
        done = subprocess.run(
            ["strace", *options, sys.executable, "-I", "-c", "import threading, os; t = threading.Thread(target=os.getpid); t.start(); t.join()"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"strace cannot trace here: {done.stderr[-200:]}")
        it = from_trace(done.stderr)
        assert not [line for line in it.left_out if "no system call" in line], (options, it.left_out)
        program = it.compile()
        for call in ("execve", "mmap", "openat"):
            assert program.decide(ARCH, call) == Action.ALLOW, (options, call)
        assert all(program.decide(ARCH, call) == Action.KILL for call in ATTACK_SHAPED if call in syscalls_of(ARCH))


def test_a_line_in_which_strace_interrupts_itself() -> None:
    trace = "read(3, 0x7, 5) = 0\nrt_sigprocmask(SIG_SETMASK, [], strace: Process 26 attached\nNULL, 8) = 0\n"
    it = from_trace(trace)
    assert not it.left_out
    assert from_trace(trace + "NULL, 8) = 0\n").left_out == ("line 4 is no system call: 'NULL, 8) = 0'",)


def test_what_is_no_trace_is_refused() -> None:
    with pytest.raises(UsageError, match="neither strace"):
        from_trace("hello\n")


# any text

WORDS = st.lists(
    st.sampled_from(
        ("SystemCallFilter=", "~", "@default", "read", "write:EPERM", "\n", " ", ":", "arg0", "==", "&", "in", "||", "&&", "1",
         "~(", "|", ")", "AF_UNIX", "return", ";", "{", "@default", "read(", ")", "= 3", "\\\n", "0x", "99999999999999999999")
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(WORDS.map("".join) | WORDS.map(" ".join) | st.text(max_size=60))
def test_any_text_is_a_filter_or_a_usage_error(text: str) -> None:
    for read in (from_systemd, from_minijail, from_trace):
        try:
            read(text).compile()
        except UsageError:
            continue


UNIT = "[Service]\nSystemCallFilter=@basic-io openat connect:EACCES \\\n  ptrace\nSystemCallFilter=~openat getpid:kill\nSystemCallErrorNumber=EPERM\n"
POLICY = "@default return EPERM\nread: 1\nsocket: arg0 == AF_UNIX || arg0 == AF_INET && arg1 in ~SOCK_STREAM; return 13\nmmap: arg2 & (1|4)\n"
PROFILE = """{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}],
"syscalls": [{"names": ["read", "clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2114060288, "valueTwo": 0,
"op": "SCMP_CMP_MASKED_EQ"}], "includes": {"caps": ["CAP_SYS_ADMIN"], "minKernel": "4.8"}, "excludes": {"arches": ["s390"]}}]}"""
READERS: dict[str, tuple[str, Callable[[str], Imported]]] = {
    "systemd": (UNIT, from_systemd),
    "minijail": (POLICY, from_minijail),
    "strace": (LINES, from_trace),
    "strace -c": (SUMMARIES, from_trace),
    "OCI": (PROFILE, from_oci),
}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_a_text_that_is_nearly_right_is_a_filter_or_a_usage_error(name: str, data: st.DataObject) -> None:
    """A right one, with pieces of itself cut out, doubled, moved, or changed."""
    text, read = READERS[name]
    read(text).compile()
    for _ in range(data.draw(st.integers(1, 4))):
        at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 12))
        piece = data.draw(
            st.sampled_from(
                ("", text[at : at + length], "\0", "-1", "99999999999999999999", "\u202e", '"', "(", "\n", "~", "é")
            )
        )
        to = data.draw(st.integers(0, len(text)))
        text = text[:at] + text[at + length :] if not piece else text[:to] + piece + text[to:]
    try:
        read(text).compile()
    except UsageError:
        return


def test_a_killing_rule_goes_out_as_kill() -> None:
    out = to_systemd(
        compile([kill("ptrace", reason="x"), deny("read", with_=EACCES, reason="x")], default=Action.ALLOW)
    )
    assert "ptrace:kill" in out.text
    assert "read:EACCES" in out.text
