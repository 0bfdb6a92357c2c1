"""Runs in: the test process. Containers' profiles in and out: libseccomp compiles the same, both are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import libseccomp_peer as peer
import pytest
from answered import ALLOWED, decisions
from filtered_child import MACHINE
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_policies import LARGEST, MAKERS, Stated, arguments, examples, policies, telling

from bunri.errors import UsageError
from bunri.seccomp import Action, Arg, Kind, Program, allow, arches, compile, deny, from_oci, syscalls_of, to_oci

pytestmark = pytest.mark.slow

PROFILE = Path("/usr/share/containers/seccomp.json")
GO = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}
# Arguments on which the rules of known profiles turn: personality's values, clone's flags, socket's families.
# The kernel asks no filter about its own probes' calls (uretprobe, uprobe), and kills who makes them by hand.
PAST_EVERY_FILTER = {335, 336} if MACHINE == "x86_64" else set[int]()
TELLING = (
    0,
    1,
    2,
    8,
    9,
    16,
    17,
    0x20000,
    0x20008,
    0xFFFFFFFF,
    0x7E020000,
    0x10000000,
    1 << 32,
    (1 << 32) | 16,
    LARGEST,
)


@pytest.fixture(scope="module")
def profile() -> str:
    if not PROFILE.exists():
        pytest.skip("golang-github-containers-common is not installed")
    return PROFILE.read_text()


def theirs(text: str, arch: str = MACHINE) -> Program:
    entries, default = peer.of_profile(text, GO[arch])
    return peer.compiled(arch, entries, default)


def not_in_our_tables(text: str) -> set[int]:
    """Numbers of calls that are gone from the kernel: libseccomp still knows them, and we list them as left out."""
    gone = {name for one in json.loads(text)["syscalls"] for name in one["names"] if name not in syscalls_of(MACHINE)}
    said = " ".join(from_oci(text, arch=MACHINE).left_out)
    numbers = {peer.number_of(name): name for name in gone if peer.number_of(name) >= 0}
    assert all(name in said for name in numbers.values())
    return set(numbers)


@pytest.mark.slow
def test_the_default_profile_decides_every_call_as_libseccomps_program_does(profile: str) -> None:
    ours, other = from_oci(profile, arch=MACHINE).compile(arch=MACHINE), theirs(profile)
    gone = not_in_our_tables(profile)
    assert len(gone) < 10
    for number in set(range(1200)) - gone:
        for one in TELLING:
            for two in (0, 9, one):
                args = (one, 3, two)
                assert ours.decide(MACHINE, number, args) == other.decide(MACHINE, number, args), (number, args)


def test_the_default_profile_installed_decides_as_libseccomps_installed(profile: str) -> None:
    """Nothing is simulated here: both programs are in the kernel, and every number is asked."""
    if MACHINE not in arches():
        pytest.skip(f"no system call table for {MACHINE}")
    gone = not_in_our_tables(profile)
    calls = [
        (number, (one, 3, two))
        for number in set(range(600)) - gone - PAST_EVERY_FILTER
        for one, two in ((0, 0), (16, 9), (2, 9))
    ]
    calls += [(syscalls_of(MACHINE)[name], (one, 1, two)) for name in ("personality", "clone", "socket")
              for one in TELLING for two in (0, 9)]  # fmt: skip
    ours = decisions(from_oci(profile, arch=MACHINE).compile(arch=MACHINE).to_bytes(), calls)
    other = decisions(theirs(profile).to_bytes(), calls)
    differing = [(call, one, two) for call, one, two in zip(calls, ours, other, strict=True) if one != two]
    assert not differing
    assert {ALLOWED, 1, 22, 38} == set(ours)


@pytest.mark.parametrize("arch", arches())
def test_what_goes_out_comes_back_the_same(profile: str, arch: str) -> None:
    program = from_oci(profile, arch=arch).compile(arch=arch)
    out = to_oci(program)
    again = from_oci(out.text, arch=arch)
    assert not out.left_out and not again.left_out
    back = again.compile(arch=arch)
    for number in range(600):
        for one in TELLING:
            for two in (0, 9):
                assert program.decide(arch, number, (one, 0, two)) == back.decide(arch, number, (one, 0, two))


@pytest.mark.slow
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    policies(
        ("lseek", "fallocate", "dup3", "getppid"),
        args=(0, 1, 2),
        makers=[m for m in MAKERS if m[1].kind is not Kind.LOG],
    ),
    st.lists(arguments, min_size=4, max_size=8),
    st.data(),
)
def test_an_ordered_policy_goes_out_without_an_order_and_means_the_same_to_libseccomp(
    stated: list[Stated], calls: list[tuple[int, ...]], data: st.DataObject
) -> None:
    try:
        program = compile([one.rule for one in stated], arch=MACHINE)
    except UsageError:
        assume(False)
        return
    out = to_oci(program)
    left_out = {line.partition(":")[0] for line in out.left_out if "without an order" in line}
    back = from_oci(out.text, arch=MACHINE).compile(arch=MACHINE)
    other = peer.compiled_in_time(MACHINE, *peer.of_profile(out.text, GO[MACHINE]))
    assume(other is not None)
    assert other
    near = st.tuples(*[st.sampled_from(telling(stated))] * 6)
    for args in (*calls, *(data.draw(near) for _ in range(8))):
        for name in {name for one in stated for name in one.names} - left_out:
            wanted = program.decide(MACHINE, name, args)
            assert back.decide(MACHINE, name, args) == wanted, (name, args, out.text)
            assert other.decide(MACHINE, name, args) == wanted, (name, args, out.text)


def small(*entries: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> str:
    return json.dumps({"defaultAction": default, "syscalls": list(entries), **more})


ALLOW = {"action": "SCMP_ACT_ALLOW"}


def test_dockers_limits_are_decided_by_what_is_said_of_the_container() -> None:
    text = small(
        {"names": ["chroot"], **ALLOW, "includes": {"caps": ["CAP_SYS_CHROOT"]}},
        {"names": ["ptrace"], **ALLOW, "includes": {"minKernel": "4.8"}},
        {"names": ["arch_prctl"], **ALLOW, "includes": {"arches": ["amd64"]}},
        {"names": ["vhangup"], **ALLOW, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
    )
    assert from_oci(text).compile().decide("x86_64", "chroot") == Action.errno(1)
    assert from_oci(text, capabilities=["CAP_SYS_CHROOT"]).compile().decide("x86_64", "chroot") == Action.ALLOW
    assert from_oci(text, kernel=(4, 4)).compile().decide("x86_64", "ptrace") == Action.errno(1)
    assert from_oci(text, kernel=(5, 10)).compile().decide("x86_64", "ptrace") == Action.ALLOW
    assert from_oci(text).compile().decide("x86_64", "arch_prctl") == Action.ALLOW
    assert from_oci(text, capabilities=["CAP_SYS_ADMIN"]).compile().decide("x86_64", "vhangup") == Action.errno(1)


def test_a_dangerous_call_comes_in_spelled_as_one() -> None:
    rules = from_oci(small({"names": ["ptrace", "read", "clone"], **ALLOW})).rules
    assert [rule.verb for rule in rules] == ["allow", "dangerous_allow"]
    assert rules[1].names == ("clone", "ptrace")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (small({"names": ["reed"], **ALLOW}), "reed"),
        (small({"names": ["read"], **ALLOW}, flags=["SECCOMP_FILTER_FLAG_LOG"]), "FLAG_LOG"),
        (small({"names": ["read"], **ALLOW}, listenerPath="/run/x"), "/run/x"),
        (small({"names": ["read"], "action": "SCMP_ACT_TRACE"}), "ENOSYS"),
        (small({"names": ["dup"], **ALLOW, "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_LT"}]}), "never hold"),
        (small({"names": ["openat"], **ALLOW, "args": [{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]}), "pointer"),
        (small({"names": ["read"], **ALLOW}, architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), "SCMP_ARCH_X86"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_said(text: str, says: str) -> None:
    assert any(says in line for line in from_oci(text).left_out), from_oci(text).left_out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a seccomp profile"),
        ("[]", "not a seccomp profile"),
        ('{"linux": {"seccomp": {}}}', "$.linux.seccomp"),
        (small({"names": ["read"], "action": "SCMP_ACT_ALOW"}), "$.syscalls[0]"),
        (small({"names": ["read"], **ALLOW, "colour": 1}), "colour"),
        (small({**ALLOW}), "names no system call"),
        (small({"names": ["read"], **ALLOW, "args": [{"index": 7, "value": 0, "op": "SCMP_CMP_EQ"}]}), "0 to 5"),
        (small({"names": ["read"], **ALLOW}, architectures=["SCMP_ARCH_S390X"]), "not for x86_64"),
        (small({"names": ["openat"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]}, default="SCMP_ACT_ALLOW"), "pointer"),
        ("[" * 100_000, "not a seccomp profile"),
    ],
)  # fmt: skip
def test_what_is_no_profile_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_oci(text)
    assert says in str(caught.value)


def test_leaving_a_refusal_out_is_refused() -> None:
    many = deny("lseek", with_=Action.errno(5), when=Arg(0).between(5, 1 << 40) & Arg(1).between(5, 1 << 40) &
                Arg(2).between(9, 1 << 33), reason="long")  # fmt: skip
    with pytest.raises(UsageError, match="let it through"):
        to_oci(compile([many], default=Action.ALLOW, unknown=Action.ALLOW))
    assert to_oci(compile([many, allow("read", reason="x")])).left_out[1].startswith("lseek")


pieces = st.sampled_from(
    ["read", "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ", 0, 1, 7, -1, 1 << 64, None, "4.8"]
)
KEYS = ("names", "name", "action", "args", "index", "value", "valueTwo", "op", "includes", "excludes", "caps", "minKernel",
        "defaultAction", "syscalls", "errnoRet", "defaultErrnoRet", "archMap", "architectures")  # fmt: skip
anything = st.recursive(
    pieces, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
)


@settings(max_examples=examples(100), deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), anything, max_size=6) | anything, st.binary(max_size=20))
def test_any_text_is_a_profile_or_a_usage_error(value: Any, tail: bytes) -> None:
    for text in (json.dumps(value).encode(), json.dumps(value).encode() + tail):
        try:
            from_oci(text).compile()
        except UsageError:
            continue
