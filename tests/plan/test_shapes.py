"""Runs in: the test process. Every shape can be planned on every host; strict, named users, brokers, chroot."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bunri.errors import HostError, Promise
from bunri.plan import Needs, Shape, hosts, plan, told_filter
from bunri.plan.needs import PythonPaths
from bunri.plan.report import State
from bunri.plan.steps import Filter, Landlock, NewRoot, SetIds, StrictMode
from bunri.policy import Policy, User, Via, fs, net

PYTHON = PythonPaths(("/usr/lib/python3.11",))
ALL = list(Promise)
POLICIES = [
    Policy(may_miss=ALL),
    Policy(files=[fs.system()], may_miss=ALL),
    Policy(threads=2, processes=2, syscalls=["@system-service", "dangerous_io_uring_setup"], may_miss=ALL),
    Policy(network=[net.dangerous_host()], may_miss=ALL),
    Policy.compute().with_(may_miss=ALL),
]


@pytest.mark.parametrize("name", hosts.HOSTS)
@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("policy", POLICIES, ids=["nothing", "system", "broad", "host network", "compute"])
@pytest.mark.parametrize("notify", [False, True], ids=["", "development"])
def test_what_may_all_be_missed_is_planned_everywhere(name: str, shape: Shape, policy: Policy, notify: bool) -> None:
    made = plan(policy, hosts.HOSTS[name], Needs(shape=shape, notify_denials=notify), python=PYTHON)
    assert isinstance(made.worker[-1], Filter)
    assert all(layer.observed_by is None for layer in made.layers)


def test_strict_has_no_filter_before_it_for_the_kernel_refuses_mode_1_after_mode_2() -> None:
    made = plan(Policy.strict(), hosts.ROOT, python=PYTHON)
    assert not any(isinstance(step, Filter) for step in (*made.template, *made.worker))
    assert isinstance(made.worker[-1], StrictMode)
    assert made.expected.seccomp_mode == 1


def test_an_ordinary_users_own_uid_never_counts_as_a_separating_layer() -> None:
    for policy in (Policy(), Policy(user=User.same())):
        assert plan(policy, hosts.ORDINARY, python=PYTHON).layer("uid").state is not State.IN_FORCE


def test_a_named_users_groups_come_with_the_request() -> None:
    made = plan(Policy(user="ftp"), hosts.ROOT, python=PYTHON)
    assert [step.groups_of_request for step in made.worker if isinstance(step, SetIds)] == [True]
    assert made.expected.groups is None


@pytest.mark.parametrize("host", [hosts.ORDINARY, hosts.DOCKER_ROOT])
def test_a_capability_that_the_program_lacks_is_refused_even_where_identity_may_be_missed(host: hosts.Host) -> None:
    with pytest.raises(HostError, match="NET_ADMIN"):
        plan(Policy(capabilities=["NET_ADMIN"], may_miss=ALL), host, python=PYTHON)


def test_where_one_path_goes_to_a_broker_nothing_of_it_is_mounted_or_ruled() -> None:
    made = plan(Policy(files=[fs.read("/srv", via=Via.BROKER), fs.read("/opt")]), hosts.ROOT, python=PYTHON)
    assert [step.mounts for step in made.template if isinstance(step, NewRoot)] == [()]
    assert all(not step.paths for step in (*made.template, *made.worker) if isinstance(step, Landlock))
    last = made.worker[-1]
    assert isinstance(last, Filter) and last.listener


@pytest.mark.parametrize("other", [fs.python(), fs.system(), fs.execute("/usr/bin/env"), fs.scratch("/tmp", "1M")])
def test_what_a_broker_cannot_give_does_not_stand_beside_one(other: fs.FileGrant) -> None:
    with pytest.raises(HostError, match="broker"):
        plan(Policy(files=[fs.read("/srv", via=Via.BROKER), other], may_miss=ALL), hosts.ROOT, python=PYTHON)


def test_a_broker_knows_the_processes_of_its_worker_by_their_namespace() -> None:
    """Else it could be sent to the memory of somebody else's."""
    brokered = Policy(network=[net.connect("127.0.0.1", 1)], may_miss=ALL)
    unnamed = replace(hosts.ROOT, namespaces=tuple(n for n in hosts.ROOT.namespaces if n != "pid"))
    for policy, needs in ((brokered.with_(processes=1), Needs()), (brokered, Needs(shape=Shape.PROGRAM))):
        plan(policy, hosts.ROOT, needs, python=PYTHON)
        with pytest.raises(HostError, match="pid namespace"):
            plan(policy, unnamed, needs, python=PYTHON)
    with pytest.raises(HostError, match="compartment"):
        plan(brokered, hosts.ROOT, Needs(shape=Shape.SELF), python=PYTHON)


@pytest.mark.parametrize("missing", ["pid namespaces", "the right to a worker's memory"])
def test_development_mode_goes_without_where_no_broker_could_be(missing: str) -> None:
    """What a broker needs it needs here too: else it could be sent to the memory of somebody else's, or no start would
    succeed that succeeds without."""
    without_pids = replace(hosts.ROOT, namespaces=tuple(n for n in hosts.ROOT.namespaces if n != "pid"))
    host = without_pids if missing == "pid namespaces" else replace(hosts.ROOT, reads_not_dumpable=False)
    several = Policy(processes=1, may_miss=ALL)
    for policy, needs in ((several, Needs()), (Policy(may_miss=ALL), Needs(shape=Shape.PROGRAM))):
        assert told_filter(policy, hosts.ROOT, needs)
        assert told_filter(policy, host, needs) == b""
        last = plan(policy, host, replace(needs, notify_denials=True), python=PYTHON).worker[-1]
        assert isinstance(last, Filter) and not last.listener


def test_the_whole_tree_without_a_mount_namespace_is_refused() -> None:
    with pytest.raises(HostError, match="Unix socket"):
        plan(Policy(files=[fs.read("/")]), hosts.DOCKER_ROOT, python=PYTHON)


def test_one_grant_at_the_root_is_a_chroot_where_there_is_no_mount_namespace() -> None:
    made = plan(Policy(files=[fs.write("/srv/alice", at="/")]), hosts.DOCKER_ROOT, python=PYTHON)
    assert made.layer("chroot").detail == "/srv/alice"
