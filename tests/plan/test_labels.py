"""Labels in plans: values only. What they do is tried in the guests of `make test-vm` (tests/labels)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bunri.errors import HostError, Promise
from bunri.plan import Plan, hosts, plan
from bunri.plan.host import Host
from bunri.plan.report import State
from bunri.plan.steps import CloseDescriptors, Label, Landlock, SetIds
from bunri.policy import Policy

SELINUX = replace(
    hosts.LINUX_6_12, label_module="selinux", label="user_u:user_r:user_t:s0-s0:c0.c9", label_enforced=True
)
APPARMOR = replace(hosts.LINUX_6_12, label_module="apparmor", label="unconfined", label_enforced=True)


def _label(made: Plan) -> Label:
    return next(step for step in made.worker if isinstance(step, Label))


@pytest.mark.parametrize(
    ("wanted", "whole"),
    [
        ("bunri_t", "user_u:user_r:bunri_t:s0-s0:c0.c9"),
        ("a:b:c:s0", "a:b:c:s0"),
    ],
)
def test_a_domain_takes_the_rest_of_the_context_from_the_program(wanted: str, whole: str) -> None:
    made = plan(Policy(selinux=wanted), SELINUX)
    assert _label(made).label == whole
    assert made.expected.label == ("selinux", whole)


def test_a_profile_must_be_read_back_as_enforced() -> None:
    made = plan(Policy(apparmor="bunri"), APPARMOR)
    assert made.expected.label == ("apparmor", "bunri (enforce)")


def test_the_label_comes_after_all_that_the_domain_need_not_be_allowed() -> None:
    kinds = [type(step) for step in plan(Policy(selinux="bunri_t"), SELINUX).worker]
    assert kinds.index(SetIds) < kinds.index(Landlock) < kinds.index(Label) < kinds.index(CloseDescriptors)


@pytest.mark.parametrize("host", [SELINUX, hosts.ROOT, hosts.ORDINARY])
def test_nothing_is_changed_where_no_label_is_asked_for(host: Host) -> None:
    made = plan(Policy(), host)
    assert not any(isinstance(step, Label) for step in made.worker)
    assert made.expected.label is None


@pytest.mark.parametrize(
    ("policy", "host", "word"),
    [
        (Policy(selinux="bunri_t"), hosts.ROOT, "SELinux is not active"),
        (Policy(apparmor="bunri"), SELINUX, "AppArmor is not active"),
        (Policy(selinux="bunri_t"), APPARMOR, "SELinux is not active"),
    ],
)
def test_a_label_that_cannot_be_is_refused_unless_it_may_be_missed(policy: Policy, host: Host, word: str) -> None:
    with pytest.raises(HostError, match=word) as caught:
        plan(policy, host)
    assert caught.value.promise is Promise.LABEL
    made = plan(policy.with_(may_miss=[Promise.LABEL]), host)
    assert made.notes and not any(isinstance(step, Label) for step in made.worker)


def test_a_permissive_selinux_is_reported_as_weaker() -> None:
    made = plan(Policy(selinux="bunri_t"), replace(SELINUX, label_enforced=False))
    assert made.layer("label").state is State.WEAKER
