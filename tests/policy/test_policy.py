"""Runs in: the test process. Policies as values: defaults, spelling, equality, holes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from policy_samples import POLICIES

from bunri import seccomp
from bunri.errors import Promise, UsageError
from bunri.policy import AT_START, Capability, Policy, Profile, User, Via, fs, largest_file, net


def test_every_default_is_nothing() -> None:
    policy = Policy().settled()
    assert policy.user == User.dynamic()
    assert (policy.files, policy.network, policy.capabilities, policy.syscalls, policy.may_miss) == ((), (), (), (), ())
    assert (policy.memory, policy.cpu, policy.wall) == (256 << 20, 10.0, None)
    assert (policy.open_files, policy.file_size, policy.threads, policy.processes) == (64, None, 0, 0)
    assert (dict(policy.env), policy.selinux, policy.apparmor) == ({}, None, None)


def test_what_was_worked_out_of_a_policy_stays_in_its_process() -> None:
    """Hashes of texts differ from process to process."""
    policy = Policy(user=User.named("ftp"), files=[fs.read("/srv")])
    assert hash(policy) == hash(Policy(user="ftp", files=[fs.read("/srv")]))
    assert policy.settled() is policy.settled()
    arrived = pickle.loads(pickle.dumps(policy).replace(b"/srv", b"/opt"))
    assert arrived == Policy(user="ftp", files=[fs.read("/opt")])
    assert hash(arrived) == hash(Policy(user="ftp", files=[fs.read("/opt")]))
    assert arrived.settled().files[0].path == "/opt"


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_its_repr_is_the_call_that_makes_it_again(policy: Policy) -> None:
    names = {"Policy": Policy, "User": User, "fs": fs, "net": net, "Via": Via, "Promise": Promise}
    again = eval(repr(policy), {**names, "Capability": Capability, "AT_START": AT_START})
    assert again == policy
    assert hash(again) == hash(policy)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_its_table_names_every_field(policy: Policy) -> None:
    shown = str(policy)
    for name in ("user", "files", "network", "memory", "cpu", "may_miss"):
        assert any(line.startswith(name) for line in shown.splitlines())


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Policy().memory = 3  # type: ignore[misc]


def test_with_replaces_and_leaves_the_original_alone() -> None:
    first = Policy(files=[fs.read("/usr")], memory="1G")
    second = first.with_(files=[], cpu=None)
    assert (second.files, second.cpu, second.memory) == ((), None, 1 << 30)
    assert first.files == (fs.read("/usr"),)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512M", 512 << 20),
        ("1.5G", 3 << 29),
        ("64K", 1 << 16),
        ("1GiB", 1 << 30),
        ("7", 7),
        (4096, 4096),
        ("2 MB", 2 << 20),
    ],
)
def test_sizes_are_parsed_once(text: str | int, value: int) -> None:
    assert Policy(file_size=text).file_size == value


@pytest.mark.parametrize(
    ("text", "value"), [("250ms", 0.25), ("5s", 5.0), ("1m", 60.0), ("2h", 7200.0), (3, 3.0), (0.5, 0.5), ("1.5s", 1.5)]
)
def test_durations_are_parsed_once(text: str | float, value: float) -> None:
    assert Policy(wall=text).wall == value


def test_paths_are_made_plain() -> None:
    assert fs.read("/usr//lib/./x/") == fs.read(Path("/usr/lib/x"))


def test_holes_are_named_and_must_be_filled() -> None:
    policy = Policy(user=AT_START, files=AT_START)
    assert policy.holes == ("user", "files")
    with pytest.raises(UsageError, match="start_under"):
        policy.settled()
    assert policy.with_(user="ftp", files=[]).holes == ()


def test_a_file_may_grow_only_where_something_is_writable() -> None:
    assert largest_file(Policy().settled()) == 0
    assert largest_file(Policy().settled(), writable_handles=True) == 1 << 30
    assert largest_file(Policy(files=[fs.scratch("/tmp", "1M")]).settled()) == 1 << 30
    assert largest_file(Policy(file_size="3M").settled()) == 3 << 20


def test_a_word_of_pledge_may_be_written_without_its_mark() -> None:
    assert Policy(syscalls=["stdio"]).syscalls == ("@stdio",)


def test_rules_are_taken_as_they_are() -> None:
    rule = seccomp.allow("sched_setaffinity", reason="it pins itself")
    assert Policy(syscalls=[rule]).syscalls == (rule,)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(user="nobody"), "shared with other daemons"),
        (Policy(processes=2), "per process"),
        (Policy(files=[fs.write("/srv")]), "disk: unlimited"),
        (Policy(network=[net.dangerous_host()]), "given up"),
        (Policy(syscalls=["dangerous_bpf"]), "dangerous_bpf"),
        (Policy.dangerous_unconfined(), "unconfined"),
    ],
)
def test_what_a_reader_should_know_is_noted(policy: Policy, words: str) -> None:
    assert any(words in note for note in policy.notes)


def test_the_profiles_are_told_apart() -> None:
    made = (Policy(), Policy.compute(), Policy.strict(), Policy.dangerous_unconfined())
    assert [policy.profile for policy in made] == list(Profile)
    assert len(set(made)) == 4


def test_all_capabilities_have_their_kernel_numbers() -> None:
    assert [int(capability) for capability in Capability] == list(range(41))
    assert Policy(capabilities=["CAP_NET_RAW", "net_raw"]).capabilities == (Capability.NET_RAW,)
